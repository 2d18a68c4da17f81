package coding

import (
	"io"

	"github.com/klauspost/compress/gzip"
)

// Gzip compresses files of our own in less than half of the standard library's time; to read them that is the faster one. Close ends the stream; it does not
// close w.
func Gzip(w io.Writer) io.WriteCloser {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic(err) // of a level that there is not
	}
	return z
}
