package ratelimit

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/state/memory"
)

// quote is a structured-field string (RFC 9651 section 3.3.3), which holds printable ASCII only.
func quote(s string) string {
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable) + `"`
}

// policyItem is the level's item of RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers). A window is a whole number of seconds, or is left out.
func policyItem(name string, c Config) string {
	item := name + ";q=" + strconv.Itoa(c.Requests)
	if per := c.Per.D(); per%time.Second == 0 {
		item += ";w=" + strconv.FormatInt(int64(per/time.Second), 10)
	}
	return item
}

// announce adds RateLimit and RateLimit-Policy for the configured limits.
func (p *passage) announce(resp *http.Response) {
	var space [128]byte
	state := space[:0]
	for i, t := range p.taken {
		if i > 0 {
			state = append(state, ", "...)
		}
		state = appendItem(state, t.limit, t.limiter.Status())
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	values := []string{string(state), p.policies}
	resp.Header["Ratelimit"], resp.Header["Ratelimit-Policy"] = values[:1:1], values[1:2:2]
}

// appendItem writes what is left, and the seconds until there is more: the next token where none is left, else all of them.
func appendItem(dst []byte, l *limit, s memory.Status) []byte {
	left := max(0, math.Floor(s.Tokens))
	missing := float64(s.Rate.Burst) - s.Tokens
	if left == 0 {
		missing = 1 - s.Tokens
	}
	wait := math.Ceil(max(0, missing) * s.Rate.Per.Seconds() / float64(s.Rate.Requests))
	dst = append(dst, l.name...)
	dst = strconv.AppendInt(append(dst, ";r="...), int64(left), 10)
	return strconv.AppendInt(append(dst, ";t="...), int64(wait), 10)
}
