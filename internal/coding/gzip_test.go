package coding

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

// TestGzip: what is compressed here is read by the standard library, and the other way round.
func TestGzip(t *testing.T) {
	text := strings.Repeat(`{"outcome":"ok","status":200}`+"\n", 10_000)
	var ours, theirs bytes.Buffer
	z := Gzip(&ours)
	w := gzip.NewWriter(&theirs)
	for _, c := range []io.WriteCloser{z, w} {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if ours.Len() > len(text)/10 {
		t.Errorf("%d bytes became %d", len(text), ours.Len())
	}
	standard, err := gzip.NewReader(&ours)
	if err != nil {
		t.Fatal(err)
	}
	own, err := Gunzip(&theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []io.Reader{standard, own} {
		if got, err := io.ReadAll(r); err != nil || string(got) != text {
			t.Errorf("%d bytes, %v; want %d", len(got), err, len(text))
		}
	}
	if _, err := Gunzip(strings.NewReader("not compressed at all")); err == nil {
		t.Error("text was taken for gzip")
	}
}
