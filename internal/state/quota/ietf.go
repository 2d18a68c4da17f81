package quota

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// member is one item of a structured list (RFC 9651) with its parameters, read leniently: names come with and without quotes.
type member struct {
	name   string
	params []param
}

type param struct{ key, value string }

func (m member) param(key string) string {
	for _, p := range m.params {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// maxMembers bounds what is read of one answer.
const maxMembers = 16

// members splits a list at its commas and its items at their semicolons, neither of them within quotes.
func members(s string) []member {
	if len(s) > 4096 {
		return nil
	}
	var out []member
	for _, item := range split(s, ',') {
		parts := split(item, ';')
		m := member{name: unquote(parts[0])}
		for _, p := range parts[1:] {
			key, value, _ := strings.Cut(p, "=")
			m.params = append(m.params, param{strings.Trim(key, " \t"), unquote(value)})
		}
		if out = append(out, m); len(out) == maxMembers {
			break
		}
	}
	return out
}

func split(s string, at byte) []string {
	var out []string
	quoted, begin := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == at && !quoted:
			out = append(out, s[begin:i])
			begin = i + 1
		}
	}
	return append(out, s[begin:])
}

func unquote(s string) string {
	s = strings.Trim(s, " \t")
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(s[1 : len(s)-1])
	}
	return s
}

// ietf reads RateLimit and RateLimit-Policy: the dictionary of draft 07, the token items of the editors' copy between, and the lists of draft 08 on.
func (r *reader) ietf(a *Announcement, out []Quota) []Quota {
	state := members(strings.Join(r.h["Ratelimit"], ","))
	if q, ok := r.dictionary(state); ok {
		q.Window = r.windowFor(q.Limit)
		return add(out, &q)
	}
	policies := members(strings.Join(r.h["Ratelimit-Policy"], ","))
	for _, s := range state {
		remaining := count(s.param("r"))
		if remaining < 0 {
			continue // malformed: to be ignored
		}
		q := Quota{Name: label(s.name), Unit: Requests, Limit: -1, Remaining: remaining}
		if i := slices.IndexFunc(policies, func(p member) bool { return p.name == s.name }); i >= 0 {
			q.policy(policies[i])
		}
		if d, ok := r.clock.wait(s.param("t")); ok {
			q.Reset, q.Resets = d, true
		}
		out = add(out, &q)
		a.Group += "," + q.Name + partition(s.param("pk"))
	}
	a.Group = strings.TrimPrefix(a.Group, ",")
	return out
}

// Lists tells whether the answer has a RateLimit field in the form of a list with parameters, to which items can be added.
func Lists(h http.Header) bool {
	items := members(strings.Join(h["Ratelimit"], ","))
	return len(items) > 0 && !slices.ContainsFunc(items, func(m member) bool { return count(m.param("r")) < 0 })
}

// dictionary reads limit=100, remaining=50, reset=30.
func (r *reader) dictionary(items []member) (q Quota, ok bool) {
	q = Quota{Unit: Requests, Limit: -1, Remaining: -1}
	for _, m := range items {
		key, value, _ := strings.Cut(m.name, "=")
		switch strings.Trim(key, " ") {
		case "limit":
			q.Limit = count(value)
		case "remaining":
			q.Remaining, ok = count(value), true
		case "reset":
			q.Reset, q.Resets = r.clock.wait(value)
		}
	}
	return q, ok
}

// partition tells those who share a policy's name but not its quota apart: a byte sequence (RFC 9651 section 3.3.5).
func partition(pk string) string {
	if len(pk) < 2 || pk[0] != ':' || pk[len(pk)-1] != ':' {
		return ""
	}
	key, err := base64.StdEncoding.DecodeString(pk[1 : len(pk)-1])
	if err != nil || len(key) == 0 || len(key) > 256 {
		return ""
	}
	return ";pk=" + string(key)
}

// policy fills in what the policy of the same name says.
func (q *Quota) policy(p member) {
	q.Limit = count(p.param("q"))
	if q.Limit < 0 {
		q.Limit = count(p.param("l"))
	}
	if w, ok := decimal(p.param("w")); ok {
		q.Window = windowOf(w)
	}
	switch p.param("qu") {
	case "", Requests:
	case "content-bytes":
		q.Unit = Bytes
	case "concurrent-requests":
		q.Unit = Concurrency
	default:
		q.Unit = Cost // of a kind that is not known here
	}
}
