// Package policy turns a configuration file into a snapshot: it loads, validates, merges and compiles.
package policy

import (
	"net/http"
	"slices"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/match"
	"httpowerd/internal/policy/tenant"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/redact"
)

// Snapshot is everything compiled from one configuration. It is immutable; an exchange ends on the snapshot it began with.
type Snapshot struct {
	Hash     string    // of the effective configuration, for config_info
	Loaded   time.Time // when it was compiled
	Warnings []Fault   // settings that cannot act, wildcards over public suffixes, open secret files
	Settings Settings  // what is not per host: listeners, admin, audit, ca, destinations, …
	Rules    *destination.Rules
	Tenants  *tenant.Set // nil: nobody is asked who he is

	hosts       hostIndex
	tenantHosts map[string]*tenantHosts
	intercepts  bool
}

// Intercepts tells whether any policy decrypts, so that programs must trust the CA.
func (s *Snapshot) Intercepts() bool { return s.intercepts }

// hostIndex finds the block of an authority.
type hostIndex struct {
	byPattern *match.Index[*Host]
	hosts     []*Host // in the order of their patterns
	rest      *Host   // the bare defaults
}

// Host is the policy of one host pattern.
type Host struct {
	Pattern string  // as written, "" where no block matched and the defaults hold alone
	Base    *Policy // holds where no route matches, and for tunnels
	Routes  []Route // in the order of the file
}

// Policy is the merged blocks that hold for one host and route, compiled.
type Policy struct {
	Name      string // pattern, "#" and the route's name or number
	Access    Access
	Intercept bool // tls: intercept
	SNI       SNI
	Upgrade   bool // upgrade: https
	Timeout   timeout.Config
	Audit     AuditPolicy
	Redactor  *redact.Redactor
	Unapplied []string // blocks that cannot act on a tunnel of this host
	Signal    string   // the vendor's own form of X-Should-Retry, in net/http's spelling; "": none

	Requests http.RoundTripper // the chain of stages for requests
	Tunnels  http.RoundTripper // the chain for CONNECT: answers 200 with the connection as an io.ReadWriteCloser body
	Stages   []string          // names in order, for explain
}

// Route is a policy that holds where its match does.
type Route struct {
	Name   string // as written, or its number
	Policy *Policy
	match  *match.Route
}

// Access says whether a policy lets requests through.
type Access string

// Allow passes, Deny refuses, Report passes and records that it would have been refused.
const (
	Allow  Access = "allow"
	Deny   Access = "deny"
	Report Access = "report"
)

// SNI says whether a tunnel's ClientHello must name the CONNECT host.
type SNI string

// SNIAllow accepts an absent name and CONNECT to an address; SNIRequire wants the name, and equal.
const (
	SNIAllow   SNI = "allow"
	SNIRequire SNI = "require"
)

// Host returns the block for an authority: exact name with port, exact name, longest "*." suffix with and without port, "*", or the bare defaults.
// It never returns nil.
func (s *Snapshot) Host(a exchange.Authority) *Host {
	if h, _, ok := s.hosts.byPattern.Find(a); ok {
		return h
	}
	return s.hosts.rest
}

// Hosts lists the host blocks, in the order of their patterns.
func (s *Snapshot) Hosts() []*Host { return slices.Clone(s.hosts.hosts) }

// Default is the policy of hosts that no block matches.
func (s *Snapshot) Default() *Policy { return s.hosts.rest.Base }

// Policy returns the first route whose match holds for the request, or the base. A path that servers read in two ways (/a/../b) is asked for both,
// and the stricter access holds; where they are equal a route beats the base, and the path that most servers serve the one that was sent.
func (h *Host) Policy(r *http.Request) *Policy {
	p := h.first(r)
	if len(h.Routes) == 0 {
		return p
	}
	if other, ok := match.Resolved(r); ok {
		if q := h.first(other); outranks(q.Access, p.Access, q == h.Base) {
			return q
		}
	}
	return p
}

// outranks tells whether the policy of a path's second reading takes the place of the first's.
func outranks(second, first Access, secondIsBase bool) bool {
	order := []Access{Allow, Report, Deny}
	if d := slices.Index(order, second) - slices.Index(order, first); d != 0 {
		return d > 0
	}
	return !secondIsBase
}

func (h *Host) first(r *http.Request) *Policy {
	for i := range h.Routes {
		if h.Routes[i].match.Match(r) {
			return h.Routes[i].Policy
		}
	}
	return h.Base
}
