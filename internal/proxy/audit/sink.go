package audit

import (
	"io"
	"os"
	"os/signal"
	"syscall"
)

// sink is where sealed lines go. Only the writer's goroutine uses it.
type sink interface {
	// Write appends whole lines. It tells how many bytes are in their place; after an error the rest comes again, even from within a line.
	Write(lines []byte) (int, error)
	// Sync makes what was written survive a power cut.
	Sync() error
	// Reopen follows the path to another file. With moved, a line that was begun has to be written again from its start.
	Reopen() (moved bool, err error)
	Close() error
}

// stream is a sink that somebody else opened and reads.
type stream struct{ io.Writer }

// openStream takes standard output or error. From then on the death of its reader is an error of the write and no longer ends the process, which
// Go's runtime otherwise does for these two.
func openStream(f *os.File) stream {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return stream{f}
}

func (stream) Sync() error           { return nil }
func (stream) Reopen() (bool, error) { return false, nil }
func (stream) Close() error          { return nil }

// device is a character device, such as /dev/stdout or /dev/null.
type device struct {
	stream
	file *os.File
}

func (d device) Close() error { return d.file.Close() }
