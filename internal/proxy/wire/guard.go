package wire

import (
	"bytes"
	"io"
	"time"

	"httpowerd/internal/exchange"
)

// Guard reads along with an HTTP/1 server and lets only whole request heads through that can be read in exactly one way. The standard server
// behind it forgives more than a proxy may (RFC 9112 sections 2.2, 5.1, 5.2, 6.1, 6.3): it unfolds lines, takes bare LF and drops a Content-Length
// beside Transfer-Encoding. Bodies pass as they come; Guard follows their framing only to find the next head.
type Guard struct {
	MaxHead int // bytes of a request head
	state   guardState
	scan    headScan  // of the head that is not complete yet
	judged  int       // how much of that head is lines that scan has taken in
	left    int64     // of a body with Content-Length, or of the chunk
	held    []byte    // a head that is not complete yet, or bytes that were cleared but not fetched
	cleared int       // how many of held may go
	line    int       // length of the chunk-size or trailer line so far
	size    int64     // the chunk size so far
	seen    byte      // where in a chunk's framing
	Due     time.Time // when the head that is not complete must be; for whoever reads
}

type guardState uint8

const (
	inHead guardState = iota
	inBody
	inChunks
	off    // opaque from here: after CONNECT or a WebSocket upgrade
	broken // a chunked body lost its framing; nothing after it can be trusted
	refused
)

// maxChunkLine bounds a chunk-size line with its extensions, and each trailer line.
const maxChunkLine = 4096

// next takes bytes just read (they may be changed in place) and returns how many of them may be passed on at once. Where that is less than all, the rest
// is in g.held. A refusal means that the head which begins there must not be served.
func (g *Guard) next(p []byte) (n int, refusal *exchange.Refusal) {
	for n < len(p) {
		switch g.state {
		case off:
			return len(p), nil
		case broken, refused:
			return n, nil
		case inBody:
			take := min(int64(len(p)-n), g.left)
			n += int(take)
			if g.left -= take; g.left == 0 {
				g.state = inHead
			}
		case inChunks:
			n += g.chunks(p[n:])
		case inHead:
			skip, used, complete, bad := g.head(p[n:])
			if bad != nil {
				g.state = refused
				return n, bad
			}
			if !complete {
				g.held = append(g.held, p[n:]...)
				return n, nil
			}
			if skip > 0 {
				p = append(p[:n], p[n+skip:]...)
			}
			n += used
		}
	}
	return n, nil
}

// head judges the head at the start of p. used is its length, and skip that of an empty line before it, which is not for the server behind. Of one that is not complete it remembers the
// lines: they are not judged again.
func (g *Guard) head(p []byte) (skip, used int, complete bool, refusal *exchange.Refusal) {
	limit := p
	if len(limit) > g.MaxHead {
		limit = limit[:g.MaxHead]
	}
	h := &g.scan
	rest := limit[g.judged:]
	for {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			if len(p) >= g.MaxHead {
				return 0, 0, false, h.tooLarge()
			}
			g.judged = len(limit) - len(rest)
			return 0, 0, false, h.partial(rest)
		}
		line := rest[:end]
		rest = rest[end+1:]
		if end == 0 || line[end-1] != '\r' {
			return 0, 0, false, h.refuse(line, "a line ends without a carriage return")
		}
		line = line[:end-1]
		if len(line) > 0 {
			refusal = h.add(line)
		} else {
			complete, refusal = h.emptyLine()
		}
		if refusal != nil {
			return 0, 0, false, refusal
		}
		if complete {
			break
		}
	}
	if refusal := h.finish(); refusal != nil {
		return 0, 0, false, refusal
	}
	g.follow(h)
	if h.blank {
		skip = len(crlf)
	}
	g.scan, g.judged = headScan{}, 0
	return skip, len(limit) - len(rest) - skip, true, nil
}

// follow sets what comes after the head.
func (g *Guard) follow(h *headScan) {
	g.Due = time.Time{}
	switch {
	case h.connect, h.upgrades():
		g.state = off
	case h.chunked:
		g.state, g.seen, g.line, g.size = inChunks, chunkSize, 0, 0
	case h.length > 0:
		g.state, g.left = inBody, h.length
	}
}

// The places in a chunked body (RFC 9112 section 7.1).
const (
	chunkSize byte = iota
	chunkExt
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerLine
	trailerLF
	lastLF
)

// chunks follows a chunked body and returns how many bytes of p belong to it and kept its framing.
func (g *Guard) chunks(p []byte) int {
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch g.seen {
		case chunkSize, chunkExt, chunkSizeLF:
			if !g.sizeLine(c) {
				return g.lost(i)
			}
		case chunkData:
			take := min(int64(len(p)-i), g.left)
			i += int(take) - 1
			if g.left -= take; g.left == 0 {
				g.seen = chunkDataCR
			}
		case chunkDataCR:
			if c != '\r' {
				return g.lost(i)
			}
			g.seen = chunkDataLF
		case chunkDataLF:
			if c != '\n' {
				return g.lost(i)
			}
			g.seen, g.line, g.size = chunkSize, 0, 0
		default:
			done, ok := g.trailer(c)
			if !ok {
				return g.lost(i)
			}
			if done {
				g.state = inHead
				return i + 1
			}
		}
	}
	return len(p)
}

func (g *Guard) lost(i int) int {
	g.state = broken
	return i
}

func (g *Guard) sizeLine(c byte) bool {
	if g.line++; g.line > maxChunkLine {
		return false
	}
	switch {
	case g.seen == chunkSizeLF:
		if c != '\n' {
			return false
		}
		if g.size == 0 {
			g.seen, g.line = trailerStart, 0
		} else {
			g.seen, g.left = chunkData, g.size
		}
	case c == '\r':
		if g.line == 1 {
			return false
		}
		g.seen = chunkSizeLF
	case g.seen == chunkExt:
		return c >= ' ' && c != 0x7f || c == '\t'
	case c == ';' || c == ' ' || c == '\t':
		if g.line == 1 {
			return false
		}
		g.seen = chunkExt
	default:
		digit := hexDigit(c)
		if digit < 0 || g.line > 15 { // 15 digits cannot overflow
			return false
		}
		g.size = g.size<<4 | int64(digit)
	}
	return true
}

func (g *Guard) trailer(c byte) (done, ok bool) {
	if g.line++; g.line > maxChunkLine {
		return false, false
	}
	switch g.seen {
	case trailerStart:
		if c == '\r' {
			g.seen = lastLF
			return false, true
		}
		g.seen = trailerLine
		return false, isToken(c)
	case trailerLine:
		if c == '\r' {
			g.seen = trailerLF
			return false, true
		}
		return false, c != '\n' && c != 0
	case trailerLF:
		g.seen, g.line = trailerStart, 0
		return false, c == '\n'
	default:
		return true, c == '\n'
	}
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// fetch moves cleared bytes to p.
func (g *Guard) fetch(p []byte) int {
	n := copy(p, g.held[:g.cleared])
	g.held, g.cleared = g.held[n:], g.cleared-n
	if len(g.held) == 0 {
		g.held = nil
	}
	return n
}

// Read reads from r by way of the guard. replace gives the bytes to serve in place of a head that was refused.
func (g *Guard) Read(r io.Reader, p []byte, replace func(*exchange.Refusal) []byte) (int, error) {
	for {
		if g.cleared > 0 {
			return g.fetch(p), nil
		}
		switch g.state {
		case broken:
			return 0, ErrFraming
		case refused:
			return 0, io.EOF
		case off:
			return r.Read(p)
		}
		if len(g.held) > 0 {
			if err := g.more(r, replace); err != nil {
				return 0, err
			}
			continue
		}
		n, err := r.Read(p)
		if n == 0 {
			return 0, err
		}
		ok, refusal := g.next(p[:n])
		if refusal != nil {
			g.held = append(g.held[:0], replace(refusal)...)
			g.cleared = len(g.held)
		}
		if ok > 0 {
			return ok, err
		}
		if err != nil && g.cleared == 0 {
			return 0, err
		}
	}
}

// more reads on into a head that is not complete.
func (g *Guard) more(r io.Reader, replace func(*exchange.Refusal) []byte) error {
	have := len(g.held)
	g.held = append(g.held, make([]byte, max(512, min(have, 8192)))...)
	n, err := r.Read(g.held[have:])
	g.held = g.held[:have+n]
	if n == 0 {
		return err
	}
	if len(g.held) < g.MaxHead && have > g.judged && bytes.IndexByte(g.held[have:], '\n') < 0 {
		return nil // nothing new to judge: a head that drips in byte by byte is not scanned byte by byte
	}
	p := g.held
	skip, ok, complete, refusal := g.head(p)
	switch {
	case refusal != nil:
		g.state = refused
	case !complete:
		return nil
	default:
		var n int
		g.held = nil
		p = p[skip:]
		n, refusal = g.next(p[ok:])
		ok += n
	}
	if refusal != nil {
		g.held = append(p[:ok:ok], replace(refusal)...)
		g.cleared = len(g.held)
		return nil
	}
	g.held, g.cleared = append(p[:ok:ok], g.held...), ok // what next held back is a copy of p[ok:]
	return nil
}

// Waiting tells whether a head has begun and is not complete.
func (g *Guard) Waiting() bool { return len(g.held) > 0 && g.cleared == 0 }

// Opaque ends the guard: what follows is not HTTP. It returns what was read ahead.
func (g *Guard) Opaque() []byte {
	ahead := g.held
	*g = Guard{state: off}
	return ahead
}

// Lost tells whether the client sent what nothing can be read behind.
func (g *Guard) Lost() bool { return g.state == refused || g.state == broken }
