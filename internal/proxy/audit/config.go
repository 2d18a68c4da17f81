package audit

import (
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Where records go when Config.Output is not a path.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	Off    = "off"
)

// Config is the top-level audit: block. It is read once, when the daemon starts.
type Config struct {
	// Output is stdout, stderr, off or a file's path. With off nothing is recorded at all; only the live view still sees exchanges.
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
}

// Default is what holds where nothing is written: every exchange on standard output, chained.
func Default() Config {
	return Config{Output: Stdout, Chain: true, MaxSize: 100 << 20, MaxFiles: 10}
}
