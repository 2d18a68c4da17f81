package test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream is one of the scripted upstream's, by HTTP/2.
type stream struct {
	session *session
	id      uint32
	ended   chan struct{} // closed when the proxy has given it up, or the connection is gone
	body    strings.Builder
	play    func(s *stream)
}

// session is its connection. The frames are written as they are, so that they can say what no server would.
type session struct {
	*http2.Framer
	mu     sync.Mutex // of all that is written
	fields bytes.Buffer
	hpack  *hpack.Encoder
}

// serveH2 reads frames until the connection ends, or a behaviour ends it.
func (s *scripted) serveH2(w wire) {
	defer w.Close()
	if _, err := io.ReadFull(w, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c := &session{Framer: http2.NewFramer(w, w)}
	c.ReadMetaHeaders, c.hpack = hpack.NewDecoder(4096, nil), hpack.NewEncoder(&c.fields)
	c.write(func() error { return c.WriteSettings() })
	streams := map[uint32]*stream{}
	defer func() {
		for _, st := range streams {
			close(st.ended)
		}
	}()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return
		}
		st := streams[f.Header().StreamID]
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.write(c.WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.write(func() error { return c.WritePing(true, f.Data) })
			}
		case *http2.RSTStreamFrame:
			if st != nil {
				close(st.ended)
				delete(streams, st.id)
			}
		case *http2.MetaHeadersFrame:
			st = &stream{session: c, id: f.StreamID, ended: make(chan struct{})}
			streams[st.id] = st
			s.begin(st, f, w)
			if f.StreamEnded() {
				go st.play(st)
			}
		case *http2.DataFrame:
			if st != nil {
				st.body.Write(f.Data())
				if f.StreamEnded() {
					go st.play(st)
				}
			}
		}
	}
}

// begin takes a request's head.
func (s *scripted) begin(st *stream, f *http2.MetaHeadersFrame, w wire) {
	header := http.Header{}
	for _, field := range f.RegularFields() {
		header.Add(field.Name, field.Value)
	}
	noted, n := s.note(f.PseudoValue("method"), f.PseudoValue("authority"), 2, header)
	script := f.PseudoValue("path")
	w.upstream, w.noted, w.stream = s, noted, st
	st.play = func(st *stream) {
		s.mu.Lock()
		noted.Body = st.body.String()
		s.mu.Unlock()
		if !play(script, n, w) {
			_ = w.Close()
		}
	}
}

// write writes a frame. What becomes of it shows at the other end.
func (c *session) write(f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = f()
}

// head writes an answer's head; fields are names and values.
func (st *stream) head(status int, fields ...string) {
	c := st.session
	c.write(func() error {
		c.fields.Reset()
		_ = c.hpack.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
		for i := 0; i < len(fields); i += 2 {
			_ = c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return c.WriteHeaders(http2.HeadersFrameParam{StreamID: st.id, BlockFragment: c.fields.Bytes(), EndHeaders: true})
	})
}

func (st *stream) data(text string, last bool) {
	st.session.write(func() error { return st.session.WriteData(st.id, last, []byte(text)) })
}

// answer is a whole one; lines are fields as HTTP/1.1 writes them.
func (st *stream) answer(status int, text string, lines []string) {
	fields := []string{"content-length", strconv.Itoa(len(text))}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		fields = append(fields, strings.ToLower(name), value)
	}
	st.head(status, fields...)
	st.data(text, true)
}

// end resets the stream.
func (st *stream) end(code http2.ErrCode) bool {
	st.session.write(func() error { return st.session.WriteRSTStream(st.id, code) })
	return true
}

// leave says that the connection ends, and which stream is the last that was looked at.
func (st *stream) leave(last uint32) bool {
	st.session.write(func() error { return st.session.WriteGoAway(last, http2.ErrCodeNo, nil) })
	return true
}

// onlyHTTP2 are behaviours that HTTP/1.1 has no words for.
var onlyHTTP2 = map[string]func(wire) bool{
	"refused":     func(w wire) bool { return w.stream.end(http2.ErrCodeRefusedStream) },
	"internal":    func(w wire) bool { return w.stream.end(http2.ErrCodeInternal) },
	"enhance":     func(w wire) bool { return w.stream.end(http2.ErrCodeEnhanceYourCalm) },
	"protocol":    func(w wire) bool { return w.stream.end(http2.ErrCodeProtocol) },
	"goaway":      func(w wire) bool { return w.stream.leave(0) },
	"goaway-seen": func(w wire) bool { w.stream.leave(w.stream.id); return false },
	"part-reset":  func(w wire) bool { return w.part().stream.end(http2.ErrCodeInternal) },
	"short":       func(w wire) bool { w.part().stream.data("", true); return true },
	"long": func(w wire) bool {
		w.stream.head(200, "content-length", "2")
		w.stream.data("ok, and more", true)
		return true
	},
}

// speakable tells whether a script has only words that HTTP/2 has as well.
func speakable(script string) bool {
	for word := range strings.SplitSeq(script, "/") {
		switch word {
		case "half-close", "head-cut", "head-hang", "chunk-cut", "too-long", "two-lengths", "garbage", "informed-cut":
			return false
		case "413-unread": // it closes the connection, which others may use
			return false
		}
	}
	return true
}
