package dedup

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/setting"
)

// Config is the block dedup. Start from Default.
type Config struct {
	// Methods are what is governed. GET, HEAD and OPTIONS are collapsed while they run; POST, PATCH, PUT and DELETE only where a request carries the
	// idempotency key, and are sent once for each key.
	Methods []string `yaml:"methods"`
	// MaxBody is the largest answer that is shared or kept, and the largest body of a write that is governed. What is larger is sent as if the block
	// were off.
	MaxBody setting.Size `yaml:"max_body"`
	// Linger is how long a complete answer to a safe request serves identical ones that come later, unless something was written to its URL meanwhile; 0s:
	// only those that come while it runs.
	Linger setting.Duration `yaml:"linger"`
	// Wait is how long a request waits for the answer to another one before it is refused with 504.
	Wait setting.Duration `yaml:"wait"`
	// Writes bounds what is remembered of keyed writes.
	Writes Writes `yaml:"writes"`
	// Mode observe counts and notes, but sends everything.
	Mode setting.Mode `yaml:"mode"`
}

// Writes bounds the memory of keyed writes.
type Writes struct {
	// Keep is how long the answer to a key is repeated. A repeat that comes later runs again.
	Keep setting.Duration `yaml:"keep"`
	// MaxEntries is how many keys one policy remembers; the least recently used goes first, but never one that runs.
	MaxEntries int `yaml:"max_entries"`
	// MaxBytes is how much memory their answers take.
	MaxBytes setting.Size `yaml:"max_bytes"`
}

// Default is the block with nothing written in it.
func Default() Config {
	return Config{
		Methods: []string{http.MethodGet, http.MethodHead}, MaxBody: 5 << 20, Wait: setting.Duration(30 * time.Second),
		Writes: Writes{Keep: setting.Duration(24 * time.Hour), MaxEntries: 10_000, MaxBytes: 64 << 20}, Mode: setting.Enforce,
	}
}

// safe methods are collapsed by what they ask, keyed ones by the key that their client chose.
var (
	safe  = []string{http.MethodGet, http.MethodHead, http.MethodOptions}
	keyed = []string{http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete}
)

// Bounds of what may be written.
const (
	maxMaxBody  = memoryLimit / 4
	maxLinger   = time.Minute
	minWait     = time.Millisecond
	maxWait     = time.Hour
	minKeep     = time.Second
	maxKeep     = 30 * 24 * time.Hour
	maxEntries  = 1_000_000
	maxMaxBytes = 16 << 30
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	fault := func(key, format string, args ...any) { faults = append(faults, setting.Faultf(key, format, args...)) }
	span := func(key string, v setting.Duration, least, most time.Duration) {
		if v.D() < least || v.D() > most {
			fault(key, "must be from %s to %s, is %s", setting.Duration(least), setting.Duration(most), v)
		}
	}
	if len(c.Methods) == 0 {
		fault("methods", "must name a method: write dedup: off where nothing is to be shared")
	}
	for i, m := range c.Methods {
		key := fmt.Sprintf("methods[%d]", i)
		switch {
		case slices.Contains(c.Methods[:i], m):
			fault(key, "has %s a second time", m)
		case slices.Contains(safe, m) || slices.Contains(keyed, m):
		case slices.Contains(safe, strings.ToUpper(m)) || slices.Contains(keyed, strings.ToUpper(m)):
			fault(key, "is %q: methods are case-sensitive, write %s", m, strings.ToUpper(m))
		default:
			fault(key, "is %q, must be one of %s, or with an idempotency key %s", m, setting.Words(safe), setting.Words(keyed))
		}
	}
	if c.MaxBody < 1 || c.MaxBody > maxMaxBody {
		fault("max_body", "must be from 1 to %s, is %s", setting.Size(maxMaxBody), c.MaxBody)
	}
	span("linger", c.Linger, 0, maxLinger)
	span("wait", c.Wait, minWait, maxWait)
	span("writes.keep", c.Writes.Keep, minKeep, maxKeep)
	if c.Writes.MaxEntries < 1 || c.Writes.MaxEntries > maxEntries {
		fault("writes.max_entries", "must be from 1 to %d, is %d", maxEntries, c.Writes.MaxEntries)
	}
	if c.Writes.MaxBytes < 1 || c.Writes.MaxBytes > maxMaxBytes {
		fault("writes.max_bytes", "must be from 1 to %s, is %s", setting.Size(maxMaxBytes), c.Writes.MaxBytes)
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		fault("mode", "must be enforce or observe, is %q", c.Mode)
	}
	return faults
}
