package retry

import (
	"bytes"
	"io"
	"net/http"
	"testing"
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
		text, unread, broken := glimpse(t.Context(), "GET", resp)
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
