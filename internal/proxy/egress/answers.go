package egress

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

// answers is an upstream connection as a transport reads HTTP/1 answers from it. It reads along and ends the connection where an answer can be read in
// two ways, and behind an answer that is followed by bytes that nobody asked for: the standard transport would take those for the next request's
// answer if that came fast enough, and print them otherwise (RFC 9112 section 6.3).
type answers struct {
	net.Conn
	mu sync.Mutex
	framing
	ended error // what every further read returns
	over  bool  // the connection itself has ended
}

// framing follows one answer to its end.
type framing struct {
	state   answerState
	head    bool   // the request's method was HEAD
	line    []byte // the beginning of a line that is not complete yet
	size    int    // of the head so far
	status  int    // 0: the status line is not complete yet
	old     bool   // HTTP/1.0
	chunked bool
	length  int64    // -1: none
	last    lineKind // of the line before, which a folded one belongs to
	options []string // what Connection said
	left    int64    // of the body, or of a chunk
}

type answerState uint8

const (
	nothing   answerState = iota // no answer is awaited
	inHead                       //
	inBody                       // with a length
	inChunk                      // data
	chunkEnd                     // the CRLF after it
	chunkLine                    // size and extensions
	inTrailer                    //
	open                         // until the connection ends, or another protocol
)

type lineKind uint8

const (
	otherLine lineKind = iota
	statusLine
	framingLine
)

// expect begins an answer. A connection on which the one before has not ended exactly is of no use any more.
func (a *answers) expect(method string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != nothing && a.ended == nil {
		a.ended = io.EOF
	}
	a.framing = framing{state: inHead, head: method == "HEAD", length: -1}
}

// Read reads what belongs to the answer.
func (a *answers) Read(p []byte) (int, error) {
	if ended := a.spent(); ended != nil {
		return 0, ended
	}
	n, err := a.Conn.Read(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = a.over || err != nil
	if a.ended != nil {
		return 0, a.ended
	}
	used, bad := a.follow(p[:n])
	switch {
	case bad != nil:
		a.ended = bad
	case used < n:
		a.ended = io.EOF
	default:
		return n, err
	}
	if used == 0 {
		return 0, a.ended
	}
	return used, nil
}

// Write refuses a connection that is spent before a byte of the request is on it.
func (a *answers) Write(p []byte) (int, error) {
	if a.spent() != nil {
		return 0, net.ErrClosed
	}
	return a.Conn.Write(p)
}

// spend keeps another request from being written.
func (a *answers) spend() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended == nil {
		a.ended = io.EOF
	}
}

func (a *answers) spent() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

// cutShort tells whether the connection ended within a head.
func (a *answers) cutShort() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over && a.state == inHead && len(a.line) > 0
}

// connection is what the answer's Connection fields said, which net/http takes away where they say close.
func (a *answers) connection() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.options
}

// follow returns how many bytes of p belong to the answer, and what is wrong with those that follow.
func (f *framing) follow(p []byte) (used int, bad error) {
	for used < len(p) {
		switch f.state {
		case nothing:
			return used, nil
		case open:
			return len(p), nil
		case inBody, inChunk:
			take := min(int64(len(p)-used), f.left)
			used += int(take)
			if f.left -= take; f.left > 0 {
				continue
			}
			if f.state == inChunk {
				f.state = chunkEnd
			} else {
				f.state = nothing
			}
		default:
			end := bytes.IndexByte(p[used:], '\n')
			if end < 0 {
				return len(p), f.keep(p[used:])
			}
			if bad = f.whole(p[used : used+end]); bad != nil {
				return used, bad
			}
			used += end + 1
		}
	}
	return used, nil
}

// keep remembers the beginning of a line.
func (f *framing) keep(p []byte) error {
	if f.line = append(f.line, p...); len(f.line) > maxHead || f.state != inHead && len(f.line) > maxChunkLine {
		return malformed("a line of the upstream's answer is longer than this proxy accepts")
	}
	return nil
}

// maxChunkLine bounds a chunk's size line with its extensions, and each trailer line.
const maxChunkLine = 64 << 10

// whole takes a line to its end.
func (f *framing) whole(p []byte) error {
	if len(f.line) > 0 {
		p = append(f.line, p...)
		f.line = f.line[:0]
	}
	p = bytes.TrimSuffix(p, []byte{'\r'})
	switch f.state {
	case inHead:
		if f.size += len(p) + 2; f.size > maxHead {
			return wire.ErrLongHead
		}
		return f.headLine(p)
	case chunkEnd:
		if len(p) > 0 {
			return malformed("a chunk of the upstream's answer is longer than it says")
		}
		f.state = chunkLine
	case chunkLine:
		return f.chunkSize(p)
	case inTrailer:
		if len(p) == 0 {
			f.state = nothing
		}
	}
	return nil
}

func (f *framing) headLine(line []byte) error {
	switch {
	case f.status == 0:
		return f.statusLine(line)
	case len(line) == 0:
		return f.headEnd()
	case line[0] == ' ' || line[0] == '\t':
		if f.last != otherLine {
			return malformed("a field that frames the upstream's answer is folded over several lines")
		}
		return nil // net/http puts a space in the fold's place (RFC 9112 section 5.2)
	}
	f.last = otherLine
	name, value, _ := bytes.Cut(line, []byte{':'}) // a line without is net/http's to refuse
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "content-length"):
		return f.contentLength(value)
	case is(name, "transfer-encoding"):
		f.last = framingLine
		if f.chunked || !bytes.EqualFold(value, []byte("chunked")) {
			return wire.ErrCoding
		}
		f.chunked = true
	case is(name, "connection"):
		f.last = framingLine
		if !is(value, "keep-alive") { // which names nothing, and is said by many
			f.options = append(f.options, string(value))
		}
	case len(name) > 0 && (name[len(name)-1] == ' ' || name[len(name)-1] == '\t'):
		return malformed("a field name of the upstream's answer is followed by white space")
	}
	return nil
}

func is(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

// statusLine reads the version and the number; whatever else may be wrong with the line is net/http's to refuse.
func (f *framing) statusLine(line []byte) error {
	version, rest, _ := strings.Cut(string(line), " ")
	number, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	f.last = statusLine
	f.old = version == "HTTP/1.0"
	for i := range len(number) {
		if len(number) != 3 || number[i] < '0' || number[i] > '9' {
			f.status = -1
			return nil
		}
		f.status = f.status*10 + int(number[i]-'0')
	}
	if f.status < 100 {
		return malformed("the status of the upstream's answer is none")
	}
	if strings.HasPrefix(version, "HTTP/0") {
		return malformed("the upstream's answer is of a version that is none")
	}
	return nil
}

func (f *framing) contentLength(value []byte) error {
	f.last = framingLine
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' || len(value) > 18 {
			return malformed("the Content-Length of the upstream's answer is not a number")
		}
		n = n*10 + int64(c-'0')
	}
	if len(value) == 0 || f.length >= 0 && f.length != n {
		return malformed("the upstream's answer has two different lengths, or an empty one")
	}
	f.length = n
	return nil
}

// headEnd decides what follows the head (RFC 9112 section 6.3).
func (f *framing) headEnd() error {
	switch {
	case f.chunked && f.length >= 0:
		return malformed("the upstream's answer has both Content-Length and Transfer-Encoding")
	case f.chunked && f.old:
		return malformed("the upstream's answer is of HTTP/1.0 and has a Transfer-Encoding")
	case f.status == 101:
		f.state = open
	case f.status >= 100 && f.status < 200:
		*f = framing{state: inHead, head: f.head, length: -1, size: f.size}
	case f.head, f.status == 204, f.status == 304, !f.chunked && f.length == 0:
		f.state = nothing
	case f.chunked:
		f.state = chunkLine
	case f.length > 0:
		f.state, f.left = inBody, f.length
	default:
		f.state = open
	}
	return nil
}

func (f *framing) chunkSize(line []byte) error {
	digits, _, _ := bytes.Cut(line, []byte{';'})
	digits = bytes.TrimRight(digits, " \t")
	if len(digits) == 0 || len(digits) > 15 {
		return malformed("a chunk of the upstream's answer has no size")
	}
	var n int64
	for _, c := range digits {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if digit < 0 || c < '0' {
			return malformed("a chunk of the upstream's answer has no size")
		}
		n = n<<4 | int64(digit)
	}
	if f.state, f.left = inChunk, n; n == 0 {
		f.state = inTrailer
	}
	return nil
}

func malformed(detail string) error {
	return &exchange.Failure{Code: exchange.UpstreamProtocol, Sent: true, Detail: detail}
}
