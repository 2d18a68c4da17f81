package coding

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// packed is text in a coding, "raw" for deflate without zlib's wrapping.
func packed(t testing.TB, coding, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw":
		w, _ = flate.NewWriter(&b, 6)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	text := strings.Repeat("the quick brown fox 0123456789 ", 500)
	for _, c := range []struct {
		encoding string
		data     []byte
	}{
		{"", []byte(text)}, {"identity", []byte(text)}, {"gzip", packed(t, "gzip", text)}, {"X-GZIP", packed(t, "gzip", text)}, {"deflate", packed(t, "deflate", text)},
		{"deflate", packed(t, "raw", text)}, {"br", packed(t, "br", text)}, {"zstd", packed(t, "zstd", text)}, {"br, gzip", packed(t, "gzip", string(packed(t, "br", text)))},
	} {
		out, whole, err := Decode(c.encoding, c.data, 1<<20)
		if err != nil || !whole || string(out) != text {
			t.Errorf("%s: %d bytes, %v, %v", c.encoding, len(out), whole, err)
		}
		if out, whole, err = Decode(c.encoding, c.data, 100); err != nil || whole || string(out) != text[:100] {
			t.Errorf("%s up to a limit: %q, %v, %v", c.encoding, out, whole, err)
		}
		for _, cut := range []int{len(c.data) / 2, len(c.data) - 1} {
			out, whole, err = Decode(c.encoding, c.data[:cut], 1<<20)
			if c.encoding != "" && c.encoding != "identity" && whole || !strings.HasPrefix(text, string(out)) {
				t.Errorf("%s cut off at %d: %d bytes, %v, %v", c.encoding, cut, len(out), whole, err)
			}
		}
		if out, whole, err = Decode(c.encoding, nil, 10); err != nil || !whole || len(out) != 0 {
			t.Errorf("%s of nothing: %q, %v, %v", c.encoding, out, whole, err)
		}
		if !Known(c.encoding) {
			t.Errorf("%q is not known", c.encoding)
		}
	}
	for _, encoding := range []string{"compress", "aes128gcm", "gzip, x", "gzip,gzip,gzip,gzip", "gzip;q=1"} {
		if _, _, err := Decode(encoding, []byte("x"), 10); !errors.Is(err, ErrUnknown) || Known(encoding) {
			t.Errorf("%q: %v", encoding, err)
		}
	}
	if _, _, err := Decode("gzip", []byte("no gzip"), 10); err == nil {
		t.Error("what is no gzip is decoded")
	}
	for _, coding := range []string{"gzip", "zstd"} { // whose checksum comes last
		data := packed(t, coding, text)
		for name, data := range map[string][]byte{"no": data[:len(data)-1], "a wrong": append(data[:len(data)-4:len(data)-4], "xxxx"...)} {
			if out, whole, err := Decode(coding, data, 1<<20); err != nil || whole || string(out) != text {
				t.Errorf("%s with %s checksum: %d bytes, %v, %v", coding, name, len(out), whole, err)
			}
		}
	}
	bomb := packed(t, "zstd", strings.Repeat("\x00", 64<<20))
	if out, whole, err := Decode("zstd", bomb, 4<<10); len(out) != 4<<10 || whole || err != nil {
		t.Errorf("a bomb: %d bytes, %v, %v", len(out), whole, err)
	}
}

// FuzzDecode: whatever the bytes are, no more comes out than the limit allows, and nothing panics.
func FuzzDecode(f *testing.F) {
	for _, c := range []string{"gzip", "deflate", "br", "zstd"} {
		f.Add(c, packed(f, c, "hello hello hello"))
	}
	f.Add("br, gzip", []byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, encoding string, data []byte) {
		if out, _, err := Decode(encoding, data, 4096); len(out) > 4096 || err == nil && !Known(encoding) {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	})
}

// Codings that hold gigabytes of nothing are given up, however little comes out at the end; what is coded twice and three times is read.
func TestNestedNothing(t *testing.T) {
	text := strings.Repeat("the quick brown fox 0123456789 ", 500)
	thrice := packed(t, "gzip", string(packed(t, "br", string(packed(t, "zstd", text)))))
	if out, whole, err := Decode("zstd, br, gzip", thrice, 1<<20); err != nil || !whole || string(out) != text {
		t.Errorf("coded three times: %d bytes, %t, %v", len(out), whole, err)
	}
	empty := string(packed(t, "gzip", ""))
	for _, name := range []string{"gzip", "br", "zstd", "deflate"} {
		bomb := packed(t, name, strings.Repeat(empty, 8<<20/len(empty)))
		if out, whole, err := Decode("gzip, "+name, bomb, 2<<10); !errors.Is(err, errGrows) || whole || len(out) > 0 {
			t.Errorf("%s, %d bytes: %d bytes come out, %t, %v", name, len(bomb), len(out), whole, err)
		}
	}
}
