package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"httpowerd/internal/exchange"
)

// pass runs input through a guard and returns what came out, the first refusal and the error at the end.
func pass(r io.Reader, maxHead int) (out string, refusal *exchange.Refusal, err error) {
	g := &Guard{MaxHead: maxHead}
	var b bytes.Buffer
	p := make([]byte, 4096)
	for {
		n, err := g.Read(r, p, func(f *exchange.Refusal) []byte { refusal = f; return nil })
		b.Write(p[:n])
		if err != nil {
			return b.String(), refusal, err
		}
	}
}

const host = "Host: api.example.com\r\n"

// TestGuardPasses: what has one meaning (table 2.1, A22).
func TestGuardPasses(t *testing.T) {
	for name, in := range map[string]string{
		"get":              "GET http://api.example.com/ HTTP/1.1\r\n" + host + "\r\n",
		"two":              "GET /a HTTP/1.1\r\n" + host + "\r\nGET /b HTTP/1.1\r\n" + host + "\r\n",
		"length":           "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" + host + "\r\n",
		"same length":      "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
		"chunked":          "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
		"extension":        "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
		"old":              "GET http://api.example.com/ HTTP/1.0\r\n\r\n",
		"connect":          "CONNECT api.example.com:443 HTTP/1.1\r\n\r\n\x16\x03\x01anything\n\n",
		"old connect":      "CONNECT api.example.com:443 HTTP/1.0\r\n\r\nanything",
		"websocket":        "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
		"latin-1 value":    "GET / HTTP/1.1\r\n" + host + "X-Name: caf\xe9\r\n\r\n",
		"underscore":       "GET / HTTP/1.1\r\n" + host + "X_Api_Version: 2\r\n\r\n",
		"empty te":         "GET / HTTP/1.1\r\n" + host + "Te:\r\n\r\n",
		"body with a head": "POST / HTTP/1.1\r\n" + host + "Content-Length: 8\r\n\r\nGET / \r\n",
	} {
		for way, r := range map[string]io.Reader{"at once": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
			out, refusal, err := pass(r, 1<<16)
			if out != in || refusal != nil || err != io.EOF {
				t.Errorf("%s, %s: %q, %v, %v", name, way, out, refusal, err)
			}
		}
	}
}

// TestGuardSkipsEmptyLines: one before each request line is not for the server behind.
func TestGuardSkipsEmptyLines(t *testing.T) {
	parts := []string{"GET / HTTP/1.1\r\n" + host + "\r\n", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\n\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n\r\nanything"}
	in := "\r\n" + strings.Join(parts, "\r\n")
	for way, r := range map[string]io.Reader{"at once": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in)),
		"in halves": io.MultiReader(strings.NewReader(in[:len(in)/2]), strings.NewReader(in[len(in)/2:]))} {
		if out, refusal, err := pass(r, 1<<16); out != strings.Join(parts, "") || refusal != nil || err != io.EOF {
			t.Errorf("%s: %q, %v, %v", way, out, refusal, err)
		}
	}
}

// TestGuardRefuses: what has two, or none (table 2.1, A22, A28).
func TestGuardRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in     string
		status int
	}{
		"length and chunked":     {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"two lengths":            {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
		"a zero more":            {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 05\r\n\r\n", 400},
		"length list":            {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\n", 400},
		"plus length":            {"POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\n", 400},
		"hex length":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\n", 400},
		"negative length":        {"POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400},
		"endless length":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 9999999999999999999\r\n\r\n", 400},
		"empty length":           {"POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", 400},
		"coding":                 {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", 501},
		"gzip, chunked":          {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		"chunked twice":          {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"space before colon":     {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n", 400},
		"fold":                   {"GET / HTTP/1.1\r\n" + host + "X-A: 1\r\n 2\r\n\r\n", 400},
		"fold in framing":        {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n chunked\r\n\r\n", 400},
		"bare LF":                {"GET / HTTP/1.1\n" + host + "\n", 400},
		"bare LF in a field":     {"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400},
		"NUL":                    {"GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 400},
		"CR in a value":          {"GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", 400},
		"old and chunked":        {"POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", 400},
		"no host":                {"GET / HTTP/1.1\r\n\r\n", 400},
		"two hosts":              {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
		"alias":                  {"POST / HTTP/1.1\r\n" + host + "Transfer_Encoding: chunked\r\n\r\n", 400},
		"dotted alias":           {"POST / HTTP/1.1\r\n" + host + "content.length: 4\r\n\r\n", 400},
		"version 2":              {"GET / HTTP/2.0\r\n" + host + "\r\n", 505},
		"version 1.2":            {"GET / HTTP/1.2\r\n" + host + "\r\n", 505},
		"version 0.9":            {"GET /\r\n\r\n", 400},
		"no HTTP":                {"GET / FTP/1.1\r\n" + host + "\r\n", 400},
		"space in target":        {"GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		"fragment":               {"GET /a#b HTTP/1.1\r\n" + host + "\r\n", 400},
		"name with space":        {"GET / HTTP/1.1\r\n" + host + "X A: b\r\n\r\n", 400},
		"no colon":               {"GET / HTTP/1.1\r\n" + host + "nonsense\r\n\r\n", 400},
		"empty name":             {"GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", 400},
		"method":                 {"G(T / HTTP/1.1\r\n" + host + "\r\n", 400},
		"TLS on a plain port":    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
		"binary":                 {"\x00\x00\x00\x00", 400},
		"connect with a body":    {"CONNECT api.example.com:443 HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\n", 400},
		"long target":            {"GET /" + strings.Repeat("a", 5000) + " HTTP/1.1\r\n" + host + "\r\n", 414},
		"long field":             {"GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 5000) + "\r\n\r\n", 431},
		"many fields":            {"GET / HTTP/1.1\r\n" + host + strings.Repeat("X:y\r\n", 600) + "\r\n", 431},
		"endless target":         {"GET /" + strings.Repeat("a", 100000), 414},
		"endless field":          {"GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 100000), 431},
		"two empty lines":        {"\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", 400},
		"empty bare LF":          {"\nGET / HTTP/1.1\r\n" + host + "\r\n", 400},
		"empty line and garbage": {"\r\n\x16\x03\x01", 400},
		"empty line and space":   {"\r\n GET / HTTP/1.1\r\n" + host + "\r\n", 400},
		"bad second in pipeline": {"GET / HTTP/1.1\r\n" + host + "\r\nGET / HTTP/1.1\r\nX\r\n\r\n", 400},
	} {
		for way, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in))} {
			_, refusal, err := pass(r, 4096)
			if refusal == nil || refusal.HTTPStatus() != c.status || !refusal.Close || err != io.EOF {
				t.Errorf("%s, %s: %+v, %v; want %d", name, way, refusal, err, c.status)
			}
		}
	}
}

// TestGuardBreaksBadChunks (table 2.1, A22).
func TestGuardBreaksBadChunks(t *testing.T) {
	head := "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n"
	for name, body := range map[string]string{
		"bare LF size":      "5\nhello\r\n0\r\n\r\n",
		"bare LF extension": "5;a\nhello\r\n0\r\n\r\n",
		"no size":           "\r\n",
		"minus":             "-5\r\nhello",
		"plus":              "+5\r\nhello",
		"0x":                "0x5\r\nhello",
		"overflow":          "ffffffffffffffff1\r\n",
		"longer than size":  "3\r\nhello\r\n0\r\n\r\n",
		"space first":       " 5\r\nhello\r\n",
		"long extension":    "5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n",
	} {
		out, _, err := pass(strings.NewReader(head+body), 4096)
		if !errors.Is(err, ErrFraming) || !strings.HasPrefix(head+body, out) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestGuardEndsAfterRefusal: nothing behind a refused head is served (A23).
func TestGuardEndsAfterRefusal(t *testing.T) {
	good := "GET /good HTTP/1.1\r\n" + host + "\r\n"
	out, refusal, err := pass(strings.NewReader(good+"GET /bad\r\n\r\n"+good), 4096)
	if out != good || refusal == nil || err != io.EOF {
		t.Errorf("%q, %v, %v", out, refusal, err)
	}
}

// FuzzGuard: what passes does not depend on how it arrives, and the standard server reads no request that the guard did not see.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\n" + host + "\r\n",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n" + host + "\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\n\r\n\x16",
		"\r\nGET / HTTP/1.1\r\n" + host + "\r\n\r\nPOST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out, refusal, err := pass(strings.NewReader(in), 2048)
		slow, slowRefusal, slowErr := pass(iotest.OneByteReader(strings.NewReader(in)), 2048)
		if len(in) < 2048 && (out != slow || (refusal == nil) != (slowRefusal == nil) || err != slowErr) {
			t.Fatalf("at once: %q %v %v\nbyte by byte: %q %v %v", out, refusal, err, slow, slowRefusal, slowErr)
		}
		if !begins(in, out) {
			t.Fatalf("%q became %q", in, out)
		}
		if err := readRequests(out); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
	})
}

// begins tells whether in begins with out, but for empty lines that are left out: no request line begins like one.
func begins(in, out string) bool {
	for len(out) > 0 {
		switch {
		case len(in) > 0 && in[0] == out[0]:
			in, out = in[1:], out[1:]
		case strings.HasPrefix(in, "\r\n"):
			in = in[2:]
		default:
			return false
		}
	}
	return true
}

// readRequests reads what a server would, and complains where it reads a request that is ambiguous.
func readRequests(in string) error {
	r := bufio.NewReader(strings.NewReader(in))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return nil // cut short or refused by the server itself; either way nothing is served
		}
		if len(req.Header["Transfer-Encoding"]) > 0 || len(req.TransferEncoding) > 0 && req.Header.Get("Content-Length") != "" {
			return fmt.Errorf("%s has both framings", req.URL)
		}
		if req.Method == http.MethodConnect || req.Header.Get("Upgrade") != "" {
			return nil
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return nil
		}
	}
}

func BenchmarkGuard(b *testing.B) {
	in := []byte("GET http://api.example.com/v1/charges?limit=3 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n" +
		"Authorization: Bearer abcdefghijklmnopqrstuvwxyz\r\nAccept-Encoding: gzip, br\r\n\r\n")
	g := &Guard{MaxHead: 1 << 16}
	p := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		n := copy(p, in)
		if ok, refusal := g.next(p[:n]); ok != n || refusal != nil {
			b.Fatal(ok, refusal)
		}
	}
}

// A head that comes line by line is read once: the rate does not fall with its length.
func BenchmarkGuardDrips(b *testing.B) {
	for _, lines := range []int{50, 400} {
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			field := "X-Field: " + strings.Repeat("v", 100) + "\r\n"
			in := append([]string{"GET / HTTP/1.1\r\n", host}, slices.Repeat([]string{field}, lines)...)
			in = append(in, "\r\n")
			p := make([]byte, 4096)
			b.SetBytes(int64(lines * len(field)))
			for b.Loop() {
				g, r := &Guard{MaxHead: 1 << 16}, lineReader(in)
				if _, err := g.Read(&r, p, nil); err != nil || len(r) > 0 {
					b.Fatal(err, len(r))
				}
			}
		})
	}
}

// lineReader gives a line at a time.
type lineReader []string

func (l *lineReader) Read(p []byte) (int, error) {
	n := copy(p, (*l)[0])
	*l = (*l)[1:]
	return n, nil
}
