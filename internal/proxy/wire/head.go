package wire

import (
	"bytes"
	"net/http"
	"net/url"

	"httpowerd/internal/exchange"
	"httpowerd/internal/swar"
)

// maxFields bounds the header lines of one request.
const maxFields = 500

// headScan is what is known of a head while its lines come in.
type headScan struct {
	lines     int
	blank     bool // an empty line came first
	old       bool // HTTP/1.0
	connect   bool
	get       bool
	hasHost   bool
	chunked   bool
	digits    int // of Content-Length; 0: there is none
	length    int64
	upgrade   bool // Connection has the token
	protocols int  // lines of Upgrade
	websocket bool // the last of them is exactly that
}

// upgrades tells whether the connection may leave HTTP after this head. wantsWebSocket asks the same of the request that the server makes of it.
func (h *headScan) upgrades() bool {
	return h.get && !h.old && h.upgrade && h.protocols == 1 && h.websocket && !h.chunked && h.length == 0
}

// mayLeave tells whether the handler may take the connection over.
func (h *headScan) mayLeave() bool { return h.connect || h.protocols > 0 }

// RefuseHead is a refusal of a head that cannot be read in exactly one way.
func RefuseHead(detail string) *exchange.Refusal {
	return &exchange.Refusal{Code: exchange.BadRequest, Detail: detail, Close: true}
}

func (h *headScan) tooLarge() *exchange.Refusal { return refuseLarge(h.lines == 0) }

func refuseLarge(target bool) *exchange.Refusal {
	status, what := http.StatusRequestHeaderFieldsTooLarge, "the request head"
	if target {
		status, what = http.StatusRequestURITooLong, "the request target"
	}
	return &exchange.Refusal{Code: exchange.TooLarge, Status: status, Detail: what + " is longer than this proxy accepts", Close: true}
}

func refuseMany() *exchange.Refusal {
	return &exchange.Refusal{Code: exchange.TooLarge, Status: http.StatusRequestHeaderFieldsTooLarge, Detail: "the request has too many header fields", Close: true}
}

// CheckSize refuses a request of HTTP/2 whose head is longer than limit, or has more fields, as HTTP/1.1 would write it.
func CheckSize(r *http.Request, limit int) error {
	size, fields := len(r.Method)+len(r.RequestURI), 0
	if size > limit {
		return refuseLarge(true)
	}
	for name, values := range r.Header {
		fields += len(values)
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	switch {
	case size > limit:
		return refuseLarge(false)
	case fields > maxFields:
		return refuseMany()
	}
	return nil
}

// emptyLine takes an empty line in: done, it ends the head. One in front of the request line counts for nothing (RFC 9112 section 2.2): old clients send it behind a body.
func (h *headScan) emptyLine() (done bool, refusal *exchange.Refusal) {
	switch {
	case h.lines > 0:
		return true, nil
	case h.blank:
		return false, RefuseHead("the request line is malformed")
	}
	h.blank = true
	return false, nil
}

// partial refuses early what can never become a head, so that a stream of garbage is not waited for.
func (h *headScan) partial(p []byte) *exchange.Refusal {
	if h.lines == 0 && len(p) > 0 && !isToken(p[0]) && p[0] != '\r' {
		return h.refuse(p, "this is not an HTTP request")
	}
	return nil
}

// refuse refuses a line. A ClientHello, which has line feeds by chance, comes of a proxy's URL with the wrong scheme, and its record should say so.
func (h *headScan) refuse(line []byte, detail string) *exchange.Refusal {
	const handshake = 0x16 // the first byte of TLS
	if h.lines <= 1 && len(line) > 0 && line[0] == handshake {
		detail = "the client speaks TLS to a listener without: write http:// in the proxy's URL"
	}
	return RefuseHead(detail)
}

func (h *headScan) add(line []byte) *exchange.Refusal {
	h.lines++
	if h.lines == 1 {
		return h.requestLine(line)
	}
	if h.lines > maxFields {
		return refuseMany()
	}
	if line[0] == ' ' || line[0] == '\t' {
		return RefuseHead("a header field is folded over several lines")
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return RefuseHead("a header line has no field name")
	}
	name, value := line[:colon], line[colon+1:]
	plain := isPlain(name)
	if !plain && !isTokens(name) {
		return RefuseHead("a header field name has a character that none may have")
	}
	if !validValue(value) {
		return RefuseHead("a header field value has a control character")
	}
	if !plain && bytes.ContainsAny(name, "_.") && AliasesFraming(name) {
		return RefuseHead("a header field name imitates one that frames the message")
	}
	return h.field(name, trim(value))
}

// field looks at the few fields that decide the framing, and at what the server behind would refuse in words of its own.
func (h *headScan) field(name, value []byte) *exchange.Refusal {
	switch len(name) {
	case len("Host"):
		if EqualFold(name, "host") {
			return h.host(value)
		}
	case len("Expect"):
		if EqualFold(name, "expect") {
			return h.expect(value)
		}
	case len("Upgrade"):
		if EqualFold(name, "upgrade") {
			h.protocols++
			h.websocket = EqualFold(value, "websocket")
		}
	case len("Connection"):
		if EqualFold(name, "connection") {
			h.upgrade = h.upgrade || HasMember(value, "upgrade")
		}
	case len("Content-Length"): // and no other name of interest
		if EqualFold(name, "content-length") {
			return h.contentLength(value)
		}
	case len("Transfer-Encoding"):
		if EqualFold(name, "transfer-encoding") {
			return h.transferEncoding(value)
		}
	}
	return nil
}

func (h *headScan) host(value []byte) *exchange.Refusal {
	if h.hasHost {
		return RefuseHead("the request has two Host fields")
	}
	for _, c := range value {
		if c >= 128 || !hostChars[c] {
			return RefuseHead("the Host field has a character that no host may have")
		}
	}
	h.hasHost = true
	return nil
}

// expect refuses what cannot be met (RFC 9110 section 10.1.1); HTTP/1.0 does not know the field.
func (h *headScan) expect(value []byte) *exchange.Refusal {
	if h.old || len(value) == 0 || EqualFold(value, "100-continue") {
		return nil
	}
	return RefuseExpectation()
}

// RefuseExpectation is a refusal of an expectation other than 100-continue.
func RefuseExpectation() *exchange.Refusal {
	return &exchange.Refusal{Code: exchange.Unsupported, Status: http.StatusExpectationFailed,
		Detail: "the only expectation supported is 100-continue", Close: true}
}

func (h *headScan) contentLength(value []byte) *exchange.Refusal {
	if len(value) == 0 || len(value) > 18 {
		return RefuseHead("Content-Length is not a number")
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return RefuseHead("Content-Length is not a number")
		}
		n = n*10 + int64(c-'0')
	}
	if h.digits > 0 && (n != h.length || len(value) != h.digits) { // 2 and 02 are not the same to everybody
		return RefuseHead("the request has two different Content-Length fields")
	}
	h.digits, h.length = len(value), n
	return nil
}

func (h *headScan) transferEncoding(value []byte) *exchange.Refusal {
	if h.chunked {
		return RefuseHead("the request has two Transfer-Encoding fields")
	}
	if len(value) == 0 {
		return RefuseHead("Transfer-Encoding names no coding")
	}
	if !EqualFold(value, "chunked") {
		return &exchange.Refusal{Code: exchange.Unsupported, Status: http.StatusNotImplemented, Detail: "the only transfer coding supported is chunked", Close: true}
	}
	h.chunked = true
	return nil
}

func (h *headScan) requestLine(line []byte) *exchange.Refusal {
	method, rest, ok := bytes.Cut(line, []byte{' '})
	target, version, ok2 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 || len(method) == 0 || len(target) == 0 {
		return h.refuse(line, "the request line is malformed")
	}
	for _, c := range method {
		if !isToken(c) {
			return h.refuse(line, "the method has a character that none may have")
		}
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f || c == '#' {
			return RefuseHead("the request target has a character that none may have")
		}
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.old = true
	default:
		if bytes.HasPrefix(version, []byte("HTTP/")) {
			return &exchange.Refusal{Code: exchange.Unsupported, Status: http.StatusHTTPVersionNotSupported, Detail: "this listener speaks HTTP/1.0 and HTTP/1.1", Close: true}
		}
		return RefuseHead("the request line is malformed")
	}
	h.connect, h.get = string(method) == http.MethodConnect, string(method) == http.MethodGet
	if !plainTarget(target) && !parses(target, h.connect) {
		return RefuseHead("the request target is malformed")
	}
	return nil
}

// plainTarget tells whether the target is one of those that every parser takes, as nearly all are: an absolute path, or a URL with nothing but a name
// and port before it.
func plainTarget(target []byte) bool {
	rest := target
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(rest) > len(scheme) && string(rest[:len(scheme)]) == scheme {
			rest = rest[len(scheme):]
			for len(rest) > 0 && rest[0] != '/' && rest[0] != ':' {
				if !isAlphanumeric(rest[0]) && rest[0] != '.' && rest[0] != '-' {
					return false
				}
				rest = rest[1:]
			}
			if len(rest) > 0 && rest[0] == ':' {
				rest = bytes.TrimLeft(rest[1:], "0123456789")
			}
			break
		}
	}
	path, _, _ := bytes.Cut(rest, []byte{'?'})
	return len(path) > 0 && path[0] == '/' && bytes.IndexByte(path, '%') < 0
}

// parses asks the parser that the server behind uses. What it does not take would be refused without a record.
func parses(target []byte, connect bool) bool {
	text := string(target)
	if connect && target[0] != '/' {
		text = "http://" + text
	}
	_, err := url.ParseRequestURI(text)
	return err == nil
}

func (h *headScan) finish() *exchange.Refusal {
	switch {
	case h.chunked && h.digits > 0:
		return RefuseHead("the request has both Content-Length and Transfer-Encoding")
	case h.chunked && h.old:
		return RefuseHead("an HTTP/1.0 request cannot have a Transfer-Encoding")
	case !h.hasHost && !h.old && !h.connect:
		return RefuseHead("the request has no Host field")
	case h.connect && (h.chunked || h.length > 0):
		return RefuseHead("a CONNECT request cannot have a body")
	}
	return nil
}

// sieve spares a search for most names that come for the first time; the names that most messages have fall apart in it.
type sieve uint64

// before notes a name, which is not empty. It is false where the name cannot have been noted before.
func (s *sieve) before(name string) bool {
	n := len(name)
	bit := sieve(1) << ((uint(n) + uint(name[0])*12 + uint(name[n-1])*11) & 63)
	had := *s&bit != 0
	*s |= bit
	return had
}

// AliasesFraming tells whether a name would be one of the framing fields to software that takes _ and . for -.
func AliasesFraming(name []byte) bool {
	dashed := bytes.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, name)
	return EqualFold(dashed, "transfer-encoding") || EqualFold(dashed, "content-length")
}

// validValue tells whether a field value has no control character but tabs (RFC 9110 section 5.5).
func validValue[T string | []byte](s T) bool {
	for len(s) >= 8 && noControls(swar.Word(s)) {
		s = s[8:]
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// noControls tells whether none of eight bytes is a control character, tabs included.
func noControls(w uint64) bool { return swar.Below(w, ' ')|swar.Is(w, 0x7f) == 0 }

// isPlain tells whether a name of four bytes or more has nothing but letters and dashes, as most names.
func isPlain[T string | []byte](name T) bool {
	n := len(name)
	switch {
	case n >= 8:
		for i := 0; i+8 < n; i += 8 {
			if !lettersDashes(swar.Word(name[i:])) {
				return false
			}
		}
		return lettersDashes(swar.Word(name[n-8:]))
	case n >= 4: // its two halves share bytes
		return lettersDashes(swar.Half(name) | swar.Half(name[n-4:])<<32)
	}
	return false
}

// lettersDashes tells whether all of eight bytes are letters or dashes.
func lettersDashes(w uint64) bool {
	low := w &^ swar.Tops // no sum below passes a byte's end
	lower := low | swar.Ones*0x20
	letters := (lower + swar.Ones*(0x80-'a')) &^ (lower + swar.Ones*(0x80-'z'-1))
	dashes := ^((low ^ swar.Ones*'-') + swar.Ones*0x7f)
	return (letters|dashes)&^w&swar.Tops == swar.Tops
}

// IsMethod tells whether a method has only characters that one may have.
func IsMethod(m string) bool { return m != "" && isTokens(m) }

func isToken(c byte) bool { return tokens[c] }

// isTokens tells whether a name is one (RFC 9110 section 5.6.2), or empty.
func isTokens[T string | []byte](name T) bool {
	for i := range len(name) {
		if !tokens[name[i]] {
			return false
		}
	}
	return true
}

// tokens are the characters of RFC 9110 section 5.6.2.
var tokens = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// hostChars are those that the server behind accepts in a Host field (RFC 3986 section 3.2.2).
var hostChars = func() (t [128]bool) {
	for _, c := range []byte("!$%&'()*+,-.:;=[]_~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// HasMember tells whether a comma-separated list has the member, parameters aside. It reads a field's bytes before the server does and its text
// afterwards, and must say the same of both.
func HasMember[T string | []byte](list T, lower string) bool {
	for start, i := 0, 0; i <= len(list); i++ {
		if i < len(list) && list[i] != ',' {
			continue
		}
		member := list[start:i]
		start = i + 1
		for j := range len(member) {
			if member[j] == ';' {
				member = member[:j]
				break
			}
		}
		for len(member) > 0 && (member[0] == ' ' || member[0] == '\t') {
			member = member[1:]
		}
		for n := len(member); n > 0 && (member[n-1] == ' ' || member[n-1] == '\t'); n-- {
			member = member[:n-1]
		}
		if EqualFold(member, lower) {
			return true
		}
	}
	return false
}

// EqualFold compares with a lower-case ASCII word.
func EqualFold[T string | []byte](b T, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range len(b) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
