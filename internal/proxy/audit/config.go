package audit

import (
	"path/filepath"
	"strings"
	"time"

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
}

// Default is what holds where nothing is written: every exchange on standard output, chained.
func Default() Config {
	return Config{Output: Stdout, Chain: true, MaxSize: 100 << 20, MaxFiles: 10}
}

// The smallest values that are not a mistake.
const (
	minSize = 64 << 10
	minAge  = time.Minute
)

// Validate lists what is wrong with the block. It looks at nothing but the values.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	switch {
	case c.Output == "":
		faults = append(faults, setting.Faultf("output", "is empty: write stdout, stderr, off or the path of a file"))
	case strings.ContainsAny(c.Output, "\x00\n\r"):
		faults = append(faults, setting.Faultf("output", "has a control character"))
	case strings.HasSuffix(c.Output, string(filepath.Separator)):
		faults = append(faults, setting.Faultf("output", "%q is a directory: write the path of a file in it", c.Output))
	}
	if c.MaxSize < 0 || c.MaxSize > 0 && c.MaxSize < minSize {
		faults = append(faults, setting.Faultf("max_size", "%s is too small: write 0 (no rotation by size) or at least %s", c.MaxSize, setting.Size(minSize)))
	}
	if c.MaxAge < 0 || c.MaxAge > 0 && c.MaxAge.D() < minAge {
		faults = append(faults, setting.Faultf("max_age", "%s is too short: write 0 (no rotation by age) or at least %s", c.MaxAge, setting.Duration(minAge)))
	}
	if c.MaxFiles < 0 || c.MaxFiles > 100_000 {
		faults = append(faults, setting.Faultf("max_files", "%d is out of range: write 0 (keep all) to 100000", c.MaxFiles))
	}
	return faults
}
