package dedup

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"

	"httpowerd/internal/exchange"
)

// digest is a SHA-256 over the room's secret and what is told apart by it.
type digest [sha256.Size]byte

// Why a request is sent as if the block were off, as records name it behind "bypass:".
const (
	whyBody        = "body"        // it has one
	whyRange       = "range"       // it asks for a part
	whyConditional = "conditional" // it carries a condition
	whyUpgrade     = "upgrade"
	whyExpect      = "expect"
	whyFresh       = "no_cache" // it asks for an answer of its own
	whyOverride    = "override" // it may stand for another method
	whyAsked       = "asked"    // by Httpowerd-Dedup
	whyCrowd       = "crowd"    // a bound on entries or followers is reached
	whyUnshared    = "unshared" // its answer may not be shared
	whyTooLarge    = "too_large"
	whyMemory      = "memory" // the budget is used up
	whyStream      = "stream" // the answer does not end
	whyTrailer     = "trailer"
	whyStore       = "store" // observe mode: the memory of keyed writes failed
)

// skipField lets a client ask for an answer of its own. It goes no further.
const skipField = "Httpowerd-Dedup"

// reasonOf says why a request with this field is sent alone; "": the field is no reason.
func reasonOf(name string, values []string) string {
	if strings.HasPrefix(name, "If-") {
		return whyConditional
	}
	switch name {
	case "Range":
		return whyRange
	case "Upgrade", "Http2-Settings":
		return whyUpgrade
	case "Expect":
		return whyExpect
	case "Cache-Control":
		if directive(values, "no-store") || directive(values, "no-cache") {
			return whyFresh
		}
	case "Pragma":
		if directive(values, "no-cache") {
			return whyFresh
		}
	case "X-Http-Method-Override", "X-Http-Method", "X-Method-Override":
		return whyOverride
	}
	return ""
}

// volatile tells whether a field differs between requests that ask for the same. Every other one is part of the key: credentials above all,
// under whatever name they come.
func volatile(name string) bool {
	switch name {
	case "Traceparent", "Tracestate", "Baggage", "X-Request-Id", "X-Correlation-Id", "Date", "Content-Length", "Via":
		return true
	}
	return strings.HasPrefix(name, "X-Stainless-")
}

// directive tells whether a list of directives has this one, with a value or without. Quoted values are not parsed: a name in one only makes it true.
func directive(lines []string, name string) bool {
	for _, line := range lines {
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			member, _, _ = strings.Cut(member, "=")
			if strings.EqualFold(strings.Trim(member, " \t\""), name) {
				return true
			}
		}
	}
	return false
}

// hasBody tells whether a request may have content.
func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody || r.ContentLength != 0 || len(r.TransferEncoding) > 0 || r.Trailer != nil
}

// keySpace is what the parts of most keys fit in.
const keySpace = 2 << 10

var keySpaces = sync.Pool{New: func() any { b := make([]byte, 0, keySpace); return &b }}

// keyOf tells requests apart that may not share an answer, or says why this one shares none.
func (s *stage) keyOf(r *http.Request, x *exchange.Exchange) (k digest, why string) {
	if hasBody(r) {
		return k, whyBody
	}
	var space [48]string
	names := space[:0]
	for name, values := range r.Header {
		if name == skipField {
			return k, whyAsked
		}
		if why := reasonOf(name, values); why != "" {
			return k, why
		}
		if !volatile(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	p := keySpaces.Get().(*[]byte)
	b := append((*p)[:0], s.room.secret[:]...)
	b = s.appendPlace(append(b, 'R'), r, x)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendValues(appendPart(b, name), r.Header[name])
	}
	k = sha256.Sum256(b)
	clear(b) // it held credentials
	if cap(b) <= 32*keySpace {
		*p = b[:0]
	}
	keySpaces.Put(p)
	return k, ""
}

// appendPlace appends what is asked, of whom, for whom. Each part goes with its length, so that no two lists of parts are the same bytes.
func (s *stage) appendPlace(b []byte, r *http.Request, x *exchange.Exchange) []byte {
	b = appendPart(b, s.policy)
	b = appendPart(b, x.Tenant)
	b = appendPart(b, method(r))
	b = appendPart(b, x.Target.Host)
	b = binary.BigEndian.AppendUint16(b, x.Target.Port)
	u := r.URL
	b = appendPart(b, u.Scheme)
	b = appendPart(b, u.Host)
	b = appendPart(b, r.Host)
	b = appendPart(b, u.Opaque)
	b = appendPart(b, u.Path)
	b = appendPart(b, u.RawPath)
	b = appendPart(b, u.RawQuery)
	if u.ForceQuery {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendPart(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendValues(b []byte, values []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = appendPart(b, v)
	}
	return b
}

// method is the request's; "" is GET, as in net/http.
func method(r *http.Request) string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}
