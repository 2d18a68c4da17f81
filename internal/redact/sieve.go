package redact

import (
	"bytes"
	"strings"
	"sync"
	"unicode/utf8"
)

// A Sieve looks through a window that moves on in steps. What is found in the window's last part waits for the next step, so that it is seen with what
// stands behind it.
const (
	sieveWindow = 32 << 10
	sieveAhead  = 4 << 10
	keyMost     = 32 << 10 // of a private key that does not end
)

var windows = sync.Pool{New: func() any { return new([sieveWindow]byte) }}

// Sieve passes a stream through a Screen in constant memory. What it finds does not depend on how the stream is cut into pieces, but for what Flush and
// Release give up. It is not safe for concurrent use; End must be called once nothing more comes.
type Sieve struct {
	screen *Screen
	host   string
	mask   Mask
	syntax Syntax
	told   bool // the syntax
	begun  bool // its first bytes were looked at
	wide   bool
	counts Counts

	window  *[sieveWindow]byte
	buf     []byte // in window: what is not passed yet, behind up to lookBehind bytes that are
	from    int    // how much of buf was passed
	swallow uint8  // the end of a secret is still to come: swallowed as long as bytes are of these classes
	key     int    // so much of a private key may still be swallowed
	quoted  bool   // JSON: a string is open where buf was passed
	escaped bool   // JSON: what was passed ends with half an escape
}

// NewSieve makes a Sieve. contentType is a hint at the syntax, which the content may overrule.
func (sn *Screen) NewSieve(contentType, host string, mask Mask) *Sieve {
	v := &Sieve{screen: sn, host: host, mask: mask}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if strings.HasSuffix(media, "json") || strings.Contains(media, "ndjson") || strings.Contains(media, "jsonl") || media == "text/event-stream" {
		v.syntax, v.told = JSON, true
	}
	v.window = windows.Get().(*[sieveWindow]byte)
	v.buf = v.window[:0]
	return v
}

// Counts is what was found so far.
func (v *Sieve) Counts() *Counts { return &v.counts }

// Wide tells whether what was decided begins like UTF-16 or UTF-32, in which nothing is found.
func (v *Sieve) Wide() bool { return v.wide }

// Held is how many bytes have come and are not passed.
func (v *Sieve) Held() int { return len(v.buf) - v.from }

// Append takes p and appends what can be passed to dst.
func (v *Sieve) Append(dst, p []byte) []byte {
	if v.window == nil {
		return dst
	}
	for len(p) > 0 {
		k := min(len(p), sieveWindow-len(v.buf))
		v.buf = append(v.buf, p[:k]...)
		p = p[k:]
		if len(v.buf) == sieveWindow {
			dst = v.step(dst, sieveWindow-sieveAhead, false)
		}
	}
	return dst
}

// Flush appends what has come up to the last line break, for streams whose lines matter one by one. Nothing but a private key reaches over one.
func (v *Sieve) Flush(dst []byte) []byte {
	if v.window == nil {
		return dst
	}
	at := bytes.LastIndexByte(v.buf[v.from:], '\n')
	if at < 0 {
		return dst
	}
	return v.step(dst, v.from+at+1, false)
}

// Release appends all that has come, for streams whose bytes cannot wait. A number that is cut in two by it is found with its second part.
func (v *Sieve) Release(dst []byte) []byte {
	if v.window == nil || v.Held() == 0 {
		return dst
	}
	return v.step(dst, len(v.buf), false)
}

// End appends the rest, and gives the memory back.
func (v *Sieve) End(dst []byte) []byte {
	if v.window == nil {
		return dst
	}
	dst = v.step(dst, len(v.buf), true)
	v.Close()
	return dst
}

// Close gives the memory back.
func (v *Sieve) Close() {
	if v.window != nil {
		clear(v.window[:])
		windows.Put(v.window)
		v.window, v.buf, v.from = nil, nil, 0
	}
}

// step passes what stands before limit, and a find that begins there to its end.
func (v *Sieve) step(dst []byte, limit int, last bool) []byte {
	if !v.begun && (last || len(v.buf) >= leastWide) {
		v.begun, v.wide = true, isWide(v.buf)
	}
	if !v.told {
		v.tell()
	}
	text := view(v.buf)
	dst = v.skip(dst, text, last)
	if v.key > 0 {
		v.keep(v.from)
		return dst
	}
	limit = max(limit, v.from)
	m := borrow()
	g := v.screen.gaze(m, v.host)
	hits := g.scan(text)
	if !last && g.pending >= v.from && g.pending < limit && len(text)-g.pending < sieveAhead {
		limit = g.pending
	}
	done := v.from
	for _, h := range hits {
		if h.end <= done {
			continue
		}
		if h.start >= limit {
			break
		}
		start := max(h.start, done)
		dst = v.pass(dst, text, done, start)
		dst = v.put(&g, dst, text, h, start)
		done = h.end
		if !last && h.end == len(text) && h.label.kind() == kindSecret && v.mask.Secrets && h.how == hide && h.layers[0] == noLayer {
			v.unfinished(text[h.start:h.end])
		}
	}
	if done < limit {
		dst = v.pass(dst, text, done, limit)
		done = limit
	}
	g.end()
	m.release()
	v.keep(done)
	return dst
}

// put replaces a hit, of which what stands before start was passed already.
func (v *Sieve) put(g *gaze, dst []byte, text string, h hit, start int) []byte {
	bare := v.syntax == JSON && v.mask.has(h.label.kind()) && !v.quoted && h.start == start && isBare(text, h)
	if bare {
		dst = append(dst, '"')
	}
	before := len(dst)
	if start > h.start && v.mask.has(h.label.kind()) { // its beginning is gone already
		v.counts.add(h.label.kind(), 1)
		dst = appendStars(dst, h.end-start)
	} else if !v.mask.has(h.label.kind()) {
		g.replace(nil, text[h.start:h.end], h, v.syntax, v.mask, &v.counts)
		dst = append(dst, text[start:h.end]...)
	} else {
		dst = g.replace(dst, text[h.start:h.end], h, v.syntax, v.mask, &v.counts)
	}
	if bare {
		return append(dst, '"')
	}
	if v.syntax == JSON {
		v.count(view(dst[before:]))
	}
	return dst
}

// isBare tells whether a hit is a JSON number as a whole.
func isBare(s string, h hit) bool {
	i, j := beforeSpace(s, h.start), h.end
	for j < len(s) && isSpace(s[j]) {
		j++
	}
	if j < len(s) && strings.IndexByte(",]}", s[j]) < 0 && s[j-1] != '\n' {
		return false
	}
	if i > 0 && s[i-1] == ':' { // behind a key, not behind the name of an event stream's line
		k := beforeSpace(s, i-1)
		return k > 0 && s[k-1] == '"'
	}
	return i == 0 || s[i-1] == ',' || s[i-1] == '['
}

// beforeSpace is where the white space before i begins.
func beforeSpace(s string, i int) int {
	for i > 0 && isSpace(s[i-1]) {
		i--
	}
	return i
}

// pass appends what stays as it is.
func (v *Sieve) pass(dst []byte, text string, from, to int) []byte {
	if v.syntax == JSON {
		v.count(text[from:to])
	}
	return append(dst, text[from:to]...)
}

// count follows the quotes of JSON, whose strings end with their line at the latest.
func (v *Sieve) count(s string) {
	if v.escaped && s != "" {
		s, v.escaped = s[1:], false
	}
	for s != "" {
		var i int
		if v.quoted {
			i = strings.IndexAny(s, "\"\\\n")
		} else {
			i = strings.IndexByte(s, '"')
		}
		if i < 0 {
			return
		}
		switch s[i] {
		case '"':
			v.quoted = !v.quoted
		case '\n':
			v.quoted = false
		case '\\':
			i++
			v.escaped = i == len(s)
		}
		s = s[min(i+1, len(s)):]
	}
}

// keep drops what was passed, but for a little that is looked at again as what stands before.
func (v *Sieve) keep(done int) {
	at := max(0, done-lookBehind)
	for at > 0 && at < done && isAlnum(v.buf[at-1]) && isAlnum(v.buf[at]) { // or half a long number were a number of its own
		at++
	}
	n := copy(v.buf, v.buf[at:])
	v.buf, v.from = v.buf[:n], done-at
}

// tell decides by the content what the syntax is.
func (v *Sieve) tell() {
	v.told = true
	start := v.buf[:min(len(v.buf), 512)]
	trimmed := bytes.TrimLeft(start, " \t\r\n\ufeff")
	switch {
	case !isText(view(start)):
		v.syntax = Binary
	case len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '['):
		v.syntax = JSON
	case !utf8.Valid(start) && !utf8.ValidString(trimRune(view(start))):
		v.syntax = Binary
	}
}

// leastWide is how many bytes of a body have to be there for isWide.
const leastWide = 8

// isWide tells whether b begins with a byte order mark, or with two characters of ASCII that take two or four bytes each (as RFC 4627 section 3 tells JSON's).
func isWide(b []byte) bool {
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\x00\x00\xfe\xff"} {
		if bytes.HasPrefix(b, []byte(mark)) {
			return true
		}
	}
	for _, size := range []int{2, 4} {
		for _, at := range []int{0, size - 1} { // of the byte that is not zero
			wide := len(b) >= 2*size
			for i := 0; wide && i < 2*size; i++ {
				if c := b[i]; i%size == at {
					wide = c >= ' ' && c < 0x7f || isSpace(c)
				} else {
					wide = c == 0
				}
			}
			if wide {
				return true
			}
		}
	}
	return false
}

// unfinished remembers that the secret may go on behind the window.
func (v *Sieve) unfinished(secret string) {
	if strings.HasPrefix(secret, "-----BEGIN ") {
		v.key = keyMost
		return
	}
	v.swallow = base64Any | charDot
}

// skip passes over the rest of a secret whose beginning was replaced.
func (v *Sieve) skip(dst []byte, text string, last bool) []byte {
	start := v.from
	switch {
	case v.key > 0:
		v.from += v.restOfKey(text[v.from:], last)
	case v.swallow != 0:
		v.from = wordEnd(text, v.from, v.swallow)
		if v.from < len(text) {
			v.swallow = 0
		}
	}
	if v.syntax == Binary {
		dst = appendStars(dst, v.from-start)
	}
	return dst
}

// restOfKey is how much of rest belongs to a private key. Its last line is waited for.
func (v *Sieve) restOfKey(rest string, last bool) int {
	const longestLine = 80
	end := keyEnd(rest, 0)
	at := strings.Index(rest[:end], "--")
	if at < 0 && !last && end == len(rest) {
		at = len(strings.TrimRight(rest, "-"))
	}
	if !last && at >= 0 && at < v.key && len(rest)-at < longestLine && (end == len(rest) || rest[end] == '-') {
		v.key -= at
		return at
	}
	end = min(end, v.key)
	if v.key -= end; last || at >= 0 || end < len(rest) {
		v.key = 0
	}
	return end
}
