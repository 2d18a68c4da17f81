package dedup

import (
	"hash/maphash"
	"math/bits"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/swar"
)

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
	whyUnread      = "unread" // observe mode: its body was not read to the end
	whyStore       = "store"  // observe mode: the memory of keyed writes failed
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

// want is what is asked, of whom, for whom: requests whose wants are equal may share an answer. It refers to the first one's URL and fields, which
// nobody below changes (http.RoundTripper forbids it).
type want struct {
	hash   uint64 // of all of it; equal wants have equal ones
	policy string
	tenant string
	method string
	target exchange.Authority
	host   string
	url    *url.URL
	header http.Header
	fields int // of header, without those that do not count
}

// wantOf is a request's, or says why this one shares no answer. Fields come in no order, so the hash is a sum of theirs.
func (s *stage) wantOf(r *http.Request, x *exchange.Exchange) (w want, why string) {
	if hasBody(r) {
		return w, whyBody
	}
	w = want{policy: s.policy, tenant: x.Tenant, method: method(r), target: x.Target, host: r.Host, url: r.URL, header: r.Header}
	seed := s.room.seed
	for name, values := range r.Header {
		if name == skipField {
			return w, whyAsked
		}
		if why := reasonOf(name, values); why != "" {
			return w, why
		}
		if volatile(name) {
			continue
		}
		h := short(name)
		for _, v := range values {
			h = mix(h, maphash.String(seed, v))
		}
		w.hash += h
		w.fields++
	}
	u := r.URL
	w.hash = mix(mix(w.hash, short(w.method)), short(w.policy)+short(u.Scheme)) + uint64(w.target.Port)
	if u.ForceQuery {
		w.hash++
	}
	if w.host == u.Host {
		w.hash++ // of both, one is enough
	} else {
		w.hash = mix(w.hash, maphash.String(seed, w.host))
	}
	for _, part := range [...]string{w.tenant, w.target.Host, u.Host, u.Opaque, u.Path, u.RawPath, u.RawQuery} {
		if part != "" {
			w.hash = mix(w.hash, maphash.String(seed, part))
		} else {
			w.hash = mix(w.hash, 0)
		}
	}
	return w, ""
}

// short is a hash of a name: of its length, and of its first and its last bytes. Names are few, and what follows them is hashed in full.
func short(name string) uint64 {
	n := len(name)
	h := uint64(n)
	if n >= 8 {
		return mix(mix(h, swar.Word(name)), swar.Word(name[n-8:]))
	}
	for i := range n {
		h = h<<8 | uint64(name[i])
	}
	return mix(h, 0)
}

// mix takes a hash into another; the order counts.
func mix(h, next uint64) uint64 {
	high, low := bits.Mul64(h^0x9e3779b97f4a7c15, next^0xd6e8feb86659fd93)
	return high ^ low
}

// equal tells whether two requests may share an answer. A hash alone would let whoever finds two requests with the same one read another's answer.
func (w *want) equal(v *want) bool {
	if w.hash != v.hash || w.policy != v.policy || w.tenant != v.tenant || w.method != v.method || w.target != v.target || w.host != v.host ||
		w.fields != v.fields {
		return false
	}
	a, b := w.url, v.url
	if a.Scheme != b.Scheme || a.Host != b.Host || a.Opaque != b.Opaque || a.Path != b.Path || a.RawPath != b.RawPath || a.RawQuery != b.RawQuery ||
		a.ForceQuery != b.ForceQuery {
		return false
	}
	for name, values := range w.header {
		if other, there := v.header[name]; !volatile(name) && (!there || !slices.Equal(values, other)) {
			return false
		}
	}
	return true
}

// own is a copy that may be kept: the strings of a request are cut from all of its head, which would stay with them.
func (w want) own() want {
	u := w.url
	w.method, w.target.Host, w.host = strings.Clone(w.method), strings.Clone(w.target.Host), strings.Clone(w.host)
	w.url = &url.URL{Scheme: strings.Clone(u.Scheme), Opaque: strings.Clone(u.Opaque), Host: strings.Clone(u.Host), Path: strings.Clone(u.Path),
		RawPath: strings.Clone(u.RawPath), RawQuery: strings.Clone(u.RawQuery), ForceQuery: u.ForceQuery}
	header := make(http.Header, w.fields)
	for name, values := range w.header {
		if volatile(name) {
			continue
		}
		kept := make([]string, len(values))
		for i, v := range values {
			kept[i] = strings.Clone(v)
		}
		header[strings.Clone(name)] = kept
	}
	w.header = header
	return w
}

// size is about what an own copy takes.
func (w *want) size() int {
	u := w.url
	return headerSize(w.header) + len(w.host) + len(w.target.Host) + len(u.Opaque) + len(u.Host) + len(u.Path) + len(u.RawPath) + len(u.RawQuery)
}

// method is the request's; "" is GET, as in net/http.
func method(r *http.Request) string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}
