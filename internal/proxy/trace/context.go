package trace

import (
	"net/http"
	"strings"

	"httpowerd/internal/exchange"
)

// The fields of W3C Trace Context, as net/http spells them.
const (
	traceparent = "Traceparent"
	tracestate  = "Tracestate"
)

// What the flags of version 00 mean. The rest is not passed on.
const (
	flagSampled = 1
	flagRandom  = 2
)

// parent is what a valid traceparent says.
type parent struct {
	text    string // the trace's id as it was written
	trace   [16]byte
	span    [8]byte
	sampled bool
	flags   byte // to be passed on
}

// parentOf reads a request's traceparent. More than one, or one that breaks the rules, is none.
func parentOf(h http.Header) (p parent, ok bool) {
	lines := h[traceparent]
	if len(lines) != 1 {
		return p, false
	}
	return parse(lines[0])
}

// parse reads version-traceid-spanid-flags. Of a later version, what version 00 has is read, and more may follow behind a dash.
func parse(s string) (p parent, ok bool) {
	s = strings.Trim(s, " \t")
	const version, trace, span, flags, end = 0, 3, 36, 53, 55
	if len(s) < end || s[trace-1] != '-' || s[span-1] != '-' || s[flags-1] != '-' {
		return p, false
	}
	var v, f [1]byte
	if !digits(v[:], s[version:trace-1]) || !digits(p.trace[:], s[trace:span-1]) || !digits(p.span[:], s[span:flags-1]) || !digits(f[:], s[flags:end]) {
		return parent{}, false
	}
	later := len(s) > end
	if v[0] == 0xff || later && (v[0] == 0 || s[end] != '-') || p.trace == [16]byte{} || p.span == [8]byte{} {
		return parent{}, false
	}
	p.text, p.sampled, p.flags = s[trace:span-1], f[0]&flagSampled != 0, f[0]&flagSampled
	if v[0] == 0 {
		p.flags |= f[0] & flagRandom
	}
	return p, true
}

// digits reads hexadecimal digits, small ones alone.
func digits(dst []byte, s string) bool {
	var wrong byte
	for i := range dst {
		high, low := nibbles[s[2*i]], nibbles[s[2*i+1]]
		wrong |= high | low
		dst[i] = high<<4 | low
	}
	return wrong < 16
}

// nibbles are what digits mean; 16: it is none.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 16
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

// Identify gives x the id of its client's trace, for the record, where tracing is off. Nothing of the request is changed.
func Identify(x *exchange.Exchange, h http.Header) {
	if p, ok := parentOf(h); ok {
		x.TraceID = p.text
	}
}

// The bounds of tracestate.
const (
	maxMembers   = 32
	maxKey       = 256
	maxTenant    = 241 // before an @
	maxSystem    = 14  // behind it
	maxValue     = 256
	maxStateText = 8 << 10 // of all lines together; the standard asks for 512 bytes at least
)

// carryState passes a tracestate on that keeps the rules, its lines joined in their order, and takes any other one away.
func carryState(h http.Header) {
	lines := h[tracestate]
	if len(lines) == 0 {
		return
	}
	length, members := 0, 0
	for _, line := range lines {
		length += len(line) + 1
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			if member = strings.Trim(member, " \t"); member == "" {
				continue
			}
			if members++; members > maxMembers || !validMember(member) {
				delete(h, tracestate)
				return
			}
		}
	}
	switch {
	case members == 0 || length > maxStateText:
		delete(h, tracestate)
	case len(lines) > 1:
		h[tracestate] = []string{joined(lines)}
	}
}

// joined are the lines as one, without the empty ones.
func joined(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		if line = strings.Trim(line, " \t"); line == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(line)
	}
	return b.String()
}

func validMember(m string) bool {
	key, value, found := strings.Cut(m, "=")
	return found && validKey(key) && validValue(value)
}

// validKey takes simple keys, and those of a tenant and a system.
func validKey(k string) bool {
	tenant, system, several := strings.Cut(k, "@")
	if !several {
		return len(k) <= maxKey && keyText(k, false)
	}
	return len(tenant) <= maxTenant && keyText(tenant, true) && len(system) <= maxSystem && keyText(system, false)
}

func keyText(k string, digitFirst bool) bool {
	for i := range len(k) {
		c := k[i]
		switch {
		case c >= 'a' && c <= 'z':
		case c >= '0' && c <= '9' && (i > 0 || digitFirst):
		case i > 0 && (c == '_' || c == '-' || c == '*' || c == '/'):
		default:
			return false
		}
	}
	return k != ""
}

func validValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return v != "" && len(v) <= maxValue && v[len(v)-1] != ' '
}
