package query

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/setting"
)

// Filter is what a record has to be to be wanted. The zero value wants all.
type Filter struct {
	tests        []test
	since, until time.Time // zero: no bound
	from, to     string    // the same as records write it
}

// test is one word that somebody wrote.
type test struct {
	field   string // what it looks at
	negated bool
	holds   func(r *record) bool
}

// Key is one kind of filter, for the help.
type Key struct{ Name, Example, What string }

// key is a Key with what makes a test of its value. A nil make is for the bounds in time.
type key struct {
	Key
	field string // in the record, where it has another name
	make  func(field, value string) (func(*record) bool, error)
}

// keys are all filters in the order of the help.
var keys = []key{
	{Key{"host", "host:*.example.com", "the host that was asked"}, "", text},
	{Key{"status", "status:5xx", "also 429, 400-499, >=500"}, "", number(statuses, plainly)},
	{Key{"method", "method:POST,PUT", ""}, "", text},
	{Key{"outcome", "outcome:!ok", "ok, upstream_error, client_gone or a code of the proxy's own answers"}, "", text},
	{Key{"url", "url:~/v[12]/", "a piece of the URL, or a regular expression behind ~"}, "", address},
	{Key{"since", "since:1h", "a span, a date, a time of day, or RFC 3339; without a zone it is local time"}, "", nil},
	{Key{"until", "until:2026-11-26T10:00Z", "the same; the moment itself is not included"}, "", nil},
	{Key{"duration", "duration:>500ms", ""}, "duration_ms", number(durations, plainly)},
	{Key{"attempts", "attempts:>1", "how often it was sent"}, "", number(counts, tries)},
	{Key{"attempt", "attempt:429", "the status or error of any attempt"}, "attempts", anyAttempt},
	{Key{"bytes", "bytes:>1MiB", "both ways together; request_bytes and response_bytes are one way"}, "request_bytes", number(sizes, traffic)},
	{Key{"request_bytes", "request_bytes:>1MiB", ""}, "", number(sizes, plainly)},
	{Key{"response_bytes", "response_bytes:0", ""}, "", number(sizes, plainly)},
	{Key{"tenant", "tenant:billing", ""}, "", text},
	{Key{"client", "client:10.0.0.0/8", "an address or a network"}, "", network},
	{Key{"policy", "policy:api.example.com*", "the policy's pattern and route"}, "", text},
	{Key{"kind", "kind:admin", "request, tunnel, admin, breaker, config, lifecycle, …"}, "", text},
	{Key{"mode", "mode:tunnel", "plain, tunnel, intercept, upgrade"}, "", text},
	{Key{"id", "id:0198c1f2-*", "what came back as Httpowerd-Request-Id"}, "", text},
	{Key{"trace", "trace:4bf92f35*", ""}, "trace_id", text},
	{Key{"by", "by:proxy", "who answered"}, "status_by", text},
	{Key{"redactions", "redactions:pan", "has something of this kind hidden; >2 counts"}, "", hidden},
	{Key{"wait", "wait:>1s", "the time that limits held it"}, "limit_wait_ms", number(durations, plainly)},
	{Key{"overhead", "overhead:>5ms", "the time in the proxy"}, "overhead_ms", number(durations, plainly)},
	{Key{"detail", "detail:certificate", "a piece of the explanation"}, "", piece},
	{Key{"breaker", "breaker:open", ""}, "", text},
	{Key{"dedup", "dedup:follower", ""}, "", text},
	{Key{"cache", "cache:hit", ""}, "", text},
	{Key{"credential", "credential:stripe", ""}, "", text},
	{Key{"not_retried", "not_retried:budget", ""}, "", text},
	{Key{"observed", "observed:*", "what observe mode would have done"}, "", member},
	{Key{"unapplied", "unapplied:retry", ""}, "", member},
	{Key{"event", "event:loaded", "of records that are no exchanges"}, "", text},
	{Key{"authority", "authority:api.example.com:443", "of breakers and gates"}, "", text},
	{Key{"seq", "seq:100-200", "the place in the hash chain"}, "", number(counts, plainly)},
}

// Keys lists the filters, for the help.
func Keys() []Key {
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = k.Key
	}
	return out
}

// Parse makes a filter of words, which all have to hold. Times without a date or in spans are taken from now.
func Parse(words []string, now time.Time) (*Filter, error) {
	f := &Filter{}
	for _, word := range words {
		if err := f.add(word, now); err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
	}
	if !f.since.IsZero() && !f.until.IsZero() && !f.since.Before(f.until) {
		return nil, fmt.Errorf("since is %s, which is not before until, %s", f.since.Format(time.RFC3339), f.until.Format(time.RFC3339))
	}
	if !f.since.IsZero() {
		f.from = f.since.UTC().Format(stamp)
	}
	if !f.until.IsZero() {
		f.to = f.until.UTC().Format(stamp)
	}
	return f, nil
}

func (f *Filter) add(word string, now time.Time) error {
	rest, negated := strings.CutPrefix(word, "!")
	if !negated {
		rest, negated = strings.CutPrefix(word, "-")
	}
	name, value, isKey := strings.Cut(rest, ":")
	if !isKey || !IsName(name) || strings.HasPrefix(value, "//") {
		if rest == "" {
			return fmt.Errorf("there is nothing to look for")
		}
		name, value = "url", rest
	}
	k, err := find(name)
	if err != nil {
		return err
	}
	if v, turned := strings.CutPrefix(value, "!"); turned {
		value, negated = v, !negated
	}
	if value == "" {
		return fmt.Errorf("the value is missing: %s is an example, %s:* holds where there is one and !%s:* where there is none", k.Example, k.Name, k.Name)
	}
	if k.make == nil {
		return f.bound(k.Name, value, negated, now)
	}
	field := k.field
	if field == "" {
		field = k.Name
	}
	holds, err := k.make(field, value)
	if err != nil {
		return fmt.Errorf("%w, such as %s", err, k.Example)
	}
	f.tests = append(f.tests, test{field, negated, holds})
	return nil
}

// IsName tells a key from what stands before the colon of an authority.
func IsName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") == ""
}

func find(name string) (*key, error) {
	name = strings.ToLower(name)
	var known []string
	for i := range keys {
		if k := &keys[i]; k.Name == name || k.field == name && k.field != "attempts" && k.field != "request_bytes" {
			return k, nil
		}
		known = append(known, keys[i].Name)
	}
	return nil, fmt.Errorf("there is no filter %s%s; url:%s:… looks for a piece of the URL; `httpowerd audit --help` lists the filters",
		name, setting.DidYouMean(name, known), name)
}

func (f *Filter) bound(name, value string, negated bool, now time.Time) error {
	if negated {
		return fmt.Errorf("a bound in time cannot be negated: since and until are each other's opposite")
	}
	t, err := moment(value, now)
	switch {
	case err != nil:
		return err
	case name == "since" && t.After(f.since):
		f.since = t
	case name == "until" && (f.until.IsZero() || t.Before(f.until)):
		f.until = t
	}
	return nil
}

// stamp is how records write times; opening is what stands before the first of them.
const (
	stamp   = "2006-01-02T15:04:05.000000000Z"
	opening = `{"time":"`
)

// early tells, from the first bytes of a line, that its record lies outside of the bounds in time.
func (f *Filter) early(line []byte) bool {
	if f.from == "" && f.to == "" || len(line) < len(opening)+len(stamp)+1 || string(line[:len(opening)]) != opening {
		return false
	}
	at := line[len(opening) : len(opening)+len(stamp)]
	if at[len(stamp)-1] != 'Z' || line[len(opening)+len(stamp)] != '"' || at[10] != 'T' || at[19] != '.' {
		return false
	}
	return f.from != "" && string(at) < f.from || f.to != "" && string(at) >= f.to
}

// match tells whether a record is wanted.
func (f *Filter) match(r *record) bool {
	if !f.since.IsZero() || !f.until.IsZero() {
		t, ok := r.time()
		if !ok || t.Before(f.since) || !f.until.IsZero() && !t.Before(f.until) {
			return false
		}
	}
	for i := range f.tests {
		t := &f.tests[i]
		// What has no such field and could not have one is neither wanted nor unwanted: !outcome:ok shows failures, and not that the daemon started.
		if t.holds(r) == t.negated || t.negated && !r.exchange() && r.get(t.field) == nil {
			return false
		}
	}
	return true
}

// covers tells whether a file can have wanted records, whose first one is younger than after and whose last one is not younger than before. A zero time is
// not known. The clock may have been set back a little.
func (f *Filter) covers(after, before time.Time) bool {
	const slack = 5 * time.Minute
	if !before.IsZero() && !f.since.IsZero() && before.Add(slack).Before(f.since) {
		return false
	}
	return after.IsZero() || f.until.IsZero() || after.Add(-slack).Before(f.until)
}

// Bounded tells that since was given, so that whoever follows a trail need not choose where to begin.
func (f *Filter) Bounded() bool { return !f.since.IsZero() }

// contains is bytes.Contains, where it has to be looked at all.
func contains(text []byte, part string) bool { return bytes.Contains(text, []byte(part)) }

// either makes one test of alternatives that are separated by commas.
func either[T any](value string, parse func(string) (func(T) bool, error)) (func(T) bool, error) {
	var all []func(T) bool
	for part := range strings.SplitSeq(value, ",") {
		f, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return func(v T) bool { return slices.ContainsFunc(all, func(f func(T) bool) bool { return f(v) }) }, nil
}
