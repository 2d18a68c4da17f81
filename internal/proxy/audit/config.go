package audit

import (
	"time"

	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// The values of Config.Sync that are no durations.
const (
	SyncAlways time.Duration = -1 // each batch is on the disk before the next one is written
	SyncOff    time.Duration = -2 // when the system likes; only rotation, checkpoints and the end sync
)

// Where records go when Config.Output is not a path.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	Off    = "off"
)

// Config is the top-level audit: block. It is read once, when the daemon starts.
type Config struct {
	// Output is stdout, stderr, off, a file's path or the URL of a target (setting.ParseTarget). With off nothing is recorded at all; only the live view still sees exchanges.
	Output string `yaml:"output"`
	// Chain adds seq, prev and hash to each record, so that a change, a gap or another order is found afterwards. It costs about a
	// microsecond and 170 bytes a record.
	Chain bool `yaml:"chain"`
	// MaxSize rotates a file before it grows beyond this many bytes; 0: never by size. It means nothing for streams.
	MaxSize setting.Size `yaml:"max_size"`
	// MaxAge rotates a file whose first record is older than this; 0: never by age.
	MaxAge setting.Duration `yaml:"max_age"`
	// MaxFiles is how many rotated files are kept beside the current one, the oldest are deleted; 0: all are kept.
	MaxFiles int `yaml:"max_files"`
	// Redactor is that of records which no policy is behind; nil: the built-in lists.
	Redactor *redact.Redactor `yaml:"-"`
	// Keep deletes rotated files whose last record is older; 0: none by age. Both bounds hold together. Each deletion is a record.
	Keep setting.Duration `yaml:"keep"`
	// Sync is how long what was written may wait until it is on the disk; 0: a second.
	Sync time.Duration
	// Also are more places that get every record: URLs of targets, stdout or stderr.
	Also []string
	// AlsoOnFull is what happens when one of them is so far behind that its backlog is full: Drop, which is also "", or Block.
	AlsoOnFull string
	// TLS is for connections to targets.
	TLS TLSFiles
	// Checkpoint has signed statements made of where the chain stands.
	Checkpoint CheckpointConfig
}

// Default is what holds where nothing is written: every exchange on standard output, chained.
func Default() Config {
	return Config{Output: Stdout, Chain: true, MaxSize: 100 << 20, MaxFiles: 10}
}
