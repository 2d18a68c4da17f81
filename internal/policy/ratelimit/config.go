package ratelimit

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/setting"
	"httpowerd/internal/state/quota"
)

// Config is the block rate_limit of one level. Start from Default; Requests, Per and Burst are zero where nobody wrote them.
type Config struct {
	// Requests in each Per; written together. Without them the block only learns what the upstream announces.
	Requests int              `yaml:"requests"`
	Per      setting.Duration `yaml:"per"`
	// Burst is how many may go at once after a quiet time; 0 is Requests. 1 spaces requests evenly.
	Burst int `yaml:"burst"`
	// Wait is how long a request may be held before it is refused; 0s refuses whatever cannot go at once.
	Wait setting.Duration `yaml:"wait"`
	// Queue is how many may wait at one limiter; the next is refused at once.
	Queue int `yaml:"queue"`
	// Key splits the limit further: tenant, credential, path, header:NAME. Each value has a limiter of its own, so a client that
	// chooses the value (path, header) can widen its limit.
	Key []string `yaml:"key"`
	// Scope is authority (one limiter for each host and port) or pattern (one for all that the host pattern matches).
	Scope string `yaml:"scope"`
	// Charge says what costs a token: each attempt, as upstreams count, or each exchange, so that retries are free.
	Charge string `yaml:"charge"`
	// Cost is how many tokens one charge takes: a number, at most Burst, or a CEL expression over request and response. One that names response is
	// charged after the answer; what it exceeds Estimate by is owed, and those who come next wait for it.
	Cost Cost `yaml:"cost"`
	// Estimate is what is taken before an answer that Cost is found in: a number or a CEL expression over request. A low one lets a crowd through
	// before the first answers tell what it costs.
	Estimate Cost `yaml:"estimate"`
	// Learn reads the upstream's own announcements, and holds or refuses requests while an announced quota is used up.
	Learn bool `yaml:"learn"`
	// Dialect names the upstream's rate-limit fields; auto recognises them by their names.
	Dialect string `yaml:"dialect"`
	// Reset says how a reset is written; auto tells by its shape and size.
	Reset string `yaml:"reset"`
	// Mode observe decides, counts and notes, but lets everything pass.
	Mode setting.Mode `yaml:"mode"`
}

// Names of Config.Scope and Config.Charge.
const (
	ScopeAuthority = "authority"
	ScopePattern   = "pattern"
	ChargeAttempt  = "attempt"
	ChargeExchange = "exchange"
)

// Default is the block with nothing written in it.
func Default() Config {
	return Config{
		Wait: setting.Duration(5 * time.Second), Queue: 100, Scope: ScopeAuthority, Charge: ChargeAttempt,
		Cost: Tokens(1), Estimate: Tokens(1), Learn: true, Dialect: quota.Auto, Reset: quota.Auto, Mode: setting.Enforce,
	}
}

// Bounds of what may be written: beyond them arithmetic or memory would suffer before any upstream did.
const (
	maxRequests = 1_000_000_000
	maxQueue    = 1_000_000
	maxPer      = 31 * 24 * time.Hour
	maxWait     = time.Hour
)

// Limits says whether the block limits, besides learning.
func (c Config) Limits() bool { return c.Requests > 0 }

// burst is Burst, or what it is derived from.
func (c Config) burst() int {
	if c.Burst > 0 {
		return c.Burst
	}
	return c.Requests
}

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	faults := c.validateLimit()
	if c.Wait < 0 || c.Wait.D() > maxWait {
		faults = append(faults, setting.Faultf("wait", "must be from 0s to 1h, is %s", c.Wait))
	}
	if c.Queue < 0 || c.Queue > maxQueue {
		faults = append(faults, setting.Faultf("queue", "must be from 0 to %d, is %d", maxQueue, c.Queue))
	}
	faults = append(faults, c.validateKey()...)
	faults = oneOf(faults, "scope", c.Scope, ScopeAuthority, ScopePattern)
	faults = oneOf(faults, "charge", c.Charge, ChargeAttempt, ChargeExchange)
	faults = oneOf(faults, "dialect", c.Dialect, quota.Dialects()...)
	faults = oneOf(faults, "reset", c.Reset, quota.Resets()...)
	faults = oneOf(faults, "mode", string(c.Mode), string(setting.Enforce), string(setting.Observe))
	if !c.Limits() && !c.Learn && c.Requests == 0 && c.Per == 0 {
		faults = append(faults, setting.Faultf("", "does nothing: write requests and per, or learn: true, or off"))
	}
	return faults
}

func (c Config) validateLimit() []setting.Fault {
	var faults []setting.Fault
	switch {
	case c.Requests == 0 && c.Per == 0:
		for _, alone := range []struct {
			key     string
			written bool
		}{
			{"burst", c.Burst != 0}, {"key", len(c.Key) > 0}, {"scope", c.Scope == ScopePattern}, {"charge", c.Charge == ChargeExchange}, {"cost", c.Cost != Tokens(1)},
			{"estimate", c.Estimate != Tokens(1)},
		} {
			if alone.written {
				faults = append(faults, setting.Faultf(alone.key, "needs requests and per beside it"))
			}
		}
		return faults
	case c.Requests == 0:
		return append(faults, setting.Faultf("requests", "is missing or 0: write how many requests may go in each per"))
	case c.Per == 0:
		return append(faults, setting.Faultf("per", "is missing or 0: write the time that requests counts for, such as 1s or 1m"))
	}
	if c.Requests < 0 || c.Requests > maxRequests {
		faults = append(faults, setting.Faultf("requests", "must be from 1 to %d, is %d", maxRequests, c.Requests))
	}
	if c.Per.D() < time.Millisecond || c.Per.D() > maxPer {
		faults = append(faults, setting.Faultf("per", "must be from 1ms to 31d, is %s", c.Per))
	}
	if c.Burst < 0 || c.Burst > maxRequests {
		faults = append(faults, setting.Faultf("burst", "must be from 1 to %d, is %d", maxRequests, c.Burst))
	}
	return append(faults, c.validateCost()...)
}

func (c Config) validateCost() []setting.Fault {
	var faults []setting.Fault
	if !c.Cost.isExpression() && (c.Cost.tokens < 1 || c.Cost.tokens > max(1, c.burst())) {
		faults = append(faults, setting.Faultf("cost", "must be from 1 to burst (%d), is %d: a dearer request could never go", c.burst(), c.Cost.tokens))
	}
	switch e := c.Estimate; {
	case e.after:
		faults = append(faults, setting.Faultf("estimate", "is taken before there is an answer: name request only"))
	case !e.isExpression() && (e.tokens < 0 || e.tokens > max(1, c.burst())):
		faults = append(faults, setting.Faultf("estimate", "must be from 0 to burst (%d), is %d", c.burst(), e.tokens))
	case e != Tokens(1) && !c.Cost.after:
		faults = append(faults, setting.Faultf("estimate", "does nothing: cost names no response, so it is known before the answer"))
	}
	return faults
}

func (c Config) validateKey() []setting.Fault {
	var faults []setting.Fault
	for _, part := range c.Key {
		name, isHeader := strings.CutPrefix(part, "header:")
		switch {
		case isHeader && validFieldName(name) && !slices.Contains(neverSeen[:], http.CanonicalHeaderKey(name)):
		case isHeader && validFieldName(name):
			faults = append(faults, setting.Faultf("key", "%q never reaches the limit, so that all requests would share one: name another header", part))
		case isHeader:
			faults = append(faults, setting.Faultf("key", "%q does not name a header: write header:X-Account", part))
		case part != "tenant" && part != "credential" && part != "path":
			faults = append(faults, setting.Faultf("key", "%q is not a part: write tenant, credential, path or header:NAME", part))
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(c.Key)))) != len(c.Key) {
		faults = append(faults, setting.Faultf("key", "names a part twice"))
	}
	return faults
}

// neverSeen are fields that concern the connection, or are no fields any more once a request is parsed.
var neverSeen = [...]string{"Connection", "Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// validFieldName is token of RFC 9110 section 5.6.2.
func validFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func oneOf(faults []setting.Fault, key, value string, allowed ...string) []setting.Fault {
	if slices.Contains(allowed, value) {
		return faults
	}
	return append(faults, setting.Faultf(key, "must be one of %s, is %q", setting.Words(allowed), value))
}
