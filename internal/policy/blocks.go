package policy

import (
	"errors"
	"math/rand/v2"
	"slices"

	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// block describes one block of a policy.
type block struct {
	name    string
	on      bool       // even where nobody wrote it
	always  bool       // off only returns it to its defaults: the stage behind it is fixed
	adds    addition   // what several levels do to each other, besides the usual merge
	config  func() any // a pointer to its defaults
	tunnels []string   // fields that cannot act on a tunnel; "" is the whole block
}

type addition uint8

const (
	replaces addition = iota // field by field, a list replaces a list
	levels                   // each level that writes one adds a limiter
	lists                    // lists grow
)

func defaultOf[T any](f func() T) func() any {
	return func() any { v := f(); return &v }
}

// blocks lists a policy's blocks in the order of the reference.
func blocks() []block {
	return []block{
		{name: "upstream", on: true, always: true, config: defaultOf(upstream.Default),
			tunnels: []string{"ca", "client_cert", "client_key", "min_version", "http2", "max_idle", "max_connections", "idle", "warm", "insecure_skip_verify"}},
		{name: "timeout", on: true, config: defaultOf(timeout.Default), tunnels: []string{"tls", "attempt", "body_idle"}},
		{name: "retry", on: true, config: defaultOf(retry.Default),
			tunnels: []string{"methods", "statuses", "retry_after", "buffer", "failure_when", "signal", "idempotency_key"}},
		{name: "rate_limit", adds: levels, config: defaultOf(ratelimit.Default), tunnels: []string{"learn", "dialect", "reset"}},
		{name: "concurrency", adds: levels, config: defaultOf(concurrency.Default)},
		{name: "breaker", on: true, config: defaultOf(breaker.Default), tunnels: []string{"count_429", "slow"}},
		{name: "hedge", config: defaultOf(hedge.Default), tunnels: []string{""}},
		{name: "dedup", config: defaultOf(dedup.Default), tunnels: []string{""}},
		{name: "sanitize", config: defaultOf(sanitize.Default), tunnels: []string{""}},
		{name: "audit", on: true, always: true, config: defaultOf(defaultAudit), tunnels: []string{""}},
		{name: "redact", on: true, always: true, adds: lists, config: func() any { return &redact.Config{} }, tunnels: []string{""}},
	}
}

// later names what a configuration of this version may one day hold. Written off, these keys are accepted today.
var (
	laterBlocks = []string{"cache", "compression", "credential", "verify", "request", "response", "hooks", "validate",
		"paginate", "batch"}
	laterTops     = []string{"credentials", "webhooks", "test"}
	laterSwitches = []string{"cache", "compression", "verify", "test"} // which {} switches on
)

// choice is a policy's key with a few words to choose from; the first one holds where nothing is written.
type choice struct {
	name  string
	words []string
}

func choices() []choice {
	return []choice{
		{"access", []string{string(Allow), string(Deny), string(Report)}},
		{"tls", []string{"tunnel", "intercept"}},
		{"sni", []string{string(SNIAllow), string(SNIRequire)}},
		{"upgrade", []string{"off", "https"}},
	}
}

// policyKeys lists what may stand at a level of a policy.
func policyKeys(level string) []string {
	var keys []string
	for _, c := range choices() {
		keys = append(keys, c.name)
	}
	keys = append(keys, "profile", "provider")
	for _, b := range blocks() {
		keys = append(keys, b.name)
	}
	switch level {
	case originHost:
		keys = append(keys, "routes")
	case originRoute:
		keys = append(keys, "name", "match")
	case originProfile, originProvider:
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == "profile" || k == "provider" })
	}
	return keys
}

// AuditPolicy is a policy's own audit block: what goes into the records of its exchanges beyond the fixed fields.
type AuditPolicy struct {
	// Headers records both sides' headers, sanitised.
	Headers bool `yaml:"headers"`
	// Bodies records bodies up to MaxBody, sanitised: off, request, response or all. What is held for it takes memory.
	Bodies Bodies `yaml:"bodies"`
	// MaxBody is how much of a body is recorded.
	MaxBody setting.Size `yaml:"max_body"`
	// Sample is the share of exchanges that are recorded at all. Below 1 an exchange may leave no trace.
	Sample float64 `yaml:"sample"`
	// OnFull says what happens when records come faster than they can be written: block holds exchanges up, drop loses records and counts them,
	// fail-closed refuses new exchanges as long as records cannot be written.
	OnFull string `yaml:"on_full"`
}

func defaultAudit() AuditPolicy {
	return AuditPolicy{Bodies: BodiesOff, MaxBody: 2 << 10, Sample: 1, OnFull: OnFullBlock}
}

// The values of AuditPolicy.OnFull.
const (
	OnFullBlock      = "block"
	OnFullDrop       = "drop"
	OnFullFailClosed = "fail-closed"
)

// RequestBodies tells whether request bodies are recorded.
func (a AuditPolicy) RequestBodies() bool { return a.Bodies == BodiesRequest || a.Bodies == BodiesAll }

// ResponseBodies tells whether response bodies are recorded.
func (a AuditPolicy) ResponseBodies() bool {
	return a.Bodies == BodiesResponse || a.Bodies == BodiesAll
}

// Sampled draws whether an exchange is recorded.
func (a AuditPolicy) Sampled() bool { return a.Sample >= 1 || rand.Float64() < a.Sample }

// Validate returns every fault of the block.
func (a AuditPolicy) Validate() []setting.Fault {
	var c checks
	c.size("max_body", a.MaxBody, 0, 16<<20)
	if !(a.Sample >= 0 && a.Sample <= 1) {
		c = append(c, setting.Faultf("sample", "must be from 0 to 1, is %v", a.Sample))
	}
	c.oneOf("on_full", a.OnFull, OnFullBlock, OnFullDrop, OnFullFailClosed)
	return c
}

// Bodies says which bodies are recorded.
type Bodies string

// The values of Bodies.
const (
	BodiesOff      Bodies = "off"
	BodiesRequest  Bodies = "request"
	BodiesResponse Bodies = "response"
	BodiesAll      Bodies = "all"
)

// DecodeSetting takes the words, and false.
func (b *Bodies) DecodeSetting(v any) error {
	switch v {
	case false, "off":
		*b = BodiesOff
	case "request", "response", "all":
		*b = Bodies(v.(string))
	default:
		return errors.New("must be off, request, response or all")
	}
	return nil
}

// SettingKind describes what may be written.
func (Bodies) SettingKind() string { return "off, request, response or all" }
