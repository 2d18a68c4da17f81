package retry

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzGlimpse: whatever an upstream sends, under whatever name, an expression sees no more of it than the bound, and the client gets all of it.
func FuzzGlimpse(f *testing.F) {
	for _, coding := range []string{"", "gzip", "deflate", "br", "gzip, gzip", " Identity "} {
		for _, body := range []string{"", "text", `{"ok": true}`, packed(f, "gzip", "text"), packed(f, "deflate", "text"), packed(f, "raw", "text")} {
			f.Add(coding, "application/json", []byte(body), uint8(1), int64(len(body)))
			f.Add(coding, "text/event-stream", []byte(body), uint8(200), int64(-1))
		}
	}
	f.Fuzz(func(t *testing.T, coding, media string, body []byte, times uint8, length int64) {
		body = bytes.Repeat(body, int(times))
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Encoding": {coding}, "Content-Type": {media}}, ContentLength: max(-1, length),
			Body: io.NopCloser(bytes.NewReader(body))}
		resp, text, unread, broken := glimpse(t.Context(), "GET", resp)
		if len(text) > glimpseBytes && !unread || broken != nil {
			t.Fatalf("%d bytes, %v, %v", len(text), unread, broken)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("the client gets %d bytes of %d, %v", len(got), len(body), err)
		}
		_ = resp.Body.Close()
	})
}

// TestGlimpsedTrailers: of a body that comes too slowly the rest is read while the head goes to the client, whose trailers are its own until the body's end.
func TestGlimpsedTrailers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp := &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Trailer: http.Header{"X-Sum": nil}}
		resp.Body = io.NopCloser(slowEnd(func() { resp.Trailer["X-Sum"] = []string{"abc"} }))
		own, _, unread, broken := glimpse(t.Context(), "GET", resp)
		if !unread || broken != nil {
			t.Fatal(unread, broken)
		}
		time.Sleep(2 * glimpseTime)
		synctest.Wait()
		if names, announced := own.Trailer["X-Sum"]; !announced || names != nil || resp.Trailer.Get("X-Sum") != "abc" {
			t.Errorf("%v while %v came", own.Trailer, resp.Trailer)
		}
		if _, err := io.ReadAll(own.Body); err != nil || own.Trailer.Get("X-Sum") != "abc" {
			t.Errorf("%v, %v", own.Trailer, err)
		}
	})
}

// slowEnd is a body that does something as it ends, later than anybody waits.
type slowEnd func()

func (f slowEnd) Read([]byte) (int, error) {
	time.Sleep(2 * glimpseTime)
	f()
	return 0, io.EOF
}
