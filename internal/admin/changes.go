package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
)

// maxBody is the largest body that a change may have.
const maxBody = 64 << 10

// fields reads a body: a flat JSON object of texts with no other keys than these, or nothing at all.
func (c *call) fields(keys ...string) (map[string]string, *problem) {
	data, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, refuse(codeTooLarge, "the body is larger than 64 KiB")
	}
	if err != nil {
		return nil, refuse(codeBadRequest, "the body did not arrive")
	}
	if len(data) == 0 {
		return nil, nil
	}
	kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || c.r.Header.Get("Content-Encoding") != "" {
		return nil, refuse(codeUnsupported, "send the body as Content-Type: application/json, not encoded")
	}
	out, fault := parseFields(data, keys)
	if fault != "" {
		return nil, refuse(codeBadRequest, fault)
	}
	return out, nil
}

// parseFields is stricter than encoding/json: a key is known, spelled as it is, and there once. fault says what is wrong.
func parseFields(data []byte, keys []string) (out map[string]string, fault string) {
	const notObject = "the body must be one JSON object"
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, notObject
	}
	out = map[string]string{}
	for d.More() {
		t, err := d.Token()
		key, _ := t.(string)
		if err != nil {
			return nil, notObject
		}
		if !slices.Contains(keys, key) {
			if len(keys) == 0 {
				return nil, "the body has a key that is not known: this page knows none"
			}
			return nil, "the body has a key that is not known: this page knows " + strings.Join(keys, ", ")
		}
		if _, twice := out[key]; twice {
			return nil, key + " is there twice"
		}
		t, err = d.Token()
		if err != nil {
			return nil, notObject
		}
		text, ok := t.(string)
		if !ok {
			return nil, key + " must be a text"
		}
		out[key] = text
	}
	if _, err := d.Token(); err != nil {
		return nil, notObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, notObject
	}
	return out, ""
}

// reloaded is how the last reload went.
type reloaded struct {
	At     time.Time
	Failed bool
	Faults []policy.Fault // where the file is to blame
}

// hear notes every reload, whoever asked for it.
func (h *Handler) hear(_ *policy.Snapshot, err error, _ []string) {
	last := &reloaded{At: time.Now(), Failed: err != nil}
	var faults policy.Faults
	if errors.As(err, &faults) {
		last.Faults = shown(faults)
	}
	h.last.Store(last)
}

// reload reads the configuration again.
func (h *Handler) reload(c *call) *problem {
	if _, p := c.fields(); p != nil {
		return p
	}
	err := h.Reload(context.WithoutCancel(c.r.Context()), "the admin API") // what has begun is finished, whoever hangs up
	var faults policy.Faults
	if errors.As(err, &faults) {
		p := refuse(codeInvalidConfig, "the configuration in use stays: the file has faults")
		p.faults = shown(faults)
		c.what = append(c.what, slog.Int("faults", len(faults)))
		return p
	}
	if err != nil {
		h.Log.Error("a reload through the admin API", "id", c.id, "error", err)
		return refuse(codeInternal, "not everything could be read again; the log says what, under this request's id")
	}
	f := h.Policies.File()
	hash, restart := f.Hash(), list(h.Policies.RestartNeeded())
	c.what = append(c.what, slog.String("config_hash", hash))
	return c.json(struct {
		Hash          string         `json:"hash"`
		RestartNeeded []string       `json:"restart_needed"`
		Warnings      []policy.Fault `json:"warnings"`
	}{hash, restart, shown(f.Warnings())})
}

// list is never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// force sets an authority's breakers, or lets them decide again.
func (h *Handler) force(c *call) *problem {
	fields, p := c.fields("state")
	if p != nil {
		return p
	}
	to := fields["state"]
	if to != breaker.Open && to != breaker.Closed && to != breaker.Auto {
		return refuse(codeBadRequest, `write {"state": "open"}, "closed" or "auto"`)
	}
	c.what = append(c.what, slog.String("state", to))
	authority, err := exchange.ParseAuthority(c.arg, 0)
	if err != nil {
		return refuse(codeBadRequest, detailOf(err, "the path must end in HOST:PORT"))
	}
	switch err := h.Breakers.Force(authority.String(), to); {
	case errors.Is(err, breaker.ErrUnknown):
		return refuse(codeNotFound, "no breaker has seen this authority")
	case err != nil:
		h.Log.Error("a breaker was not set", "id", c.id, "error", err)
		return refuse(codeInternal, "the breaker could not be set; the log says why, under this request's id")
	}
	h.Log.Info("an operator set a circuit breaker", "authority", authority.String(), "state", to, "client", c.client.String())
	return c.json(breakerList{h.breakersOf(func(s breaker.Status) bool { return s.Authority == authority.String() })})
}

// detailOf is what a refusal tells a client; another error's text stays inside.
func detailOf(err error, otherwise string) string {
	var refusal *exchange.Refusal
	if errors.As(err, &refusal) {
		return refusal.Detail
	}
	return otherwise
}

// levels are the words for the log's levels.
var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// levelAuto gives the level back to the configuration.
const levelAuto = "auto"

// setLevel sets the log's level until it is given back, or the daemon ends.
func (h *Handler) setLevel(c *call) *problem {
	fields, p := c.fields("level")
	if p != nil {
		return p
	}
	word := fields["level"]
	level, ok := levels[word]
	if !ok && word != levelAuto {
		return refuse(codeBadRequest, `write {"level": "debug"}, "info", "warn", "error" or "auto"`)
	}
	c.what = append(c.what, slog.String("level", word))
	if word == levelAuto {
		h.Level.Release()
	} else {
		h.Level.Force(level)
	}
	return h.level(c)
}

// level shows the log's level.
func (h *Handler) level(c *call) *problem {
	now, forced := h.Level.Level()
	return c.json(struct {
		Level  string `json:"level"`
		Forced bool   `json:"forced"` // holds through reloads, until it is set to auto
	}{strings.ToLower(now.String()), forced})
}
