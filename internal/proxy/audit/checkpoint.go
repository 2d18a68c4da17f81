package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A checkpoint is a signed statement that a record with this number and this hash was written. It is a record of the chain itself, right behind the
// record it speaks of, and a line of a file beside the trail:
//
//	{"time":"…","kind":"lifecycle","event":"checkpoint","of":N,"of_hash":"…","records":N,"key":"…","signature":"…"}
//
// key is the public key and signature is Ed25519's over the text
//
//	httpowerd audit checkpoint v1
//	TIME
//	OF
//	OF_HASH
//	RECORDS
//
// each line with its end. Without the private key nobody can write a chain anew that has them, and the file tells when the trail's end was cut off.
const (
	checkpointEvent  = "checkpoint"
	checkpointText   = "httpowerd audit checkpoint v1\n"
	checkpointSuffix = ".checkpoints"

	// maxCheckpoints bounds the file; what is beyond it at the front is dropped by half. The chain holds those checkpoints too.
	maxCheckpoints = 8 << 20
	// checkpointPause is the shortest time between two, however fast records come.
	checkpointPause = time.Second
)

// CheckpointConfig says when checkpoints are made. Its zero value makes none.
type CheckpointConfig struct {
	Every   time.Duration // since the one before, while there are new records; 0: no checkpoints
	Records int           // new records that make one due at once, though never two in a second; 0: only Every counts
	Key     string        // the private key's file, made where there is none; "": no checkpoints
	Output  string        // the file for them; "": the output's path with .checkpoints behind it
	// Optional: a key or a file that cannot be had is told to the log, and the trail goes on without checkpoints.
	Optional bool
}

// on tells whether an output that is a file, or none, gets checkpoints.
func (c CheckpointConfig) on(isFile bool) bool {
	return c.Key != "" && c.Every > 0 && (isFile || c.Output != "")
}

// checkpoint is what one says.
type checkpoint struct {
	time      time.Time
	of        link
	records   uint64
	key       ed25519.PublicKey
	signature []byte
}

// text is what is signed.
func (c *checkpoint) text() []byte {
	b := append(make([]byte, 0, 192), checkpointText...)
	b = append(b, c.time.UTC().Format(timeLayout)...)
	b = strconv.AppendUint(append(b, '\n'), c.of.seq, 10)
	b = append(append(b, '\n'), c.of.hash[:]...)
	b = strconv.AppendUint(append(b, '\n'), c.records, 10)
	return append(b, '\n')
}

func (c *checkpoint) genuine() bool { return ed25519.Verify(c.key, c.text(), c.signature) }

// append appends the record without its closing brace. None of it came from outside, and a redactor might take a hash for a secret.
func (c *checkpoint) append(b []byte) []byte {
	b = appendTime(append(b, `{"time":`...), c.time)
	b = append(b, `,"kind":"`+KindLifecycle+`","event":"`+checkpointEvent+`"`...)
	b = strconv.AppendUint(append(b, `,"of":`...), c.of.seq, 10)
	b = append(append(append(append(b, `,"of_hash":`...), '"'), c.of.hash[:]...), '"')
	b = strconv.AppendUint(append(b, `,"records":`...), c.records, 10)
	b = appendBase64(append(b, `,"key":`...), c.key)
	return appendBase64(append(b, `,"signature":`...), c.signature)
}

func appendBase64(b, data []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(b, '"'), data), '"')
}

var errCheckpoint = errors.New("is not a checkpoint as this program writes them")

// parseCheckpoint reads a line of the checkpoint file, or a record of the chain. There is one way to write each checkpoint.
func parseCheckpoint(line []byte) (*checkpoint, error) {
	var said struct {
		Time      string `json:"time"`
		Of        uint64 `json:"of"`
		Hash      string `json:"of_hash"`
		Records   uint64 `json:"records"`
		Key       []byte `json:"key"`
		Signature []byte `json:"signature"`
	}
	if json.Unmarshal(line, &said) != nil || len(said.Hash) != hexSize || len(said.Key) != ed25519.PublicKeySize {
		return nil, errCheckpoint
	}
	at, err := time.Parse(timeLayout, said.Time)
	if err != nil {
		return nil, errCheckpoint
	}
	c := &checkpoint{time: at, of: link{seq: said.Of}, records: said.Records, key: said.Key, signature: said.Signature}
	copy(c.of.hash[:], said.Hash)
	if again := c.append(nil); !bytes.HasPrefix(line, again) || !bytes.HasPrefix(line[len(again):], []byte(seqKey)) && string(line[len(again):]) != "}" {
		return nil, errCheckpoint
	}
	return c, nil
}

// checkpoints makes them for a writer. Only the writer's goroutine uses it.
type checkpoints struct {
	cfg     CheckpointConfig
	key     ed25519.PrivateKey
	path    string
	log     *slog.Logger
	metrics *metrics

	f        *os.File
	size     int64
	failing  bool
	grows    bool                 // nothing can be dropped from the file
	truncate func(to int64) error // the file's
	unsigned uint64               // records since the last one
	last     time.Time            // of the last one
	rotation bool                 // the trail went on in another file
}

// openCheckpoints reads or makes the key, and opens the file. A line that is not complete is cut off: the process before died over it.
func openCheckpoints(cfg CheckpointConfig, output string, log *slog.Logger, m *metrics) (*checkpoints, error) {
	key, err := signingKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("audit.checkpoint.key: %w", err)
	}
	c := &checkpoints{cfg: cfg, key: key, path: cfg.Output, log: log, metrics: m, last: time.Now()}
	if c.path == "" {
		c.path = output + checkpointSuffix
	}
	if target, err := filepath.EvalSymlinks(c.path); err == nil {
		c.path = target
	}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("audit.checkpoint.output: %w", plainly(err))
	}
	return c, nil
}

func (c *checkpoints) open() error {
	if info, err := os.Stat(c.path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", c.path)
	}
	f, err := openLocked(c.path)
	if err != nil {
		return err
	}
	c.f, c.truncate, c.grows = f, f.Truncate, false
	if err := c.cut(); err != nil {
		return errors.Join(err, c.close())
	}
	return nil
}

// cut takes what follows the last complete line off. Where a file can only grow, that piece gets an end of its own instead.
func (c *checkpoints) cut() error {
	e, err := readEnd(c.f)
	if errors.Is(err, errFormat) && brokenOff(e.last) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.size = e.size
	if len(e.torn) == 0 {
		return nil
	}
	if err = c.truncate(e.size - int64(len(e.torn))); err == nil {
		c.size -= int64(len(e.torn))
		return nil
	}
	n, again := c.f.Write([]byte{'\n'})
	c.size += int64(n)
	if again != nil {
		return fmt.Errorf("%s: %w", c.path, errors.Join(err, again))
	}
	return nil
}

// brokenOff tells whether a line of the checkpoint file is the beginning of one, over which a process died that wrote to storage on which nothing can be cut.
func brokenOff(line []byte) bool {
	line = bytes.TrimRight(line, "\x00")
	n := min(len(line), len(opening))
	return string(line[:n]) == opening[:n] && !bytes.HasSuffix(line, []byte{'}'})
}

func (c *checkpoints) close() error {
	if c.f == nil {
		return nil
	}
	f := c.f
	c.f = nil
	return release(f)
}

// wrote accounts for new records.
func (c *checkpoints) wrote(n int) { c.unsigned += uint64(n) }

// due is when the next one is; false: there is nothing new to sign.
func (c *checkpoints) due() (time.Time, bool) {
	wait := c.cfg.Every
	if c.rotation || c.cfg.Records > 0 && c.unsigned >= uint64(c.cfg.Records) {
		wait = min(wait, checkpointPause)
	}
	return c.last.Add(wait), c.unsigned > 0
}

// sign makes the checkpoint of a place in the chain whose records are on the disk, and adds it to the file. What the chain gets is returned even where
// the file takes nothing.
func (c *checkpoints) sign(at link, now time.Time) *checkpoint {
	p := &checkpoint{time: now, of: at, records: c.unsigned, key: c.key.Public().(ed25519.PublicKey)}
	p.signature = ed25519.Sign(c.key, p.text())
	c.unsigned, c.last, c.rotation = 0, now, false
	err := c.add(append(p.append(nil), '}', '\n'))
	if err == nil {
		c.metrics.checkpoints.Inc()
	} else {
		c.metrics.failures.Inc()
		if !c.failing {
			c.log.Error("a checkpoint of the audit trail was not written: an end that is cut off is not found", "path", c.path, "error", err)
		}
	}
	c.failing = err != nil
	return p
}

func (c *checkpoints) add(line []byte) error {
	if c.f == nil || !same(c.f, c.path) { // somebody moved it away: the next begins a new one
		_ = c.close()
		if err := c.open(); err != nil {
			return err
		}
	}
	if c.failing {
		if err := c.cut(); err != nil {
			return err
		}
	}
	if c.size+int64(len(line)) > maxCheckpoints && !c.grows {
		if err := c.halve(); err != nil { // as on storage where files can only grow
			c.grows = true
			c.log.Warn("the older checkpoints cannot be dropped from their file: it goes on growing", "path", c.path, "error", err)
		}
	}
	n, err := c.f.Write(line)
	c.size += int64(n)
	if err != nil {
		return err
	}
	return c.f.Sync()
}

// halve drops the older half of the file.
func (c *checkpoints) halve() error {
	data := make([]byte, maxCheckpoints/2)
	n, err := c.f.ReadAt(data, max(0, c.size-int64(len(data))))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	data = data[bytes.IndexByte(data[:n], '\n')+1 : n]
	next, err := openLocked(c.path + nextSuffix)
	if err != nil {
		return err
	}
	err = next.Truncate(0) // of a process that died over it
	if err == nil {
		_, err = next.Write(data)
	}
	if err = errors.Join(err, next.Sync()); err == nil {
		err = os.Rename(c.path+nextSuffix, c.path)
	}
	if err != nil {
		return errors.Join(err, release(next), os.Remove(c.path+nextSuffix))
	}
	syncDir(filepath.Dir(c.path))
	_ = c.close()
	c.f, c.truncate, c.size = next, next.Truncate, int64(len(data))
	return nil
}

// readCheckpoints reads a checkpoint file. A line that breaks off is what a crash leaves; it is told, and no fault: whoever could break it off could have
// taken it away.
func readCheckpoints(path string) (all []witness, torn bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	for n, l := 1, newLines(f); ; n++ {
		line, err := l.next()
		switch {
		case errors.Is(err, io.EOF):
			return all, torn, nil
		case errors.Is(err, errTorn):
			return all, true, nil
		case err != nil:
			return nil, false, fmt.Errorf("%s:%d: cannot be read on: %w", path, n, err)
		}
		if brokenOff(line) {
			torn = true
			continue
		}
		c, err := parseCheckpoint(line)
		if err == nil && !c.genuine() {
			err = errors.New("was altered: its signature does not fit")
		}
		if err != nil {
			return nil, false, &Fault{File: path, Line: n, What: "the checkpoint " + strings.TrimPrefix(err.Error(), "the checkpoint ")}
		}
		all = append(all, witness{checkpoint: c, line: n})
	}
}

// witness is a line of the checkpoint file.
type witness struct {
	*checkpoint
	line  int
	chain int  // counts up where a chain began anew
	seen  bool // the trail has the record
}

// missingFile tells whether an optional file is not there.
func missingFile(err error) bool { return errors.Is(err, fs.ErrNotExist) }
