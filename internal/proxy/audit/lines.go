package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxLine is what no record is longer than; record.go's bounds see to it.
const maxLine = 64 << 20

var (
	errLong = fmt.Errorf("a line is longer than %d MiB, which no record is", maxLine>>20)
	errTorn = errors.New("the last line has no end")
)

// timeLayout is how appendTime writes; timeSize is its length.
const (
	timeLayout = "2006-01-02T15:04:05.000000000Z"
	timeSize   = len(timeLayout)
)

// timeOf reads the time of a record from its first bytes.
func timeOf(line []byte) (time.Time, bool) {
	if len(line) < len(opening)+timeSize || !bytes.HasPrefix(line, []byte(opening)) {
		return time.Time{}, false
	}
	t, err := time.Parse(timeLayout, string(line[len(opening):len(opening)+timeSize]))
	return t, err == nil
}

// records reads an audit file, compressed or not.
type records struct {
	io.Reader
	file *os.File
}

func (r *records) close() { _ = r.file.Close() }

// openRecords opens a file for reading. Compression is told by content, not by name.
func openRecords(path string) (*records, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a file", path))
	}
	r, err := Unpacked(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &records{r, f}, nil
}

// lines cuts a reader into lines, in memory of at most one.
type lines struct {
	r    *bufio.Reader
	long []byte
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 128<<10)} }

// next is the next line without its end, valid until the next call. io.EOF is the end; errTorn comes with what stands after the last line's end.
func (l *lines) next() ([]byte, error) {
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.long)+len(part) > maxLine+1 {
			return nil, errLong
		}
		switch {
		case err == nil && len(l.long) == 0:
			return part[:len(part)-1], nil
		case err == nil:
			l.long = append(l.long, part...)
			return l.long[:len(l.long)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			l.long = append(l.long, part...)
		case errors.Is(err, io.EOF) && len(l.long)+len(part) > 0:
			l.long = append(l.long, part...)
			return l.long, errTorn
		default:
			return nil, err
		}
	}
}

// lastLine is the last complete line of a file, compressed or not.
func lastLine(path string) ([]byte, error) {
	r, err := openRecords(path)
	if err != nil {
		return nil, err
	}
	defer r.close()
	var last []byte
	for l := newLines(r); ; {
		line, err := l.next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, errTorn):
			return last, nil
		case err != nil:
			return nil, err
		}
		last = append(last[:0], line...)
	}
}
