package sanitize

import (
	"net/http"
	"strconv"
	"strings"

	"httpowerd/internal/exchange"
)

// response sends the request on and looks at the answer.
func (s *side) response(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	if s.acts() {
		r = askable(r)
	}
	m := s.message(r)
	s.informational(m.x)
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		unapplied(m.x)
		return resp, nil
	}
	if err := m.incoming(r.Method, resp); err != nil {
		_ = resp.Body.Close() // it is refused
		return nil, err
	}
	return resp, nil
}

// informational looks at 1xx answers too. What is to be blocked of them goes no further; the final answer is judged by itself.
func (s *side) informational(x *exchange.Exchange) {
	if pass := x.Informational; pass != nil {
		x.Informational = &informer{side: s, x: x, pass: pass}
	}
}

// informer is the client's, behind a look at what goes there.
type informer struct {
	side *side
	x    *exchange.Exchange
	pass exchange.Informer
}

func (i *informer) Inform(status int, h http.Header) {
	m := message{side: i.side, x: i.x}
	if clean, err := m.header("headers", h); err == nil {
		i.pass.Inform(status, clean)
	}
}

// incoming changes resp to what may come in.
func (m *message) incoming(method string, resp *http.Response) error {
	header, err := m.header("headers", resp.Header)
	if err != nil {
		return err
	}
	resp.Header = header
	if method == http.MethodHead || resp.Body == http.NoBody || resp.ContentLength == 0 || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return nil
	}
	p, err := m.body(content{header: header, source: resp.Body, length: resp.ContentLength, trailer: func() http.Header { return resp.Trailer }})
	if err != nil {
		return err
	}
	resp.Body = p.body
	if p.changed {
		resp.Header = changed(resp.Header, true, p.decoded)
		if resp.ContentLength = p.length; len(resp.Trailer) > 0 {
			resp.ContentLength = -1
		}
		if n := resp.ContentLength; n >= 0 {
			resp.Header["Content-Length"] = []string{strconv.FormatInt(n, 10)}
		}
	}
	return nil
}

// askable is r without what would bring an answer that cannot be looked at: a part of one, in which half a number is none, and codings that are not read here.
func askable(r *http.Request) *http.Request {
	_, ranged := r.Header["Range"]
	accept, narrowed := readable(r.Header["Accept-Encoding"])
	if !ranged && !narrowed {
		return r
	}
	out := r.WithContext(r.Context())
	out.Header = r.Header.Clone()
	delete(out.Header, "Range")
	delete(out.Header, "If-Range")
	if narrowed {
		out.Header["Accept-Encoding"] = []string{accept}
	}
	return out
}

// readable is what is left of an Accept-Encoding.
func readable(values []string) (accept string, narrowed bool) {
	var kept []string
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			item = strings.TrimSpace(item)
			name, _, _ := strings.Cut(item, ";")
			switch name = strings.ToLower(strings.TrimSpace(name)); {
			case name == "":
			case name == "identity" || decodes(name):
				kept = append(kept, item)
			default:
				narrowed = true
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	return strings.Join(kept, ", "), narrowed
}
