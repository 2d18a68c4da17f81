package wire

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"httpowerd/internal/exchange"
)

// served is one request and all that its exchange needs, in one allocation. Somebody may hold on to it when the handler has returned, so it is not used again.
type served struct {
	req    http.Request
	root   exchange.Root // its context
	url    url.URL
	w      responseWriter
	body   requestBody
	values [14]string // more would take the next size of memory
}

// request makes the request of a head that scan has judged and whose length is size. All its strings are cut from one copy.
func (c *serverConn) request(h *headScan, size int) *served {
	if h.blank {
		c.r += len(crlf)
		size -= len(crlf)
	}
	text := string(c.in.b[c.r : c.r+size])
	c.r += size
	e := &served{}
	r := &e.req
	line, rest := nextLine(text)
	method, line, _ := strings.Cut(line, " ")
	target, _, _ := strings.Cut(line, " ")
	r.Method, r.RequestURI, r.RemoteAddr = knownMethod(method), target, c.remote
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	if h.old {
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
	}
	e.parseTarget(h.connect)
	n := h.lines - 1
	var seen sieve
	header := make(http.Header, n) // Host is not among them, Via will be
	values := e.values[:0]
	if n > len(e.values) {
		values = make([]string, 0, n)
	}
	for {
		line, rest = nextLine(rest)
		if line == "" {
			break
		}
		colon := strings.IndexByte(line, ':')
		name, _ := canonical(line[:colon])
		value := trim(line[colon+1:])
		switch name {
		case "Host":
			r.Host = value
			continue
		case "Transfer-Encoding":
			continue
		case "Expect":
			if h.old { // which does not know it (RFC 9110 section 10.1.1)
				continue
			}
		case "Connection":
			r.Close = r.Close || HasMember(value, "close")
		}
		if seen.before(name) {
			if had, ok := header[name]; ok {
				if name != "Content-Length" { // the two are equal
					header[name] = append(had, value)
				}
				continue
			}
		}
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	r.Header = header
	if r.URL.Host != "" { // RFC 9112 section 3.2.2
		r.Host = r.URL.Host
	}
	r.Close = r.Close || h.old
	e.w.c, e.w.e, e.w.old, e.w.head = c, e, h.old, r.Method == http.MethodHead
	e.w.last = r.Close
	e.w.mayLeave = h.mayLeave()
	e.body.c, e.body.e = c, e
	switch {
	case h.chunked:
		r.ContentLength, r.TransferEncoding = -1, chunkedCoding
		e.body.chunked = true
		e.announced()
	case h.length > 0:
		r.ContentLength, e.body.left = h.length, h.length
	default:
		r.Body = http.NoBody
		e.body.over = true
		return e
	}
	e.body.expect = !h.old && EqualFold(header.Get("Expect"), "100-continue")
	r.Body = &e.body
	if !e.body.Ready() { // else nobody waits for it
		c.unknown = true // whoever reads the body may set a deadline for it
		c.anyTime()
		c.unknown = true
	}
	return e
}

// refused is the request that stands for a head which must not be served.
func (c *serverConn) refused() *served {
	e := &served{}
	r := &e.req
	r.URL, r.Header, r.Body, r.RemoteAddr = &e.url, http.Header{}, http.NoBody, c.remote
	r.Proto, r.ProtoMajor, r.ProtoMinor, r.Close = "HTTP/1.1", 1, 1, true
	e.w.c, e.w.e, e.w.last, e.w.refusing = c, e, true, true
	e.body.over = true
	return e
}

// parseTarget makes the URL. headScan has asked url.ParseRequestURI about whatever is not plain, so that cannot fail.
func (e *served) parseTarget(connect bool) {
	r := &e.req
	r.URL = &e.url
	text := r.RequestURI
	if !connect && e.plainURL(text) {
		return
	}
	authority := connect && text[0] != '/'
	if authority {
		text = "http://" + text
	}
	if u, err := url.ParseRequestURI(text); err == nil {
		e.url = *u
	}
	if authority {
		e.url.Scheme = ""
	}
}

// plainURL takes the targets apart that nearly all requests have: nothing in them is encoded.
func (e *served) plainURL(text string) bool {
	u := &e.url
	rest := text
	if rest[0] != '/' {
		scheme, after, ok := strings.Cut(text, "://")
		if !ok || scheme != "http" && scheme != "https" {
			return false
		}
		end := strings.IndexByte(after, '/')
		if end <= 0 {
			return false
		}
		for i := range end {
			if c := after[i]; !isAlphanumeric(c) && c != '.' && c != '-' && c != ':' {
				return false
			}
		}
		if strings.Count(after[:end], ":") > 1 || after[end-1] == ':' {
			return false
		}
		u.Scheme, u.Host, rest = scheme, after[:end], after[end:]
	}
	path, query, asked := strings.Cut(rest, "?")
	if !plainPath(path) {
		*u = url.URL{}
		return false
	}
	u.Path, u.RawQuery, u.ForceQuery = path, query, asked && query == ""
	return true
}

// announced moves the names of Trailer to the request's Trailer. What may be none is dropped (RFC 9110 section 6.5.1).
func (e *served) announced() {
	r := &e.req
	lines, ok := r.Header["Trailer"]
	if !ok {
		return
	}
	delete(r.Header, "Trailer")
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name, ok := canonical(trim(name))
			if !ok || name == "" || !MayTrail(name) {
				continue
			}
			if len(r.Trailer) == MaxTrailers {
				return
			}
			if r.Trailer == nil {
				r.Trailer = http.Header{}
			}
			r.Trailer[name] = nil
		}
	}
}

// MayTrail tells whether a field may come behind a body: none that frames or routes a message, says who sends it, or how the body is to be read. What names a
// proxy's part in the answer, and what sums the body up, is meant to come there (RFC 9209 section 2, RFC 9530 section 2). The name is canonical; one that
// software takes for such a field's (_ and . for -) counts as that.
func MayTrail(name string) bool {
	if strings.ContainsAny(name, "_.") {
		name = http.CanonicalHeaderKey(dashes.Replace(name))
	}
	if name == "Content-Digest" || name == "Proxy-Status" {
		return true
	}
	return !neverTrails[name] && !strings.HasPrefix(name, "Proxy-") && !strings.HasPrefix(name, "X-Forwarded-") &&
		!strings.HasPrefix(name, "If-") && !strings.HasPrefix(name, "Content-") && !strings.HasPrefix(name, "Httpowerd-")
}

var dashes = strings.NewReplacer("_", "-", ".", "-")

var neverTrails = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{"Transfer-Encoding", "Host", "Trailer", "Connection", "Keep-Alive", "Te", "Upgrade", "Authorization", "Cookie", "Set-Cookie",
		"Cache-Control", "Expect", "Max-Forwards", "Pragma", "Range", "Forwarded", "Via", "Location", "Date", "Vary", "Age", "Expires", "Retry-After",
		"Www-Authenticate", "Idempotency-Key", "X-Api-Key", "X-Real-Ip", "Proxy", "Http2-Settings"} {
		m[name] = true
	}
	return m
}()

// knownMethod spares keeping a whole head alive for its first word.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodPost:
		return http.MethodPost
	}
	return m
}

// parseTrailer cuts a trailer line apart.
func parseTrailer(line []byte) (name, value string, ok bool) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return "", "", false
	}
	name, ok = canonical(string(line[:colon]))
	value = string(trim(line[colon+1:]))
	return name, value, ok && validValue(value)
}
