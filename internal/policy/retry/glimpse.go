package retry

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// Bounds of what an expression may see of a body, decoded or not. What is larger, or comes more slowly, goes to the client as without it.
const (
	glimpseBytes = 64 << 10
	glimpseTime  = 5 * time.Second
)

// glimpse reads the whole body of an answer. own is to be used in the answer's place: it has the body as if nothing had been read. unread is a body that is
// none of the expression's business, because it is a stream, too large, too slow or in a coding that is not known here; broken is how it broke off.
func glimpse(ctx context.Context, method string, resp *http.Response) (own *http.Response, text []byte, unread bool, broken error) {
	if method == http.MethodHead || resp.Body == nil || resp.Body == http.NoBody || resp.ContentLength == 0 {
		return resp, nil, false, nil
	}
	coding := strings.ToLower(strings.Join(resp.Header["Content-Encoding"], ","))
	if resp.ContentLength > glimpseBytes || exchange.Streams(resp.Header) || !decodable(coding) {
		return resp, nil, true, nil
	}
	own = apart(resp)
	v := &viewed{body: resp.Body, own: own, from: resp, done: make(chan struct{})}
	own.Body = v
	go v.fill(int(resp.ContentLength))
	late := time.NewTimer(glimpseTime)
	defer late.Stop()
	select {
	case <-v.done:
	case <-late.C:
	case <-ctx.Done():
	}
	read, end := v.hand()
	switch {
	case end == nil:
		return own, nil, true, nil
	case end != io.EOF:
		return own, nil, false, end
	}
	text, err := decoded(coding, read)
	return own, text, err != nil, nil
}

// viewed is a body of which the beginning has been read. Until somebody wants the rest, a goroutine reads on.
type viewed struct {
	body io.ReadCloser
	own  *http.Response // has this body
	from *http.Response // has what was read
	done chan struct{}  // closed when the goroutine has ended

	mu     sync.Mutex
	read   []byte
	off    int
	end    error // how the body ended; nil: there may be more
	handed bool  // the goroutine is to end
}

func (v *viewed) fill(length int) {
	defer close(v.done)
	size := 8 << 10
	if length > 0 {
		size = min(size, length+1)
	}
	buf := make([]byte, size)
	for {
		n, err := v.body.Read(buf)
		v.mu.Lock()
		v.read = append(v.read, buf[:n]...)
		v.end = err
		over := err != nil || v.handed || len(v.read) > glimpseBytes
		v.mu.Unlock()
		if over {
			return
		}
	}
}

// hand ends the reading, and is what there is so far; end is nil where that is not all.
func (v *viewed) hand() ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handed = true
	if len(v.read) > glimpseBytes {
		return nil, nil
	}
	return v.read, v.end
}

// Read gives what was read, then the rest.
func (v *viewed) Read(p []byte) (int, error) {
	if n, ok := v.known(p); ok {
		return n, nil
	}
	<-v.done
	if n, ok := v.known(p); ok {
		return n, nil
	}
	n, err := 0, v.end
	if err == nil {
		n, err = v.body.Read(p)
	}
	if err == io.EOF {
		trail(v.own, v.from)
	}
	return n, err
}

func (v *viewed) known(p []byte) (int, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.off == len(v.read) {
		if v.handed && v.off > 0 {
			v.read, v.off = nil, 0
		}
		return 0, len(p) == 0
	}
	n := copy(p, v.read[v.off:])
	v.off += n
	return n, true
}

// Close closes the body.
func (v *viewed) Close() error { return v.body.Close() }

// decodable tells whether a Content-Encoding is known here.
func decodable(coding string) bool {
	switch strings.Trim(coding, " \t") {
	case "", "identity", "gzip", "x-gzip", "deflate":
		return true
	}
	return false
}

// decoded is the body without its coding. A body that grows beyond the bound is an error, before it has grown.
func decoded(coding string, b []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch strings.Trim(coding, " \t") {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(b))
	case "deflate":
		if r, err = zlib.NewReader(bytes.NewReader(b)); err != nil { // some send it without its frame
			r, err = flate.NewReader(bytes.NewReader(b)), nil
		}
	default:
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, glimpseBytes+1))
	if err == nil && len(out) > glimpseBytes {
		err = io.ErrShortBuffer
	}
	return out, err
}

// readable asks the upstream for no coding that could not be read here: the expression would be without effect for whoever accepts another one.
func (c *course) readable() {
	values := c.request.Header["Accept-Encoding"]
	if len(values) == 0 {
		return // which upstreams take for none
	}
	var kept []string
	all := true
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(item, ";")
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" && decodable(name) {
				kept = append(kept, strings.TrimSpace(item))
			} else {
				all = false
			}
		}
	}
	if all {
		return
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	c.edit()["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}
