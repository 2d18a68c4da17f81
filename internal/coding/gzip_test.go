package coding

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

// TestGzip: the standard library reads what is compressed here.
func TestGzip(t *testing.T) {
	text := strings.Repeat(`{"outcome":"ok","status":200}`+"\n", 10_000)
	var packed bytes.Buffer
	z := Gzip(&packed)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > len(text)/10 {
		t.Errorf("%d bytes became %d", len(text), packed.Len())
	}
	r, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(text))
	}
}
