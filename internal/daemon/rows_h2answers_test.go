package daemon

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Script are an upstream's answers in HTTP/2 by path, field by field: a list for each head, and "" for the content in between.
type h2Script map[string][][]string

// serveFrames hands each frame of whoever offers HTTP/2 to answer, with the number of the connection, and refuses the others, so that it is spoken to whatever the client speaks.
func serveFrames(t *testing.T, answer func(conn int, f *http2.Framer, frame http2.Frame)) (addr string) {
	t.Helper()
	cert, _ := selfSigned(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !slices.Contains(hello.SupportedProtos, "h2") {
			return &tls.Config{Certificates: config.Certificates, NextProtos: []string{"h3"}}, nil
		}
		return nil, nil
	}
	var conns atomic.Int32
	return tcpOrigin(t, func(c *net.TCPConn) {
		s := tls.Server(c, config)
		defer s.Close()
		if s.Handshake() != nil {
			return
		}
		if _, err := io.ReadFull(s, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		conn := int(conns.Add(1)) - 1
		f := http2.NewFramer(s, s)
		f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
				_ = f.WriteSettingsAck()
			}
			answer(conn, f, frame)
		}
	})
}

// serveH2 answers by a script.
func serveH2(t *testing.T, script h2Script) (addr string) {
	t.Helper()
	return serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
		if head, ok := frame.(*http2.MetaHeadersFrame); ok {
			script.answer(f, head.StreamID, head.PseudoValue("path"))
		}
	})
}

func (s h2Script) answer(f *http2.Framer, stream uint32, path string) {
	parts := s[path]
	for i, part := range parts {
		last := i == len(parts)-1
		if len(part) == 1 {
			_ = f.WriteData(stream, last, []byte(part[0]))
			continue
		}
		writeHead(f, stream, last, part...)
	}
}

// writeHead writes a head in as many frames as it needs.
func writeHead(f *http2.Framer, stream uint32, last bool, pairs ...string) {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	part := b.Next(16 << 10)
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndHeaders: b.Len() == 0, EndStream: last})
	for b.Len() > 0 {
		part = b.Next(16 << 10)
		_ = f.WriteContinuation(stream, b.Len() == 0, part)
	}
}

// TestHostileHTTP2Answers: what an upstream says in HTTP/2 is not written to a client that it would mislead (A24; RFC 9113 sections 8.1.1, 8.3.2 and 8.6).
func TestHostileHTTP2Answers(t *testing.T) {
	hello := []string{"hello"}
	of := func(status string, fields ...string) [][]string {
		return [][]string{append([]string{":status", status}, fields...), hello}
	}
	script := h2Script{
		"/ok":            of("200", "content-length", "5"),
		"/same":          of("200", "content-length", "5", "content-length", "5"),
		"/switch":        slices.Concat([][]string{{":status", "101", "upgrade", "websocket", "connection", "upgrade"}}, of("200")),
		"/two-lengths":   of("200", "content-length", "5", "content-length", "6"),
		"/two-spellings": of("200", "content-length", "5", "content-length", "05"),
		"/length-behind": of("200", "content-length", "3", "content-length", "50"),
		"/plus":          of("200", "content-length", "+5"),
		"/list":          of("200", "content-length", "5, 5"),
		"/no-length":     of("200", "content-length", ""),
		"/endless":       of("200", "content-length", "9999999999999999999"),
		"/status-1000":   of("1000"),
		"/status-0200":   of("0200"),
		"/status-plus":   of("+200"),
		"/status-20":     of("20"),
		"/status-099":    of("099"),
	}
	addr := serveH2(t, script)
	b := start(t, "defaults: {retry: off, breaker: off, upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
	clients := map[string]*http.Client{"HTTP/1.1": b.client(), "HTTP/2": h2(b.client())}
	for path := range script {
		for version, c := range clients {
			a := get(t, c, "https://"+addr+path)
			if path == "/ok" || strings.HasPrefix(path, "/same") {
				if a.StatusCode != 200 || a.body != "hello" || a.ContentLength != 5 {
					t.Errorf("%s, %s: %s %q, length %d", path, version, a.Status, a.body, a.ContentLength)
				}
				continue
			}
			t.Run(path[1:], func(t *testing.T) { refused(t, a, 502, "upstream_protocol") })
		}
		p := b.dialProxy()
		p.send("GET https://" + addr + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if raw := p.rest(); strings.Count(raw, "HTTP/1.1 ") != 1 || strings.Count(raw, "\r\nContent-Length: ") != 1 {
			t.Errorf("%s: the client received %q", path, raw)
		}
	}
}

// TestContentlessHTTP2Answers: a 304 and a 204 are whole without content, whatever length they announce and whatever follows them (RFC 9110 section 8.6).
func TestContentlessHTTP2Answers(t *testing.T) {
	script := h2Script{
		"/ok":             {{":status", "200", "content-length", "5"}, {"hello"}},
		"/304":            {{":status", "304", "etag", "x"}},
		"/304-length":     {{":status", "304", "etag", "x", "content-length", "5"}},
		"/304-end-behind": {{":status", "304", "etag", "x", "content-length", "5"}, {""}},
		"/304-content":    {{":status", "304", "etag", "x", "content-length", "5"}, {"hello"}},
		"/304-more":       {{":status", "304", "etag", "x"}, {"hello"}},
		"/304-trailers":   {{":status", "304", "etag", "x", "content-length", "5"}, {"x-a", "b"}},
		"/204":            {{":status", "204", "etag", "x"}},
		"/204-length":     {{":status", "204", "etag", "x", "content-length", "5"}},
		"/204-end-behind": {{":status", "204", "etag", "x"}, {""}},
		"/204-content":    {{":status", "204", "etag", "x"}, {"hello"}},
	}
	addr := serveH2(t, script)
	b := start(t, "defaults: {upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
	h, p := b.dialH2(addr), b.intercepted(addr, "http/1.1")
	decoder, stream, seen := hpack.NewDecoder(4096, nil), uint32(1), 0
	for path, parts := range script {
		if path == "/ok" {
			continue
		}
		status, length := parts[0][1], ""
		if status == "304" && len(parts[0]) > 4 {
			length = "5"
		}
		h.request(stream, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", path)
		for ended := false; !ended; {
			kind, flags, id, payload, err := h.next()
			switch {
			case err != nil || kind == frameReset || kind == frameData && payload != "":
				t.Fatalf("%s: frame %d %q, %v", path, kind, payload, err)
			case id != stream:
				continue
			case kind == frameHeaders:
				fields, err := decoder.DecodeFull([]byte(payload))
				head := map[string]string{}
				for _, f := range fields {
					head[f.Name] = f.Value
				}
				if err != nil || head[":status"] != "" && (head[":status"] != status || head["etag"] != "x" || head["content-length"] != length) {
					t.Errorf("%s: %v, %v", path, head, err)
				}
			}
			ended = flags&flagEndStream != 0
		}
		stream += 2
		p.send("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\nGET /ok HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
		if onStandard() {
			length = "" // net/http drops it
		}
		if a := p.answer(http.MethodGet); a.Status[:3] != status || a.Header.Get("Etag") != "x" || a.Header.Get("Content-Length") != length || a.body != "" {
			t.Errorf("%s in HTTP/1.1: %s %v %q", path, a.Status, a.Header, a.body)
		}
		if a := p.answer(http.MethodGet); a.StatusCode != 200 || a.body != "hello" {
			t.Errorf("behind %s in HTTP/1.1: %s %q", path, a.Status, a.body)
		}
		records := b.records(seen + 3)[seen:]
		for _, r := range records[:2] {
			r.want(t, map[string]any{"status": status, "status_by": "upstream", "outcome": "ok", "response_bytes": 0})
		}
		seen += 3
	}
}

// TestUnreadHTTP2Answer: of an answer that its client does not read an upstream may send 1 MiB, and no more.
func TestUnreadHTTP2Answer(t *testing.T) {
	room := make(chan uint32, 1)
	addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if n, ok := frame.Value(http2.SettingInitialWindowSize); ok {
				room <- n
			}
		case *http2.MetaHeadersFrame:
			h2Script{"/": {{":status", "200"}, {"ok"}}}.answer(f, frame.StreamID, "/")
		}
	})
	b := start(t, "defaults: {upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
	h := b.dialH2(addr)
	h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/")
	if got := h.body(1); got != "ok" {
		t.Fatal(got)
	}
	if n := <-room; n > 1<<20 {
		t.Errorf("the upstream may send %d bytes ahead", n)
	}
	b.records(1)[0].want(t, map[string]any{"status": 200, "outcome": "ok", "response_bytes": 2})
}

// TestGivenUpByHTTP2: a write that an upstream gives up is sent again where nothing can have been done (RFC 9113 section 8.7), and nowhere else, with a body or without.
func TestGivenUpByHTTP2(t *testing.T) {
	for name, row := range map[string]struct {
		giveUp func(f *http2.Framer, stream uint32)
		want   string // in the answer
		sent   int32
	}{
		"refused":   {func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }, "ok", 2},
		"goaway":    {func(f *http2.Framer, stream uint32) { _ = f.WriteGoAway(stream-2, http2.ErrCodeNo, nil) }, "ok", 2},
		"protocol":  {func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeProtocol) }, `"status":502`, 1},
		"internal":  {func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeInternal) }, `"status":502`, 1},
		"cancelled": {func(f *http2.Framer, stream uint32) { _ = f.WriteRSTStream(stream, http2.ErrCodeCancel) }, `"status":502`, 1},
	} {
		for _, body := range []string{"", "data"} {
			t.Run(name+body, func(t *testing.T) {
				var writes atomic.Int32
				addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
					head, ok := frame.(*http2.MetaHeadersFrame)
					switch {
					case !ok:
					case head.PseudoValue("method") == "POST" && writes.Add(1) == 1:
						row.giveUp(f, head.StreamID)
					default:
						h2Script{"/": {{":status", "200"}, {"ok"}}}.answer(f, head.StreamID, "/")
					}
				})
				b := start(t, "defaults: {upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
				h := b.dialH2(addr)
				h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/")
				if got := h.body(1); got != "ok" {
					t.Fatal(got)
				}
				h.request(3, body == "", ":method", "POST", ":scheme", "https", ":authority", addr, ":path", "/")
				if body != "" {
					h.send(frame(frameData, flagEndStream, 3, body))
				}
				if got := h.body(3); !strings.Contains(got, row.want) || writes.Load() != row.sent {
					t.Errorf("%q after %d writes", got, writes.Load())
				}
				outcome := "ok"
				if row.sent == 1 {
					outcome = "upstream_reset"
					if name == "protocol" && body != "" {
						outcome = "upstream_protocol"
					}
				}
				r := b.records(2)[1]
				attempts, _ := r["attempts"].([]any)
				if r.want(t, map[string]any{"outcome": outcome, "method": "POST"}); len(attempts) != int(row.sent) {
					t.Errorf("attempts: %v", attempts)
				}
			})
		}
	}
}

// TestHTTP2WindowTooLarge: an upstream that lets more be sent than HTTP/2 can count (RFC 9113 section 6.9.1) ends its own connection, and holds up nobody else.
func TestHTTP2WindowTooLarge(t *testing.T) {
	const most = 1<<31 - 1
	for name, grant := range map[string]func(f *http2.Framer, stream uint32){
		"at once": func(f *http2.Framer, stream uint32) { _ = f.WriteWindowUpdate(stream, most) },
		"in parts": func(f *http2.Framer, stream uint32) {
			_ = f.WriteWindowUpdate(stream, most/2)
			_ = f.WriteWindowUpdate(stream, most/2)
		},
		"by settings": func(f *http2.Framer, stream uint32) {
			_ = f.WriteWindowUpdate(stream, 1<<20)
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: most})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var writes atomic.Int32
			addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
				head, ok := frame.(*http2.MetaHeadersFrame)
				switch {
				case !ok:
				case head.PseudoValue("method") == "POST":
					writes.Add(1)
					grant(f, head.StreamID)
				default: // means nothing to a request without a body
					_ = f.WriteWindowUpdate(head.StreamID, most)
					h2Script{"/": {{":status", "200"}, {"ok"}}}.answer(f, head.StreamID, "/")
				}
			})
			other := serveH2(t, h2Script{"/": {{":status", "200"}, {"other"}}})
			b := start(t, "defaults: {timeout: {attempt: 10s, total: 10s}, upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
			h := b.dialH2(addr)
			h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/")
			if got := h.body(1); got != "ok" {
				t.Fatal(got)
			}
			h.request(3, false, ":method", "POST", ":scheme", "https", ":authority", addr, ":path", "/")
			answered, sent := make(chan struct{}), make(chan struct{})
			go func() { // a body that goes on, because net/http looks up between two reads of it
				defer close(sent)
				for ; ; time.Sleep(10 * time.Millisecond) {
					select {
					case <-answered:
						return
					default:
						_, _ = io.WriteString(h.Conn, frame(frameData, 0, 3, "x"))
					}
				}
			}()
			got := h.body(3)
			close(answered)
			<-sent
			if !strings.Contains(got, `"code":"upstream_protocol"`) {
				t.Fatal(got)
			}
			h.request(5, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/")
			if got := h.body(5); got != "ok" {
				t.Errorf("afterwards the upstream's answer is %q", got)
			}
			elsewhere := b.dialH2(other)
			elsewhere.request(1, true, ":method", "GET", ":scheme", "https", ":authority", other, ":path", "/")
			if got := elsewhere.body(1); got != "other" {
				t.Errorf("another upstream's is %q", got)
			}
			r := b.records(4)[1]
			if r.want(t, map[string]any{"method": "POST", "outcome": "upstream_protocol", "status": 502, "status_by": "proxy"}); writes.Load() != 1 {
				t.Errorf("%d writes", writes.Load())
			}
		})
	}
}

// TestHintsNobodyReads: an informational answer whose client does not read holds up nobody else's on the upstream's connection.
func TestHintsNobodyReads(t *testing.T) {
	const streams = 20 // 10 MB, which no socket's buffers take where its peer's is small
	hint := []string{":status", "103"}
	for range 5 {
		hint = append(hint, "link", strings.Repeat("a", 100_000))
	}
	var hinted, conns atomic.Int32
	addr := serveFrames(t, func(conn int, f *http2.Framer, frame http2.Frame) {
		head, ok := frame.(*http2.MetaHeadersFrame)
		switch {
		case !ok:
		case head.PseudoValue("path") == "/hints":
			writeHead(f, head.StreamID, false, hint...)
			hinted.Add(1)
		default:
			conns.Store(int32(conn))
			h2Script{"/": {{":status", "200"}, {"ok"}}}.answer(f, head.StreamID, "/")
		}
	})
	b := start(t, "defaults: {timeout: {attempt: 60s, total: 60s}, retry: off, tls: intercept, upstream: {insecure_skip_verify: true}}")
	deaf := b.dialH2(addr)
	_ = deaf.SetDeadline(time.Now().Add(time.Minute))
	if err := deaf.Conn.(*tls.Conn).NetConn().(*rawClient).Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(streams) {
		deaf.request(2*i+1, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/hints")
	}
	for deadline := time.Now().Add(30 * time.Second); hinted.Load() < streams && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	h := b.dialH2(addr)
	h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/")
	if got := h.body(1); got != "ok" || conns.Load() != 0 {
		t.Errorf("somebody else got %q on connection %d", got, conns.Load())
	}
	b.records(1)[0].want(t, map[string]any{"status": 200, "outcome": "ok"})
	for i := range uint32(streams) {
		deaf.send(frame(frameReset, 0, 2*i+1, "\x00\x00\x00\x08"))
	}
	for _, r := range b.records(1 + streams)[:streams] { // the last to begin is the other one
		r.want(t, map[string]any{"outcome": "client_gone"})
	}
	deaf.Close()
}

// TestLeftHTTP2Answers: what lies unread of an answer whose client leaves is granted to the upstream once. net/http does it each time such a body is closed, and where
// the connection's window comes to 2^31 bytes by that, it locks up together with all others.
func TestLeftHTTP2Answers(t *testing.T) {
	const streams, parts = 20, 60
	var sent, granted atomic.Int64
	addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
		switch frame := frame.(type) {
		case *http2.WindowUpdateFrame:
			if frame.StreamID == 0 && frame.Increment < 1<<29 { // the first makes the window what it is to be
				granted.Add(int64(frame.Increment))
			}
		case *http2.MetaHeadersFrame:
			writeHead(f, frame.StreamID, false, ":status", "200")
			for range parts {
				_ = f.WriteData(frame.StreamID, false, make([]byte, 16<<10))
				sent.Add(16 << 10)
			}
		}
	})
	b := start(t, "defaults: {retry: off, tls: intercept, upstream: {insecure_skip_verify: true}}")
	h := b.dialH2(addr)
	for i := range uint32(streams) {
		h.request(2*i+1, true, ":method", "GET", ":scheme", "https", ":authority", addr, ":path", "/")
		for sent.Load() < int64(i+1)*parts<<14 {
			time.Sleep(time.Millisecond)
		}
		h.send(frame(frameReset, 0, 2*i+1, "\x00\x00\x00\x08"))
		b.records(int(i) + 1)
	}
	if n := granted.Load() - sent.Load(); n > 0 {
		t.Errorf("%d bytes were granted twice, of %d", n, sent.Load())
	}
}

// TestHTTP2EndsBeforeUpload: the end of an HTTP/2 answer does not wait for a client that has more to send, and sends nothing: a gRPC call that its server ends is over.
func TestHTTP2EndsBeforeUpload(t *testing.T) {
	for name, config := range map[string]string{"retry": "", "no retry": "retry: off, "} {
		t.Run(name, func(t *testing.T) {
			resets := make(chan uint32, 2)
			received := make(chan string, 2)
			addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
				switch frame := frame.(type) {
				case *http2.RSTStreamFrame:
					resets <- frame.StreamID
				case *http2.DataFrame:
					received <- string(frame.Data())
					id := frame.StreamID
					writeHead(f, id, false, ":status", "200", "content-type", "application/grpc", "trailer", "grpc-status")
					_ = f.WriteData(id, false, []byte("answer"))
					writeHead(f, id, true, "grpc-status", "9")
				}
			})
			b := start(t, "defaults: {"+config+"tls: intercept, upstream: {insecure_skip_verify: true}}")
			h := b.dialH2(addr)
			h.request(1, false, ":method", "POST", ":scheme", "https", ":authority", addr, ":path", "/", "content-type", "application/grpc")
			h.send(frame(frameData, 0, 1, "begin"))
			decoder, content, status := hpack.NewDecoder(4096, nil), "", ""
			for ended := false; !ended; {
				kind, flags, id, payload, err := h.next()
				switch {
				case err != nil || kind == frameReset:
					t.Fatalf("after %q: frame %d %q, %v", content, kind, payload, err)
				case id != 1:
					continue
				case kind == frameData:
					content += payload
				case kind == frameHeaders:
					fields, err := decoder.DecodeFull([]byte(payload))
					if err != nil {
						t.Fatal(err)
					}
					for _, field := range fields {
						if field.Name == "grpc-status" {
							status = field.Value
						}
					}
				}
				ended = flags&flagEndStream != 0
			}
			if got := <-received; got != "begin" || content != "answer" || status != "9" {
				t.Errorf("the upstream received %q, the client %q with the status %q", got, content, status)
			}
			<-resets
			p := b.intercepted(addr, "http/1.1")
			p.send("POST / HTTP/1.1\r\nHost: " + addr + "\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n5\r\nbegin\r\n")
			if a := p.answer(http.MethodPost); <-received != "begin" || a.body != "answer" || a.Trailer.Get("Grpc-Status") != "9" {
				t.Errorf("in HTTP/1.1: %q %v", a.body, a.Trailer)
			}
			<-resets
			for _, r := range b.records(2) {
				r.want(t, map[string]any{"status": 200, "outcome": "ok", "request_bytes": 5, "response_bytes": 6})
			}
		})
	}
}

// TestHTTP2ResetBeforeUpload: an upload that its HTTP/2 upstream gives up is over, also where its client has more to send, and sends nothing.
func TestHTTP2ResetBeforeUpload(t *testing.T) {
	var writes atomic.Int32
	addr := serveFrames(t, func(conn int, f *http2.Framer, frame http2.Frame) {
		data, ok := frame.(*http2.DataFrame)
		if !ok {
			return
		}
		writes.Add(1)
		switch kind, first := string(data.Data()), writes.Load() == 1; {
		case kind == "reset":
			_ = f.WriteRSTStream(data.StreamID, http2.ErrCodeCancel)
		case kind == "refuse" && first:
			_ = f.WriteRSTStream(data.StreamID, http2.ErrCodeRefusedStream)
		case kind == "end":
			_ = f.WriteRawFrame(frameData, 0, 0, []byte("on no stream"))
		case kind == "answer":
			writeHead(f, data.StreamID, false, ":status", "403")
			_ = f.WriteRSTStream(data.StreamID, http2.ErrCodeNo)
		default:
			writeHead(f, data.StreamID, false, ":status", "200")
			_ = f.WriteData(data.StreamID, true, []byte("ok"))
		}
	})
	for name, config := range map[string]string{"retry": "", "no retry": "retry: off, "} {
		b, seen := start(t, "defaults: {"+config+"breaker: off, tls: intercept, upstream: {insecure_skip_verify: true}}"), 0
		for _, row := range []struct {
			kind, want, outcome string
			writes              int
		}{
			{"reset", `"code":"upstream_reset"`, "upstream_reset", 1},
			{"end", `"code":"upstream_`, "upstream_", 1},
			{"refuse", map[string]string{"retry": "ok", "no retry": `"code":"upstream_reset"`}[name], map[string]string{"retry": "ok", "no retry": "upstream_reset"}[name],
				map[string]int{"retry": 2, "no retry": 1}[name]},
		} {
			for _, protocol := range []string{"h2", "http/1.1"} {
				writes.Store(0)
				var got string
				if protocol == "h2" {
					h := b.dialH2(addr)
					h.request(1, false, ":method", "POST", ":scheme", "https", ":authority", addr, ":path", "/")
					h.send(frame(frameData, 0, 1, row.kind))
					got = h.body(1)
					h.Close()
				} else {
					p := b.intercepted(addr, "http/1.1")
					p.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", addr, len(row.kind), row.kind))
					got = p.answer(http.MethodPost).body
					p.Close()
				}
				if !strings.Contains(got, row.want) || writes.Load() != int32(row.writes) {
					t.Errorf("%s, %s, %s: %q after %d writes", name, row.kind, protocol, got, writes.Load())
				}
				seen++
				r := b.records(seen)[seen-1]
				if attempts, _ := r["attempts"].([]any); !strings.HasPrefix(r.text("outcome"), row.outcome) || len(attempts) != row.writes {
					t.Errorf("%s, %s, %s: the record is %v", name, row.kind, protocol, r)
				}
			}
		}
	}
}

// TestHTTP2RefusedAgain: a write without a body that its HTTP/2 upstream refuses, or gives up by GOAWAY, before it looked at it, is sent again like one
// with a body, and not only once.
func TestHTTP2RefusedAgain(t *testing.T) {
	var writes atomic.Int32
	addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
		head, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			return
		}
		switch refused := writes.Add(1) <= 2; {
		case refused && head.PseudoValue("path") == "/refuse":
			_ = f.WriteRSTStream(head.StreamID, http2.ErrCodeRefusedStream)
		case refused:
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		default:
			h2Script{"/": {{":status", "200"}, {"ok"}}}.answer(f, head.StreamID, "/")
		}
	})
	b := start(t, "defaults: {tls: intercept, upstream: {insecure_skip_verify: true}}")
	h := b.dialH2(addr)
	post := func(stream uint32, path string) string {
		h.request(stream, true, ":method", "POST", ":scheme", "https", ":authority", addr, ":path", path)
		return h.body(stream)
	}
	writes.Store(2)
	if got := post(1, "/"); got != "ok" {
		t.Fatal(got)
	}
	for i, path := range []string{"/refuse", "/leave"} {
		writes.Store(0)
		if got := post(uint32(2*i+3), path); got != "ok" || writes.Load() != 3 {
			t.Errorf("%s: %q after %d writes", path, got, writes.Load())
		}
		r := b.records(i + 2)[i+1]
		if attempts, _ := r["attempts"].([]any); r["outcome"] != "ok" || len(attempts) != 3 {
			t.Errorf("%s: the record is %v", path, r)
		}
	}
}
