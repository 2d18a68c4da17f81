package daemon

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// h2Client writes HTTP/2 frames of its own making.
type h2Client struct {
	*rawClient
	t *testing.T
}

// Types and flags of frames (RFC 9113 section 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameWindowUpdate = 8
	frameContinuation = 9
	flagEndStream     = 1
	flagEndHeaders    = 4
)

// dialH2 opens an intercepted connection that speaks HTTP/2.
func (b *box) dialH2(authority string) *h2Client {
	b.t.Helper()
	h := &h2Client{b.intercepted(authority, "h2"), b.t}
	h.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, ""))
	return h
}

func frame(kind, flags byte, stream uint32, payload string) string {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(binary.BigEndian.AppendUint32(head, stream)) + payload
}

// block is a header block of literal fields, neither indexed nor Huffman-coded.
func block(pairs ...string) string {
	var b strings.Builder
	number := func(n int) {
		if n < 127 {
			b.WriteByte(byte(n))
			return
		}
		b.WriteByte(127)
		for n -= 127; n >= 128; n >>= 7 {
			b.WriteByte(byte(n) | 0x80)
		}
		b.WriteByte(byte(n))
	}
	for i := 0; i < len(pairs); i += 2 {
		b.WriteByte(0)
		for _, s := range pairs[i : i+2] {
			number(len(s))
			b.WriteString(s)
		}
	}
	return b.String()
}

func (h *h2Client) request(stream uint32, end bool, pairs ...string) {
	h.t.Helper()
	flags := byte(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	h.send(frame(frameHeaders, flags, stream, block(pairs...)))
}

// next reads a frame.
func (h *h2Client) next() (kind, flags byte, stream uint32, payload string, err error) {
	var head [9]byte
	if _, err = io.ReadFull(h.r, head[:]); err != nil {
		return
	}
	b := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(h.r, b)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]) & (1<<31 - 1), string(b), err
}

// body reads a stream's answer: its content, or "reset N" where the stream or the connection was ended by an error.
func (h *h2Client) body(stream uint32) string {
	h.t.Helper()
	content := ""
	for {
		kind, flags, id, payload, err := h.next()
		switch {
		case err != nil:
			return fmt.Sprintf("%s ended: %v", content, err)
		case kind == frameGoAway && binary.BigEndian.Uint32([]byte(payload[4:])) != 0:
			return fmt.Sprintf("goaway %d", binary.BigEndian.Uint32([]byte(payload[4:])))
		case id != stream:
			continue
		case kind == frameReset:
			return fmt.Sprintf("%sreset %d", content, binary.BigEndian.Uint32([]byte(payload)))
		case kind == frameData:
			content += payload
		}
		if flags&flagEndStream != 0 && (kind == frameData || kind == frameHeaders) {
			return content
		}
	}
}

// TestHostileHTTP2: what HTTP/2 can still say in two ways is refused like in HTTP/1 (A17, A22; RFC 9113 sections 8.2 and 8.3).
func TestHostileHTTP2(t *testing.T) {
	w := ways(t, "", okAnswer)[3]
	o := w.origin.addr
	get := func(path string, more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "https", ":authority", o, ":path", path}, more...)
	}
	for name, row := range map[string]struct {
		fields []string
		want   string // in the answer
	}{
		"alias":               {get("/", "transfer_encoding", "chunked"), `"code":"bad_request"`},
		"dotted alias":        {get("/", "content.length", "4"), `"code":"bad_request"`},
		"expectation":         {get("/", "expect", "foo"), `"status":417`},
		"another Host":        {get("/", "host", "other.example.com"), `"code":"authority_mismatch"`},
		"another authority":   {[]string{":method", "GET", ":scheme", "https", ":authority", "other.example.com", ":path", "/"}, `"code":"authority_mismatch"`},
		"another port":        {[]string{":method", "GET", ":scheme", "https", ":authority", "127.0.0.1:1", ":path", "/"}, `"code":"authority_mismatch"`},
		"no authority":        {[]string{":method", "GET", ":scheme", "https", ":path", "/"}, `"code":"bad_request"`},
		"another URL":         {get("https://other.example.com/"), `"code":"authority_mismatch"`},
		"another scheme":      {get("http://" + o + "/"), `"code":"authority_mismatch"`},
		"userinfo":            {[]string{":method", "GET", ":scheme", "https", ":authority", "user@" + o, ":path", "/"}, "reset 1"},
		"space in the path":   {get("/a HTTP/1.1 b"), `"code":"bad_request"`},
		"space in the query":  {get("/a?b c"), `"code":"bad_request"`},
		"fragment":            {get("/a#b"), `"code":"bad_request"`},
		"asterisk":            {get("*"), `"code":"bad_request"`},
		"CR in the path":      {get("/a\r\nX: 1"), "reset 1"},
		"no slash":            {get("a"), "reset 1"},
		"CONNECT":             {[]string{":method", "CONNECT", ":authority", o}, `"code":"unsupported"`},
		"method":              {[]string{":method", "GE T", ":scheme", "https", ":authority", o, ":path", "/"}, `"code":"bad_request"`},
		"no path":             {[]string{":method", "GET", ":scheme", "https", ":authority", o}, "reset 1"},
		"upper case":          {get("/", "X-Upper", "1"), "reset 1"},
		"space in a name":     {get("/", "x a", "1"), "reset 1"},
		"CR in a value":       {get("/", "x-a", "1\r\nx: 2"), "reset 1"},
		"pseudo twice":        {get("/", ":path", "/b"), "reset 1"},
		"pseudo after fields": {[]string{":method", "GET", "x-a", "1", ":scheme", "https", ":authority", o, ":path", "/"}, "reset 1"},
		"connection":          {get("/", "connection", "x-a"), "not valid"},
		"transfer coding":     {get("/", "transfer-encoding", "chunked"), "not valid"},
		"te":                  {get("/", "te", "gzip"), "may only be"},
	} {
		h := w.box.dialH2(o)
		h.request(1, true, row.fields...)
		if got := h.body(1); !strings.Contains(got, row.want) {
			t.Errorf("%s: %q", name, got)
		}
		h.Close()
		if got := w.origin.requests(); len(got) > 0 {
			t.Fatalf("%s: the upstream received %q", name, got)
		}
	}
	h := w.box.dialH2(o)
	h.request(1, false, get("/", "content-length", "2")...)
	h.send(frame(frameData, flagEndStream, 1, "abc"))
	if got := h.body(1); !strings.Contains(got, "reset") && !strings.Contains(got, "bad_request") {
		t.Errorf("more data than content-length: %q", got)
	}
	if got := w.origin.requests(); len(got) > 0 {
		t.Errorf("the upstream received %q", got)
	}
}

// TestHTTP2Method: a method that is none is refused before an upstream that speaks HTTP/2 hears of it, where nothing would spell it out in a line of its own.
func TestHTTP2Method(t *testing.T) {
	addr := serveH2(t, h2Script{"/": {{":status", "200"}, {"hello"}}})
	b := start(t, "defaults: {upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
	for method, want := range map[string]string{"PURGE": "hello", "GET /x HTTP/1.1": `"code":"bad_request"`, "GE\tT": `"code":"bad_request"`} {
		h := b.dialH2(addr)
		h.request(1, true, ":method", method, ":scheme", "https", ":authority", addr, ":path", "/")
		if got := h.body(1); !strings.Contains(got, want) {
			t.Errorf("%q: %q", method, got)
		}
		h.Close()
	}
}

// TestHTTP2Floods: none of the well-known ones costs more than the connection it came by (A30, G20).
func TestHTTP2Floods(t *testing.T) {
	w := ways(t, "", okAnswer)[3]
	fields := block(":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", "/")
	most := 600
	if onStandard() {
		most = 2000 // net/http's transport goes on with connections that nobody wants any more
	}
	for name, flood := range map[string]func(i uint32) string{
		"continuation": func(i uint32) string {
			if i == 0 {
				return frame(frameHeaders, 0, 1, fields)
			}
			return frame(frameContinuation, 0, 1, block("x-a", strings.Repeat("a", 8000)))
		},
		"empty continuation": func(i uint32) string {
			if i == 0 {
				return frame(frameHeaders, 0, 1, fields)
			}
			return frame(frameContinuation, 0, 1, "")
		},
		"settings": func(uint32) string { return frame(frameSettings, 0, 0, strings.Repeat("\x00\x04\x00\x00\xff\xff", 10)) },
		"ping":     func(uint32) string { return frame(framePing, 0, 0, "01234567") },
		"empty data": func(i uint32) string {
			if i == 0 {
				return frame(frameHeaders, flagEndHeaders, 1, block(":method", "POST", ":scheme", "https", ":authority", w.origin.addr, ":path", "/"))
			}
			return frame(frameData, 0, 1, "")
		},
		"rapid reset": func(i uint32) string {
			return frame(frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, fields) + frame(frameReset, 0, 2*i+1, "\x00\x00\x00\x08")
		},
		"hpack bomb": func(i uint32) string { // one large field, then references to it
			large := "\x40" + block("x-a", strings.Repeat("a", 3000))[1:]
			return frame(frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, fields+large+strings.Repeat("\xbe", 12_000))
		},
	} {
		before, goroutines := heap(), runtime.NumGoroutine()
		h := w.box.dialH2(w.origin.addr)
		_ = h.SetDeadline(time.Now().Add(700 * time.Millisecond))
		ended := false
		for i := uint32(0); i < 60_000 && !ended; {
			var b strings.Builder
			for ; b.Len() < 16<<10; i++ {
				b.WriteString(flood(i))
			}
			_, err := io.WriteString(h.Conn, b.String())
			ended = err != nil
		}
		if grown := heap() - before; grown > 24<<20 {
			t.Errorf("%s: the heap grew by %d MiB", name, grown>>20)
		}
		if grown := runtime.NumGoroutine() - goroutines; grown > most {
			t.Errorf("%s: %d goroutines more", name, grown)
		}
		h.Close()
		healthy := w.box.dialH2(w.origin.addr)
		healthy.send(frame(frameHeaders, flagEndHeaders|flagEndStream, 1, fields))
		if body := healthy.body(1); body != "ok" {
			t.Errorf("%s: afterwards somebody else got %q", name, body)
		}
		healthy.Close()
	}
}

// TestHTTP2FieldTable: a client that changes the size of its table of fields while it is answered ends nothing but its own connection: net/http would change the table
// while another goroutine codes an answer with it, and the process would end.
func TestHTTP2FieldTable(t *testing.T) {
	w := ways(t, "", okAnswer)[3]
	size := func(n string) string { return frame(frameSettings, 0, 0, "\x00\x01\x00\x00"+n) }
	const none, usual = "\x00\x00", "\x10\x00"
	fields := block(":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", "/")
	open := func(settings string) *h2Client {
		h := &h2Client{w.box.intercepted(w.origin.addr, "h2"), t}
		h.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
		return h
	}
	h := open(size(none))
	decoder := hpack.NewDecoder(0, nil) // of a table of no size
	const streams = 200
	var asked strings.Builder
	for i := range uint32(streams) {
		asked.WriteString(frame(frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, fields) + size(usual) + size(none))
	}
	go func() { _, _ = io.WriteString(h.Conn, asked.String()) }()
	for answered := 0; answered < streams; {
		kind, flags, _, payload, err := h.next()
		switch {
		case err != nil || kind == frameGoAway || kind == frameReset:
			t.Fatalf("after %d answers: frame %d %q, %v", answered, kind, payload, err)
		case kind == frameHeaders:
			head, err := decoder.DecodeFull([]byte(payload))
			if err != nil || head[0].Value != "200" {
				t.Fatalf("%v, %v", head, err)
			}
		case kind == frameData && flags&flagEndStream != 0:
			answered++
		}
	}
	h.Close()
	h = open(frame(frameSettings, 0, 0, ""))
	h.send(frame(frameHeaders, flagEndHeaders|flagEndStream, 1, fields))
	if got := h.body(1); got != "ok" {
		t.Fatal(got)
	}
	h.send(size(none) + frame(frameHeaders, flagEndHeaders|flagEndStream, 3, fields))
	if got := h.body(3); !strings.Contains(got, "ended: ") {
		t.Errorf("a client that can decode less than before got %q", got)
	}
	healthy := w.box.dialH2(w.origin.addr)
	healthy.send(frame(frameHeaders, flagEndHeaders|flagEndStream, 1, fields))
	if got := healthy.body(1); got != "ok" {
		t.Errorf("afterwards somebody else got %q", got)
	}
	if n := len(w.origin.requests()); n != streams+2 {
		t.Errorf("the upstream received %d requests", n)
	}
	for _, r := range w.box.records(streams + 2) {
		r.want(t, map[string]any{"status": 200, "outcome": "ok"})
	}
}

// TestHTTP2ResetHints: a client may reset a stream while an informational answer is written to it: net/http would still be coding the map from which its fields are taken
// again, and the process would end.
func TestHTTP2ResetHints(t *testing.T) {
	var hints strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&hints, "X-Hint-%d: %d\r\n", i, i)
	}
	w := ways(t, "retry: off, breaker: off", "HTTP/1.1 103 Early Hints\r\n"+hints.String()+"\r\n"+okAnswer)[3]
	fields := block(":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", "/")
	h := w.box.dialH2(w.origin.addr)
	hinted := make(chan struct{}, 1)
	go func() {
		for {
			kind, _, _, _, err := h.next()
			if err != nil {
				return
			}
			if kind == frameHeaders {
				select {
				case hinted <- struct{}{}:
				default:
				}
			}
		}
	}()
	const rounds, at = 40, 4
	for i := range uint32(rounds * at) {
		_ = h.SetDeadline(time.Now().Add(15 * time.Second)) // each round may take its time
		h.send(frame(frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, fields))
		if i%at != at-1 {
			continue
		}
		select { // one has its hints, and others are at theirs
		case <-hinted:
		case <-time.After(time.Second):
		}
		for j := i - at + 1; j <= i; j++ {
			h.send(frame(frameReset, 0, 2*j+1, "\x00\x00\x00\x08"))
		}
	}
	h.Close()
	healthy := w.box.dialH2(w.origin.addr)
	healthy.send(frame(frameHeaders, flagEndHeaders|flagEndStream, 1, fields))
	for {
		kind, flags, _, payload, err := healthy.next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == frameData && flags&flagEndStream != 0 {
			if payload != "ok" {
				t.Errorf("afterwards somebody else got %q", payload)
			}
			break
		}
	}
	w.box.records(rounds*at + 1)
}

// TestHTTP2Sizes: a head that is too long is refused as in HTTP/1.1, and what else its client does goes on.
func TestHTTP2Sizes(t *testing.T) {
	cert, ca := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	o := serveRaw(t, l, inTurn(okAnswer))
	b := start(t, "proxy: {limits: {header_bytes: 32KiB}}\ndefaults: {tls: intercept, upstream: {ca: "+ca+"}}")
	to := func(method, path string, more ...string) string {
		return block(append([]string{":method", method, ":scheme", "https", ":authority", o.addr, ":path", path}, more...)...)
	}
	long := strings.Repeat("a", 20_000)
	for i, row := range []struct{ name, fields, want string }{
		{"fields", to("GET", "/", "x-a", long, "x-b", long), `"status":431`},
		{"target", to("GET", "/"+long+long), `"status":414`},
		{"many", to("GET", "/") + strings.Repeat(block("a", "b"), 600), `"status":431`},
	} {
		h := b.dialH2(o.addr)
		h.send(frame(frameHeaders, flagEndHeaders, 1, to("POST", "/")))
		const most = 16 << 10
		h.send(frame(frameHeaders, flagEndStream, 3, row.fields[:min(most/2, len(row.fields))]))
		for left := row.fields[min(most/2, len(row.fields)):]; ; left = left[min(most, len(left)):] {
			if len(left) <= most {
				h.send(frame(frameContinuation, flagEndHeaders, 3, left))
				break
			}
			h.send(frame(frameContinuation, 0, 3, left[:most]))
		}
		if got := h.body(3); !strings.Contains(got, row.want) || !strings.Contains(got, `"code":"too_large"`) {
			t.Errorf("%s: %q", row.name, got)
		}
		h.send(frame(frameData, flagEndStream, 1, "data"))
		if got := h.body(1); got != "ok" {
			t.Errorf("%s: the other one got %q", row.name, got)
		}
		h.Close()
		if got := o.requests(); len(got) != i+1 || !strings.HasSuffix(got[i], "data\r\n0\r\n\r\n") && !strings.HasSuffix(got[i], "\r\n\r\ndata") {
			t.Errorf("%s: the upstream received %q", row.name, got)
		}
		refusals := 0
		for _, r := range b.records(2 * (i + 1)) {
			if r.text("outcome") == "too_large" {
				refusals++
			}
		}
		if refusals != i+1 {
			t.Errorf("%s: %d records say too_large", row.name, refusals)
		}
	}
}

// TestHTTP2Apart: exchanges that share a connection share nothing else (G26).
func TestHTTP2Apart(t *testing.T) {
	w := ways(t, "", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")[3]
	h := w.box.dialH2(w.origin.addr)
	const n = 40
	for i := range uint32(n) {
		h.request(2*i+1, true, ":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", fmt.Sprint("/", i), "x-request-id", fmt.Sprint("request-", i))
	}
	for range n {
		w.seen++
	}
	for _, r := range w.box.records(n) {
		number := strings.TrimPrefix(r.text("id"), "request-")
		if !strings.HasSuffix(r.text("url"), w.origin.addr+"/"+number) || r.text("outcome") != "ok" {
			t.Errorf("the record mixes two exchanges: %v", r)
		}
	}
}

// recordCount counts the TLS records that come.
type recordCount struct {
	net.Conn
	n, left int
	head    []byte
}

func (r *recordCount) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	for b := p[:n]; len(b) > 0; {
		if r.left == 0 {
			take := min(5-len(r.head), len(b))
			r.head, b = append(r.head, b[:take]...), b[take:]
			if len(r.head) < 5 {
				break
			}
			r.n++
			r.left, r.head = int(r.head[3])<<8|int(r.head[4]), r.head[:0]
		}
		take := min(r.left, len(b))
		r.left, b = r.left-take, b[take:]
	}
	return n, err
}

// TestHTTP2AnswerInOneRecord: net/http would write head and body apart.
func TestHTTP2AnswerInOneRecord(t *testing.T) {
	w := ways(t, "", okAnswer)[3]
	below := w.box.dialProxy()
	below.connect(w.origin.addr)
	counted := &recordCount{Conn: below}
	inside := tls.Client(counted, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	h := &h2Client{&rawClient{Conn: inside, t: t, r: bufio.NewReader(inside)}, t}
	h.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, ""))
	whole := 0
	for i := range uint32(40) {
		stream := 2*i + 1
		before := counted.n
		h.request(stream, true, ":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", "/")
		if got := h.body(stream); got != "ok" {
			t.Fatalf("%q", got)
		}
		if counted.n == before+1 {
			whole++
		}
	}
	if whole < 10 { // a busy machine needs longer than a head waits
		t.Errorf("%d of 40 answers came in one record", whole)
	}
}

// TestHTTP2HeadAlone: a head does not wait for a body that stays away, be it the upstream's or for want of the client's leave.
func TestHTTP2HeadAlone(t *testing.T) {
	for name, row := range map[string]struct {
		answer, settings string
		want             string // the content, once the client gives leave; "": none comes
	}{
		"no leave":      {okAnswer, "\x00\x04\x00\x00\x00\x00", "ok"},
		"chunks":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n<hang>", "", ""},
		"informational": {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n<hang>", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := ways(t, "", row.answer)[3]
			h := &h2Client{w.box.intercepted(w.origin.addr, "h2"), t}
			h.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, row.settings))
			h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", "/")
			for {
				kind, flags, _, _, err := h.next()
				if err != nil || kind == frameData {
					t.Fatal(kind, err)
				}
				if kind == frameHeaders {
					if flags&flagEndStream != 0 {
						t.Fatal("it is the whole answer")
					}
					break
				}
			}
			if row.want != "" {
				h.send(frame(frameWindowUpdate, 0, 1, "\x00\x00\xff\xff"))
				if got := h.body(1); got != row.want {
					t.Errorf("%q", got)
				}
			}
			h.Close()
		})
	}
}
