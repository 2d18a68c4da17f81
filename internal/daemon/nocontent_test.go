package daemon

import (
	"net/http"
	"testing"
)

// TestNoContentHasNoLength: a 204 that claims a length reaches nobody with it, nor does the answer to its HEAD (RFC 9110 section 8.6), and HTTP/2
// clients take it.
func TestNoContentHasNoLength(t *testing.T) {
	const wrong = "HTTP/1.1 204 No Content\r\nContent-Length: 62\r\n\r\n"
	for _, w := range ways(t, "", wrong, okAnswer, wrong, okAnswer, wrong, okAnswer) {
		c := w.open()
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			c.send(w.text(method + " {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			if a := c.answer(method); a.StatusCode != 204 || a.Header["Content-Length"] != nil || a.body != "" {
				t.Errorf("%s, %s: %s %v %q", w.name, method, a.Status, a.Header, a.body)
			}
			w.record().want(t, map[string]any{"outcome": "ok", "status": 204})
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			if a := c.answer(http.MethodGet); a.body != "ok" {
				t.Errorf("%s: behind the %s came %q", w.name, method, a.body)
			}
			w.record()
		}
		if w.mode != "intercept" {
			continue
		}
		two := w.box.client()
		two.Transport.(*http.Transport).Protocols.SetHTTP2(true)
		for _, want := range []int{204, 200} {
			if a := get(t, two, "https://"+w.origin.addr+"/"); a.StatusCode != want || a.ProtoMajor != 2 || want == 204 && a.Header["Content-Length"] != nil {
				t.Errorf("over HTTP/2: %s %s %v", a.Proto, a.Status, a.Header)
			}
		}
	}
}
