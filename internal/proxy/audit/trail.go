package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"httpowerd/internal/coding"
)

// Rotated is a file of a trail that nothing is written to any more.
type Rotated struct {
	Path string
	At   time.Time // of its rotation: no record in it is younger, unless the clock went back
}

// Predecessors lists the rotated files of an output, the oldest first.
func Predecessors(output string) ([]Rotated, error) {
	if target, err := filepath.EvalSymlinks(output); err == nil {
		output = target // rotated files lie beside the file, not beside the link
	}
	n := newNaming(output)
	all, err := n.list()
	if err != nil {
		return nil, err
	}
	out := make([]Rotated, len(all))
	for i, r := range all {
		out[i] = Rotated{filepath.Join(n.dir, r.name), r.stamp}
	}
	return out, nil
}

// OpenRotated opens a file that Predecessors listed, in its compressed form where it was compressed since.
func OpenRotated(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, packed) {
		if f, again := os.Open(path + packed); again == nil {
			return f, nil
		}
	}
	return f, err
}

// Unpacked reads r, which may be compressed: content tells, not the name.
func Unpacked(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 128<<10)
	if magic, _ := b.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	return coding.Gunzip(b)
}
