package redact

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"
)

// How a Writer looks at its text: through a window that moves on in steps. What is found in the window's last part waits for the next step, so that a
// secret is seen with what stands behind it.
const (
	windowSize = 16 << 10
	lookAhead  = 6 << 10
	lookBehind = 512
)

// Writer removes secrets from a text that comes in pieces. The output does not depend on how the text is cut into pieces, but for what Flush gives up. It
// holds back at most 16 KiB; secrets that are longer are hidden to their end all the same. It is not safe for concurrent use.
type Writer struct {
	w       io.Writer
	r       *Redactor
	counts  *Counts
	buf     []byte // what is not written yet, behind up to lookBehind bytes that are
	from    int    // how much of buf is written
	swallow uint8  // the end of a secret is still to come: swallowed as long as bytes are of these classes
	key     bool   // the end of a private key is still to come
	err     error
}

// NewWriter writes to w what is written to it, without its secrets. c may be nil. Close must be called for the last part.
func NewWriter(w io.Writer, r *Redactor, c *Counts) *Writer {
	return &Writer{w: w, r: r, counts: c, buf: make([]byte, 0, windowSize)}
}

// Write takes a piece of the text.
func (w *Writer) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 && w.err == nil {
		k := min(len(p), windowSize-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		n, p = n+k, p[k:]
		if len(w.buf) == windowSize {
			w.step(windowSize, windowSize-lookAhead, false)
		}
	}
	return n, w.err
}

// Flush writes the lines that have come whole, for texts that are read while they are made. What only a later line would show to be secret, such as the
// first half of a card number, is out by then; a private key is not.
func (w *Writer) Flush() error {
	if at := bytes.LastIndexByte(w.buf[w.from:], '\n'); at >= 0 && w.err == nil {
		end := w.from + at + 1
		w.step(end, end, false)
	}
	return w.err
}

// Close writes what was held back. It does not close the writer below.
func (w *Writer) Close() error {
	if w.err == nil {
		w.step(len(w.buf), len(w.buf), true)
	}
	if w.err == nil {
		w.err = io.ErrClosedPipe
		return nil
	}
	if w.err == io.ErrClosedPipe {
		return nil
	}
	return w.err
}

// step writes what stands before limit, and a secret that begins there to its end. What follows up to end is looked at, and waits. With last nothing
// comes after it.
func (w *Writer) step(end, limit int, last bool) {
	text, rest := string(w.buf[:end]), string(w.buf[end:])
	if limit < end {
		limit = len(trimRune(text[:limit]))
	}
	w.skip(text, limit == end)
	limit = max(limit, w.from)
	m := borrow()
	defer m.release()
	sc := m.scanner(w.r, options{})
	defer m.giveScanner(sc)
	hits := sc.scan(text)
	done := w.from
	var out []byte
	for _, h := range hits {
		if h.end <= done {
			continue
		}
		if h.start >= limit {
			break
		}
		out = append(out, text[done:max(h.start, done)]...)
		out = sc.replace(out, text[h.start:h.end], h, w.counts)
		done = h.end
		if !last && h.end == len(text) {
			w.unfinished(text[h.start:h.end])
		}
	}
	if done < limit {
		out = append(out, text[done:limit]...)
		done = limit
	}
	keep := max(0, done-lookBehind)
	for keep > 0 && keep < done && !utf8.RuneStart(text[keep]) {
		keep++
	}
	w.buf = append(append(w.buf[:0], text[keep:]...), rest...)
	w.from = done - keep
	if len(out) > 0 {
		_, w.err = io.WriteString(w.w, strings.ToValidUTF8(string(out), "\uFFFD"))
	}
}

// unfinished remembers that the secret may go on behind the window.
func (w *Writer) unfinished(secret string) {
	if at := strings.LastIndex(secret, "-----BEGIN "); at >= 0 && !strings.Contains(secret[at:], "-----END ") {
		w.key = true
		return
	}
	w.swallow = base64Any | charDot
}

// skip passes over the rest of a secret whose beginning was hidden. With whole no mark stands across the end of text.
func (w *Writer) skip(text string, whole bool) {
	if w.key {
		const finish = "-----END "
		at := strings.Index(text[w.from:], finish)
		switch {
		case at < 0 && whole:
			w.from = len(text)
			return
		case at < 0:
			w.from = max(w.from, len(text)-len(finish))
			return
		}
		w.key = false
		w.from += at + len(finish)
		if tail := strings.Index(text[w.from:min(len(text), w.from+64)], "-----"); tail >= 0 {
			w.from += tail + len("-----")
		}
		return
	}
	if w.swallow != 0 {
		end := wordEnd(text, w.from, w.swallow)
		if end < len(text) {
			w.swallow = 0
		}
		w.from = end
	}
}
