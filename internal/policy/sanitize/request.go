package sanitize

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"httpowerd/internal/redact"
)

// request looks at a request and hands on what may leave.
func (s *side) request(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	m := s.message(r)
	out, b, err := m.outgoing(r)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // it is refused
		}
		return nil, err
	}
	resp, err := next.RoundTrip(out)
	if h, ok := out.Body.(*held); ok && err != nil {
		h.let() // nobody wants it any more, whether it was closed or not
	}
	if b != nil && err != nil {
		b.let()
		b.unwindow()
	}
	if b != nil {
		if refusal := b.refused(); refusal != nil { // in mid-upload: whatever the upstream makes of a body that broke off is no answer to it
			if err == nil {
				_ = resp.Body.Close()
			}
			return nil, refusal
		}
	}
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		unapplied(m.x)
		return resp, nil
	}
	if err == nil && b != nil && resp.Body != http.NoBody {
		resp.Body = &early{resp.Body, b}
	}
	return resp, err
}

// early is an answer that began before the request's body was looked at to its end: it ends with that where that is refused.
type early struct {
	io.ReadCloser
	upload *screened
}

func (e *early) Read(p []byte) (int, error) {
	if err := e.upload.refused(); err != nil {
		return 0, err
	}
	n, err := e.ReadCloser.Read(p)
	if err != nil {
		if refusal := e.upload.refused(); refusal != nil {
			err = refusal
		}
	}
	return n, err
}

// outgoing is r as it may leave. b is the body that is still looked at, nil where that is done.
func (m *message) outgoing(r *http.Request) (*http.Request, *screened, error) {
	target, err := m.target(r.URL)
	if err != nil {
		return nil, nil, err
	}
	header, err := m.header("headers", r.Header)
	if err != nil {
		return nil, nil, err
	}
	out := r.WithContext(r.Context())
	out.URL, out.Header = target, header
	if r.Body == nil || r.Body == http.NoBody {
		return out, nil, nil
	}
	p, err := m.body(content{header: header, source: r.Body, length: r.ContentLength, trailer: func() http.Header { return r.Trailer }})
	if err != nil {
		return nil, nil, err
	}
	out.Body, out.GetBody = p.body, nil
	if p.changed {
		out.Header = changed(out.Header, false, p.decoded)
		if out.ContentLength = p.length; len(r.Trailer) > 0 {
			out.ContentLength = -1
		}
		if n := out.ContentLength; n >= 0 && r.Header["Content-Length"] != nil {
			out.Header["Content-Length"] = []string{strconv.FormatInt(n, 10)}
		}
	}
	return out, p.open, nil
}

// target looks at path and query, which stay byte for byte where nothing is masked.
func (m *message) target(u *url.URL) (*url.URL, error) {
	var counts redact.Counts
	path := u.Opaque
	if path == "" {
		path = u.EscapedPath()
	}
	host := m.x.Target.Host
	cleanPath := m.screen.Text(path, redact.Plain, host, m.mask, &counts)
	query := "?" + u.RawQuery
	cleanQuery := strings.TrimPrefix(m.screen.Text(query, redact.Plain, host, m.mask, &counts), "?")
	if err := m.foundAll("url", &counts); err != nil {
		return nil, err
	}
	if cleanPath == path && cleanQuery == u.RawQuery {
		return u, nil
	}
	out := *u
	out.RawQuery = cleanQuery
	if cleanPath == path {
		return &out, nil
	}
	if u.Opaque != "" {
		out.Opaque = cleanPath
		return &out, nil
	}
	plain, err := url.PathUnescape(cleanPath)
	if err != nil {
		return nil, m.refuse("url", string(redact.PAN)) // what cannot be masked does not leave
	}
	out.Path, out.RawPath = plain, cleanPath
	return &out, nil
}
