package sanitize

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"httpowerd/internal/coding"
)

// decodes tells whether a content coding can be read.
func decodes(name string) bool { return !strings.Contains(name, ",") && coding.Known(name) }

// codingOf is the content coding, "" for none. It is false where the content cannot be read: because of its coding, or a charset in which digits are not
// those of ASCII.
func codingOf(h http.Header) (string, bool) {
	if _, params, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil {
		switch charset := strings.ToLower(strings.TrimSpace(params["charset"])); {
		case coding.Wide(charset), strings.HasPrefix(charset, "utf-32"), charset == "utf-7", strings.HasPrefix(charset, "ibm"), strings.Contains(charset, "ebcdic"):
			return "", false
		}
	}
	name := strings.ToLower(strings.TrimSpace(strings.Join(h["Content-Encoding"], ",")))
	switch {
	case name == "" || name == "identity":
		return "", true
	case decodes(name):
		return name, true
	}
	return "", false
}

// errCoding is a body that is not coded as it says, or grows beyond all measure.
var errCoding = errors.New("the body's content coding cannot be read")

// How much a body may grow by being decoded: more than growth times, once it has passed grace.
const (
	grace  = 64 << 20
	growth = 100
)

// tap remembers what a decoder has read.
type tap struct {
	src  io.Reader
	raw  []byte // what was read, while it is kept
	keep bool
	n    int64
	err  error // how src ended
}

func (t *tap) Read(p []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.src.Read(p)
	t.n += int64(n)
	if t.keep {
		t.raw = append(t.raw, p[:n]...)
	}
	t.err = err
	return n, err
}

// decoder reads a coded body. Nothing is read before it is asked.
type decoder struct {
	coding string
	tap    tap
	in     io.Reader
	out    int64
	window window
}

func (d *decoder) Read(p []byte) (int, error) {
	if d.in == nil {
		if err := d.begin(); err != nil {
			return 0, d.explain(err)
		}
	}
	n, err := d.in.Read(p)
	d.out += int64(n)
	if d.out > grace && d.out > growth*d.tap.n {
		return 0, errCoding
	}
	switch {
	case err == io.EOF:
		return n, d.ended()
	case err != nil:
		return n, d.explain(err)
	}
	return n, nil
}

func (d *decoder) begin() (err error) {
	b := bufio.NewReaderSize(&d.tap, 4<<10)
	switch head, peeked := b.Peek(2); {
	case peeked != nil:
		if len(head) == 0 && peeked == io.EOF { // nothing at all is nothing, in any coding
			d.in = b
			return nil
		}
		return peeked
	case d.coding == "br": // nothing may stand behind it, which its reader and that of zstd see to
		d.in, err = coding.NewReader(d.coding, b)
		return err
	case d.coding == "zstd":
		window, err := coding.Window(b)
		if err != nil {
			return err
		}
		if !d.window.take(window) {
			return errCoding
		}
		d.in, err = coding.NewBounded(d.coding, b, window)
		return err
	case d.coding != "deflate":
		d.in, err = gzip.NewReader(b)
	case head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0:
		d.in, err = zlib.NewReader(b)
	default: // what some call deflate
		d.in = flate.NewReader(b)
	}
	if err == nil {
		d.in = &ending{d.in, b}
	}
	return err
}

// ending lets nothing stand behind what was decoded: it would go unseen.
type ending struct {
	in   io.Reader
	rest *bufio.Reader
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.in.Read(p)
	if err == io.EOF {
		if _, more := e.rest.Peek(1); more == nil {
			return n, errCoding
		} else if more != io.EOF {
			return n, more
		}
	}
	return n, err
}

func (d *decoder) ended() error {
	if d.tap.err != nil {
		return d.tap.err
	}
	return io.EOF
}

// explain tells a body that broke off from one that is coded wrongly.
func (d *decoder) explain(err error) error {
	if d.tap.err != nil && d.tap.err != io.EOF {
		return d.tap.err
	}
	return errCoding
}
