// Package coding takes content codings off a body: gzip, deflate, br and zstd (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).
package coding

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// maxLayers is how many codings one body may have on top of each other.
const maxLayers = 3

// zstdWindow bounds what a zstd body may make its reader remember, in bytes. RFC 9659 allows no more on the web.
const zstdWindow = 8 << 20

// ErrUnknown is a coding that this package does not know, or too many of them.
var ErrUnknown = errors.New("coding: a content coding that is not known")

// Known tells whether a body with this Content-Encoding can be read. None at all can.
func Known(encoding string) bool {
	_, ok := layers(encoding)
	return ok
}

// layers lists the codings in the order in which they were put on, without identity.
func layers(encoding string) (list []string, ok bool) {
	for name := range strings.SplitSeq(encoding, ",") {
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "", "identity":
		case "gzip", "x-gzip", "deflate", "br", "zstd":
			list = append(list, name)
		default:
			return nil, false
		}
	}
	return list, len(list) <= maxLayers
}

// NewReader reads what is behind a Content-Encoding. Nothing is read of r before the first Read. Close gives memory back; it does not close r.
func NewReader(encoding string, r io.Reader) (io.ReadCloser, error) {
	return NewBounded(encoding, r, zstdWindow)
}

// NewBounded is NewReader for bodies of zstd that make their reader remember at most window bytes.
func NewBounded(encoding string, r io.Reader, window int) (io.ReadCloser, error) {
	list, ok := layers(encoding)
	if !ok {
		return nil, ErrUnknown
	}
	c := chain{Reader: r}
	for i := len(list) - 1; i >= 0; i-- {
		d := &decoder{coding: list[i], source: &counted{Reader: c.Reader}, window: uint64(window), inner: i > 0}
		c.Reader = d
		c.decoders = append(c.decoders, d)
	}
	return &c, nil
}

// leastWindow is what a reader of zstd takes for its window at least, whatever the body says of its first frame: others may follow.
const leastWindow = 1 << 20

// Window is how much the reader of a zstd body will remember, which a dozen bytes can make it set aside. It looks at no more of b than that takes.
func Window(b *bufio.Reader) (int, error) {
	for n := 5; ; n++ {
		head, peeked := b.Peek(n)
		var h zstd.Header
		switch err := h.Decode(head); {
		case err == io.ErrUnexpectedEOF && peeked == nil && n < zstd.HeaderMaxSize:
			continue
		case err != nil:
			return 0, err
		case h.Skippable: // the first frame comes behind it
			return zstdWindow, nil
		case h.WindowSize > zstdWindow:
			return 0, zstd.ErrWindowSizeExceeded
		}
		return max(int(h.WindowSize), leastWindow), nil
	}
}

type chain struct {
	io.Reader
	decoders []*decoder
}

func (c *chain) Close() error {
	for _, d := range c.decoders {
		d.close()
	}
	return nil
}

// decoder takes one coding off.
type decoder struct {
	coding string
	source *counted
	inner  bool   // what comes out is in another coding
	given  int64  // bytes that came out
	window uint64 // of zstd
	in     io.Reader
	free   func()
	failed error
}

func (d *decoder) Read(p []byte) (int, error) {
	if d.in == nil && d.failed == nil {
		d.failed = d.begin()
	}
	if d.failed != nil {
		return 0, d.failed
	}
	n, err := d.in.Read(p)
	if d.given += int64(n); d.inner && d.given > innerFree+innerGrowth*d.source.n {
		d.failed = errGrows
		return 0, d.failed
	}
	return n, err
}

// What is coded twice hardly shrinks the second time. Layers of codings that grow much when one is taken off have nothing in them that anybody reads: some
// hundred bytes can be gigabytes of empty gzip members, which no bound on what comes out at the end stops.
const (
	innerFree   = 256 << 10
	innerGrowth = 8
)

var errGrows = errors.New("coding: a body whose codings hold too much of nothing")

// counted counts what is read.
type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (d *decoder) begin() (err error) {
	b := bufio.NewReaderSize(d.source, 4<<10)
	head, err := b.Peek(2)
	if len(head) == 0 { // nothing at all is nothing, in any coding
		d.in = b
		return nil
	}
	switch d.coding {
	case "br":
		d.in = brotli.NewReader(b)
	case "zstd":
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(d.window), zstd.WithDecoderLowmem(true))
		if err != nil {
			return err
		}
		d.in, d.free = &faulty{zstd: z}, z.Close
	case "deflate":
		if err == nil && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
			var z io.Reader
			if z, err = zlib.NewReader(b); err == nil {
				d.in = z
			}
			return err
		}
		d.in = flate.NewReader(b) // what some call deflate
	default:
		var z *gzip.Reader
		if z, err = gzip.NewReader(b); err == nil {
			d.in = z
		}
		return err
	}
	return nil
}

// faulty reads of a zstd body what stands before a fault too, as others do: its reader has the last block of a frame whose checksum or length is wrong, and
// gives it to whoever asks once more.
type faulty struct {
	zstd  io.Reader
	fault error
}

func (f *faulty) Read(p []byte) (n int, err error) {
	if f.fault == nil {
		if n, err = f.zstd.Read(p); err == nil || err == io.EOF {
			return n, err
		}
		f.fault = err
	}
	if n == 0 {
		n, _ = f.zstd.Read(p)
	}
	if n > 0 {
		return n, nil
	}
	return 0, f.fault
}

func (d *decoder) close() {
	if d.free != nil {
		d.free()
		d.free = nil
	}
}

// Decode takes the codings off data, which may have been cut off at its end, up to limit bytes. whole tells that nothing is missing. An error means that
// nothing can be said of the content.
func Decode(encoding string, data []byte, limit int) (out []byte, whole bool, err error) {
	r, err := NewReader(encoding, bytes.NewReader(data))
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, int64(limit)))
	switch {
	case err != nil && n == 0:
		return nil, false, err
	case err != nil || n == int64(limit):
		return b.Bytes(), false, nil
	}
	return b.Bytes(), true, nil
}
