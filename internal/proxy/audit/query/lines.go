package query

import (
	"bufio"
	"errors"
	"io"
)

// maxLine is what no record is longer than.
const maxLine = 64 << 20

var errLong = errors.New("a line is longer than any record")

// lines cuts a reader into lines, in memory of at most one. Behind the end it can be asked again, because the file may have grown.
type lines struct {
	r    *bufio.Reader
	max  int    // bytes of a line
	part []byte // of a line whose end has not come yet
	took bool   // part was handed out
	long bool   // the line is too long; its rest is skipped
	n    int    // lines so far
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 128<<10), max: maxLine} }

// empty tells that the next line may have to be waited for.
func (l *lines) empty() bool { return l.r.Buffered() == 0 }

// next is the next line without its end, valid until the next call. io.EOF is the end for now; errLong comes with the beginning of a line that was skipped.
func (l *lines) next() ([]byte, error) {
	if l.took {
		l.part, l.took, l.long = l.part[:0], false, false
	}
	for {
		b, err := l.r.ReadSlice('\n')
		if err == nil && len(l.part) == 0 {
			l.n++
			return b[:len(b)-1], nil
		}
		if len(l.part)+len(b) > l.max+1 {
			l.part, l.long = l.part[:min(len(l.part), 1<<10)], true
		}
		if !l.long {
			l.part = append(l.part, b...)
		}
		switch {
		case err == nil:
			l.n++
			l.took = true
			if l.long {
				return l.part, errLong
			}
			return l.part[:len(l.part)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// rest is what stands behind the last line's end, when there will be no more.
func (l *lines) rest() []byte {
	if l.took || l.long || len(l.part) == 0 {
		return nil
	}
	l.n, l.took = l.n+1, true
	return l.part
}

// pending is how many bytes were read behind the last line's end.
func (l *lines) pending() int {
	if l.took {
		return l.r.Buffered()
	}
	return l.r.Buffered() + len(l.part)
}
