package ratelimit

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"httpowerd/internal/state/quota"
)

// quote is a structured-field string (RFC 9651 section 3.3.3), which holds printable ASCII only.
func quote(s string) string { return string(appendQuoted(nil, s)) }

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r < ' ' || r > '~':
			dst = append(dst, '?')
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		default:
			dst = append(dst, byte(r))
		}
	}
	return append(dst, '"')
}

// appendName writes the name of an announced quota.
func appendName(dst []byte, name string) []byte {
	if name == "" {
		return append(dst, `"upstream"`...)
	}
	return appendQuoted(dst, name)
}

// policyItem is the level's item of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers). A window is a whole number of seconds, or is left out.
func policyItem(name string, c Config, requests bool) string {
	item := string(appendPolicy([]byte(name), int64(c.Requests), c.Per.D(), quota.Requests))
	if !requests {
		item += `;qu="cost"`
	}
	return item
}

// appendPolicy writes what follows an item's name.
func appendPolicy(dst []byte, limit int64, window time.Duration, unit string) []byte {
	dst = append(dst, ";q="...)
	dst = strconv.AppendInt(dst, limit, 10)
	if window > 0 && window%time.Second == 0 {
		dst = strconv.AppendInt(append(dst, ";w="...), int64(window/time.Second), 10)
	}
	switch unit {
	case quota.Requests:
		return dst
	case quota.Bytes:
		unit = "content-bytes"
	case quota.Concurrency:
		unit = "concurrent-requests"
	}
	return append(append(append(dst, ";qu=\""...), unit...), '"')
}

// tell adds RateLimit and RateLimit-Policy to an answer: an item for each limit that was passed, and for each quota that the upstream announced in
// another dialect. Whatever counts requests is never told looser than the tightest of what the upstream said. Standard fields of the upstream stay as
// they are; an item is added to them only where it is tighter.
func (p *passage) tell(resp *http.Response, now time.Time, standing []quota.Learnt) {
	tight := tightest(standing)
	if state, policies := p.fields.Standard(); state || policies {
		if state && policies && quota.Lists(resp.Header) {
			p.tighten(resp, now, tight)
		}
		return
	}
	if len(p.taken) == 0 && len(standing) == 0 {
		return
	}
	state := p.scratch.state[:0]
	for i := range p.taken {
		state = appendItem(separated(state), &p.taken[i], now, tight)
	}
	state = appendStates(state, now, standing)
	words := p.words()
	last := words.Load()
	policies := p.stage.policies
	switch {
	case len(standing) == 0:
	case last != nil && last.policies.hold(policies.text[0], standing):
		policies = last.policies
	default:
		policies = policiesOf(policies.text[0], standing)
	}
	if last == nil || last.policies != policies && last.policies.text != policies.text || last.state[0] != string(state) {
		last = &told{[1]string{string(state)}, policies}
		words.Store(last)
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	if last.state[0] != "" {
		resp.Header["Ratelimit"] = last.state[:]
	}
	if policies.text[0] != "" {
		resp.Header["Ratelimit-Policy"] = policies.text[:]
	}
}

// told is what a client was told last, as values of fields, which nobody writes to. While it holds, the next is told in the same words.
type told struct {
	state    [1]string
	policies *policies
}

// policies is a RateLimit-Policy, and what it was made of: that seldom changes, and costs more to write than to compare.
type policies struct {
	text [1]string
	own  string // the part that is not about quotas
	of   []quotaPolicy
}

// quotaPolicy is what a policy says of a quota.
type quotaPolicy struct {
	name, unit string
	limit      int64
	window     time.Duration
}

func (p *quotaPolicy) differs(q *quota.Learnt) bool {
	return p.limit != q.Limit || p.window != q.Window || p.name != q.Name || p.unit != q.Unit
}

// policiesOf writes the policies of the limits that own is about, and of quotas.
func policiesOf(own string, standing []quota.Learnt) *policies {
	text, of := []byte(own), make([]quotaPolicy, len(standing))
	for i := range standing {
		q := &standing[i]
		if of[i] = (quotaPolicy{q.Name, q.Unit, q.Limit, q.Window}); q.Limit >= 0 {
			text = appendPolicy(appendName(separated(text), q.Name), q.Limit, q.Window, q.Unit)
		}
	}
	return &policies{[1]string{string(text)}, own, of}
}

// hold tells whether policies are still those of all these.
func (p *policies) hold(own string, standing []quota.Learnt) bool {
	if len(p.of) != len(standing) || p.own != own {
		return false
	}
	for i := range standing {
		if p.of[i].differs(&standing[i]) {
			return false
		}
	}
	return true
}

// words are those of whatever is most the request's own: its gate, where that was asked, or else a limit that it passed.
func (p *passage) words() *atomic.Pointer[told] {
	if p.gate != nil {
		return &p.gate.told
	}
	return &p.taken[0].limiter.told
}

// tighten adds the items of those limits that leave less than the upstream does.
func (p *passage) tighten(resp *http.Response, now time.Time, tight *quota.Learnt) {
	for i := range p.taken {
		t := &p.taken[i]
		if left := t.limiter.StatusAt(now).Tokens; !t.limit.price.ordinary() || tight != nil && math.Floor(left) >= float64(tight.Remaining) {
			continue
		}
		for name, item := range map[string]string{"Ratelimit": string(appendItem(nil, t, now, nil)), "Ratelimit-Policy": t.limit.policy} {
			lines := slices.Clone(resp.Header[name])
			lines[len(lines)-1] += ", " + item
			resp.Header[name] = lines
		}
	}
}

// tightest is the quota of requests that leaves least, nil where none is known.
func tightest(standing []quota.Learnt) (t *quota.Learnt) {
	for i := range standing {
		if q := &standing[i]; q.Unit == quota.Requests && (t == nil || q.Remaining < t.Remaining || q.Remaining == t.Remaining && q.Reset.After(t.Reset)) {
			t = q
		}
	}
	return t
}

func separated(list []byte) []byte {
	if len(list) > 0 {
		return append(list, ", "...)
	}
	return list
}

// appendItem writes what is left, and the seconds until there is more: the next token where none is left, else all of them.
func appendItem(dst []byte, t *taken, now time.Time, tight *quota.Learnt) []byte {
	s := t.limiter.StatusAt(now)
	left := max(0, math.Floor(s.Tokens))
	missing := float64(s.Rate.Burst) - s.Tokens
	if left == 0 {
		missing = 1 - s.Tokens
	}
	wait := 0.0
	if missing > 0 {
		// A millisecond less, because 0.6 of a token need not be 0.6 in floating point.
		wait = math.Ceil(missing*s.Rate.Per.Seconds()/float64(s.Rate.Requests) - 1e-3)
	}
	if tight != nil && float64(tight.Remaining) < left && t.limit.price.ordinary() {
		left = float64(tight.Remaining)
		wait = max(wait, float64(untilReset(tight, now)))
	}
	dst = append(dst, t.limit.name...)
	dst = strconv.AppendInt(append(dst, ";r="...), int64(left), 10)
	return strconv.AppendInt(append(dst, ";t="...), int64(wait), 10)
}

// untilReset is the whole seconds until there is more, rounded up.
func untilReset(q *quota.Learnt, now time.Time) int64 {
	if q.Reset.IsZero() {
		return 0
	}
	return int64((max(0, q.Reset.Sub(now)) + time.Second - 1) / time.Second)
}

// appendStates writes the items of announced quotas. One that counts anything but requests is only understood beside its policy, which needs a limit.
func appendStates(dst []byte, now time.Time, standing []quota.Learnt) []byte {
	for i := range standing {
		q := &standing[i]
		if q.Limit < 0 && q.Unit != quota.Requests {
			continue
		}
		dst = append(appendName(separated(dst), q.Name), ";r="...)
		dst = strconv.AppendInt(dst, q.Remaining, 10)
		if !q.Reset.IsZero() {
			dst = strconv.AppendInt(append(dst, ";t="...), untilReset(q, now), 10)
		}
	}
	return dst
}
