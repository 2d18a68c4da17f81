package wire

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"unsafe"

	"httpowerd/internal/exchange"
)

// answer is one answer of an upstream: its response, its body, and what both need, in one allocation.
type answer struct {
	resp   http.Response
	c      *upConn
	watch  exchange.Heir // of the request's context
	up     *upload       // nil: the request was written whole before the answer was awaited
	values [12]string

	left    int64 // of the body or the chunk
	maxHead int
	sticky  error

	head     bool // the request's method was HEAD
	begun    bool // a byte of an answer came
	framing  framing
	place    uint8 // in a chunked body
	keep     bool  // the upstream keeps the connection
	watched  bool
	finished bool // the connection is in other hands
	lent     bool // its memory is in use
	busy     atomic.Int32

	trailered int32 // bytes of trailers so far
}

// Room is memory for an answer.
type Room struct{ answer answer }

func (m *Room) take() *answer {
	if m == nil || m.answer.lent {
		return new(answer)
	}
	m.answer.lent = true
	return &m.answer
}

// framing is how the end of a body is found (RFC 9112 section 6.3).
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	byClose
)

// What may be wrong with a head, and has an error type of its own in RFC 9209.
var (
	ErrLongHead = &exchange.Failure{Code: exchange.UpstreamProtocol, Sent: true, Detail: "the head of the upstream's answer is longer than this proxy accepts",
		ProxyStatus: "http_response_header_section_size"}
	ErrCoding = &exchange.Failure{Code: exchange.UpstreamProtocol, Sent: true, Detail: "the upstream's answer has a transfer coding other than chunked",
		ProxyStatus: "http_response_transfer_coding"}
)

// What else may be wrong with it.
var (
	errNoStatus     = malformed("the status line of the upstream's answer is malformed")
	errStatus       = malformed("the status of the upstream's answer is none")
	errVersion      = malformed("the upstream's answer is of a version that is none")
	errFoldedKey    = malformed("a field that frames the upstream's answer is folded over several lines")
	errAnswerKey    = malformed("a header line of the upstream's answer is malformed")
	errSpaceKey     = malformed("a field name of the upstream's answer is followed by white space")
	errValue        = malformed("a header field of the upstream's answer has a character that none may have")
	errLength       = malformed("the Content-Length of the upstream's answer is not a number")
	errLengths      = malformed("the upstream's answer has two different lengths, or an empty one")
	errBoth         = malformed("the upstream's answer has both Content-Length and Transfer-Encoding")
	errOldCoding    = malformed("the upstream's answer is of HTTP/1.0 and has a Transfer-Encoding")
	errTrailers     = malformed("the upstream's answer announces a trailer that none may have")
	errManyTrailers = malformed("the upstream's answer has more trailers than this proxy accepts")
	errCutShort     = &exchange.Failure{Code: exchange.UpstreamReset, Detail: "the upstream closed the connection before its answer was complete", Sent: true}
)

// reset makes room for the next answer, after a 1xx.
func (a *answer) reset() {
	a.resp = http.Response{}
	a.values = [12]string{} // those of the first are in other hands only while it is passed on
}

// readHead reads a head into a.resp.
func (a *answer) readHead(most int) error {
	a.maxHead = most
	c := a.c
	from := 0 // where the search for the end goes on, behind c.r
	for {
		if end := headEnd(c.in.b[c.r:c.w], from); end > 0 {
			if end > most {
				return ErrLongHead
			}
			head := c.in.b[c.r : c.r+end]
			c.r += end
			a.begun = true
			return a.parse(head)
		}
		have := c.w - c.r
		a.begun = a.begun || have > 0
		if early := c.in.b[c.r:min(c.w, c.r+len(prefix))]; string(early) != prefix[:len(early)] {
			return errNoStatus // what speaks another protocol may say no more before it is answered
		}
		if have > most {
			return ErrLongHead
		}
		from = max(0, have-3)
		if err := c.fill(); err != nil {
			if err == io.EOF && have > 0 {
				return errCutShort
			}
			return err
		}
	}
}

// prefix begins every answer.
const prefix = "HTTP/"

// headEnd is the length of the head at the start of b, its empty line included; 0: it is not complete.
func headEnd(b []byte, from int) int {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0
		}
		i += from
		switch rest := b[i+1:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		case i == 0, i == 1 && b[0] == '\r': // an empty line in the status line's place; parse says so
			return i + 1
		}
		from = i + 1
	}
}

// fields is what a head's lines say of the framing.
type fields struct {
	old     bool
	chunked bool
	length  int64 // -1: none
	digits  int   // of length, as it is written
	close   bool
	alive   bool // keep-alive, which HTTP/1.0 needs to be told
}

// usualFields is for how many a head's table is made: lines of one name need no more than one place.
const usualFields = 64

// MaxTrailers is how many names of trailers a message may have: nobody has that many, and net/http searches all of them for each.
const MaxTrailers = 500

// parse reads a whole head. All strings of it are cut from one copy.
func (a *answer) parse(head []byte) error {
	head, err := unfold(head)
	if err != nil {
		return err
	}
	text := string(head)
	line, rest := nextLine(text)
	f := fields{length: -1}
	if err := a.statusLine(line, &f); err != nil {
		return err
	}
	n := strings.Count(rest, "\n") - 1
	var seen sieve
	header := make(http.Header, min(max(n, 0), usualFields)+2) // the front adds two
	a.resp.Header = header
	values := a.values[:0]
	if n > len(a.values) {
		values = make([]string, 0, n)
	}
	for {
		line, rest = nextLine(rest)
		if line == "" {
			break
		}
		colon := strings.IndexByte(line, ':')
		if colon <= 0 {
			return errAnswerKey
		}
		name := line[:colon]
		if last := name[colon-1]; last == ' ' || last == '\t' {
			return errSpaceKey
		}
		name, ok := canonical(name)
		if !ok {
			return errAnswerKey
		}
		value := trim(line[colon+1:])
		if !validValue(value) {
			return errValue
		}
		if keep, err := f.see(name, value); err != nil {
			return err
		} else if !keep {
			continue
		}
		if seen.before(name) {
			if had, ok := header[name]; ok {
				header[name] = append(had, value)
				continue
			}
		}
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return a.decide(&f)
}

// nextLine cuts a line off, without its end.
func nextLine(s string) (line, rest string) {
	i := strings.IndexByte(s, '\n')
	line, rest = s[:i], s[i+1:]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, rest
}

// statusLine reads version and number (RFC 9112 section 4).
func (a *answer) statusLine(line string, f *fields) error {
	version, status, ok := strings.Cut(line, " ")
	if !ok {
		return errNoStatus
	}
	status = strings.TrimLeft(status, " ")
	number, _, _ := strings.Cut(status, " ")
	if len(number) != 3 {
		return errNoStatus
	}
	code := 0
	for i := range len(number) {
		if number[i] < '0' || number[i] > '9' {
			return errNoStatus
		}
		code = code*10 + int(number[i]-'0')
	}
	if code < 100 {
		return errStatus
	}
	switch {
	case version == "HTTP/1.1":
	case version == "HTTP/1.0":
		f.old = true
	case len(version) == 8 && version[:5] == "HTTP/" && version[6] == '.' && version[5] == '1' && version[7] >= '2' && version[7] <= '9': // a later minor version
	case strings.HasPrefix(version, "HTTP/"):
		return errVersion
	default:
		return errNoStatus
	}
	if !validValue(status) {
		return errNoStatus
	}
	a.resp.Status, a.resp.StatusCode = status, code
	a.resp.Proto, a.resp.ProtoMajor, a.resp.ProtoMinor = "HTTP/1.1", 1, 1
	if f.old {
		a.resp.Proto, a.resp.ProtoMinor = "HTTP/1.0", 0
	}
	return nil
}

// see looks at the fields that frame the message, or end the connection. keep: the field is for the header too.
func (f *fields) see(name, value string) (keep bool, err error) {
	switch name {
	case "Content-Length":
		n, err := length(value)
		if err != nil {
			return false, err
		}
		if f.length >= 0 {
			if f.length != n || f.digits != len(value) { // 2 and 02 are not the same to everybody
				return false, errLengths
			}
			return false, nil
		}
		f.length, f.digits = n, len(value)
	case "Transfer-Encoding":
		if f.chunked || !EqualFold(value, "chunked") {
			return false, ErrCoding
		}
		f.chunked = true
		return false, nil
	case "Connection":
		f.close = f.close || HasMember(value, "close")
		f.alive = f.alive || HasMember(value, "keep-alive")
	}
	return true, nil
}

func length(value string) (int64, error) {
	if value == "" {
		return 0, errLengths
	}
	if len(value) > 18 {
		return 0, errLength
	}
	var n int64
	for i := range len(value) {
		c := value[i]
		if c < '0' || c > '9' {
			return 0, errLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// decide chooses the body's framing (RFC 9112 section 6.3) and whether the connection lives on (section 9.3).
func (a *answer) decide(f *fields) error {
	r := &a.resp
	switch {
	case f.chunked && f.length >= 0:
		return errBoth
	case f.chunked && f.old:
		return errOldCoding
	}
	a.keep = !f.close && (!f.old || f.alive)
	r.ContentLength = f.length
	status := r.StatusCode
	switch {
	case status == http.StatusSwitchingProtocols:
		a.framing, a.keep = byClose, false
	case status < 200, status == http.StatusNoContent, status == http.StatusNotModified:
		a.framing, r.ContentLength = noBody, 0
	case a.head:
		a.framing = noBody
	case f.chunked:
		a.framing, r.ContentLength = byChunks, -1
	case f.length == 0:
		a.framing = noBody
	case f.length > 0:
		a.framing, a.left = byLength, f.length
	default:
		a.framing, a.keep = byClose, false
	}
	r.Close = !a.keep
	if f.chunked {
		r.TransferEncoding = chunkedCoding
		return a.announced()
	}
	return nil
}

var chunkedCoding = []string{"chunked"}

// announced moves the names of Trailer to the response's Trailer.
func (a *answer) announced() error {
	lines, ok := a.resp.Header["Trailer"]
	if !ok {
		return nil
	}
	delete(a.resp.Header, "Trailer")
	trailer := http.Header{}
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(trim(name))
			switch name {
			case "":
				continue
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return errTrailers
			}
			if trailer[name] = nil; len(trailer) > MaxTrailers {
				return errManyTrailers
			}
		}
	}
	if len(trailer) > 0 {
		a.resp.Trailer = trailer
	}
	return nil
}

// unfold puts a space in the place of each line fold (RFC 9112 section 5.2). A status line, or a field that frames the message, is not forgiven.
func unfold(head []byte) ([]byte, error) {
	if !folds(head) {
		return head, nil
	}
	out := make([]byte, 0, len(head))
	field, line, end := 0, 0, 0 // where the field, and its last line's text, begin, and where that ends
	for len(head) > 0 {
		n := bytes.IndexByte(head, '\n') + 1
		text, eol := cutEnd(head[:n])
		head = head[n:]
		if len(out) == 0 || !isFold(text) {
			field = len(out)
		} else {
			out = out[:line+len(bytes.TrimRight(out[line:end], " \t"))]
			if line == field { // the first fold
				name, _, _ := bytes.Cut(out[field:], []byte{':'})
				switch {
				case field == 0, EqualFold(name, "content-length"), EqualFold(name, "transfer-encoding"), EqualFold(name, "connection"):
					return nil, errFoldedKey
				case len(out) == field:
					return nil, errAnswerKey // there is nothing that could be continued
				}
			}
			out = append(out, ' ')
			text = bytes.TrimLeft(text, " \t") // white space behind it stays: a bare CR before that must not come to end the line
		}
		line = len(out)
		out = append(out, text...)
		end = len(out)
		out = append(out, eol...)
	}
	return out, nil
}

// folds tells whether some line goes on in the next one.
func folds(head []byte) bool {
	for {
		n := bytes.IndexByte(head, '\n') + 1
		if n == len(head) {
			return false
		}
		if head = head[n:]; isFold(head) {
			return true
		}
	}
}

func isFold(line []byte) bool { return len(line) > 0 && (line[0] == ' ' || line[0] == '\t') }

// cutEnd cuts what ends a line off. A bare CR before it stays, and is refused with the value.
func cutEnd(line []byte) (text, end []byte) {
	n := len(line) - 1
	if n > 0 && line[n-1] == '\r' {
		n--
	}
	return line[:n], line[n:]
}

// canonical is the name as http.Header keys it; false: it has a character that none may have.
func canonical(name string) (string, bool) {
	upper := true
	same := true
	for i := range len(name) {
		c := name[i]
		if !isToken(c) {
			return "", false
		}
		if upper && 'a' <= c && c <= 'z' || !upper && 'A' <= c && c <= 'Z' {
			same = false
		}
		upper = c == '-'
	}
	if same {
		return name, true
	}
	if known, ok := commonNames[name]; ok {
		return known, true
	}
	b := []byte(name)
	upper = true
	for i, c := range b {
		switch {
		case upper && 'a' <= c && c <= 'z':
			b[i] = c - 'a' + 'A'
		case !upper && 'A' <= c && c <= 'Z':
			b[i] = c - 'A' + 'a'
		}
		upper = c == '-'
	}
	return unsafe.String(&b[0], len(b)), true
}

// commonNames spares allocations for lower-case names that many servers send.
var commonNames = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{"Accept-Ranges", "Access-Control-Allow-Origin", "Age", "Alt-Svc", "Cache-Control", "Connection", "Content-Encoding",
		"Content-Language", "Content-Length", "Content-Type", "Date", "Etag", "Expires", "Keep-Alive", "Last-Modified", "Link", "Location", "Ratelimit",
		"Ratelimit-Limit", "Ratelimit-Policy", "Ratelimit-Remaining", "Ratelimit-Reset", "Retry-After", "Server", "Set-Cookie", "Strict-Transport-Security",
		"Transfer-Encoding", "Vary", "Via", "X-Content-Type-Options", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "X-Request-Id"} {
		m[strings.ToLower(name)] = name
	}
	return m
}()
