package timeout

import (
	"time"

	"httpowerd/internal/setting"
)

// Config is the block timeout. Start from Default, then Derive.
type Config struct {
	// Connect bounds the making of a connection, name resolution included.
	Connect setting.Duration `yaml:"connect"`
	// TLS bounds the handshake with the upstream.
	TLS setting.Duration `yaml:"tls"`
	// Attempt bounds the wait from the last byte of the request to the head of the answer. A long upload does not count.
	Attempt setting.Duration `yaml:"attempt"`
	// Total bounds all attempts and every wait between them, up to the head of the answer. Where nobody wrote it, it is twice Attempt.
	Total setting.Duration `yaml:"total"`
	// BodyIdle bounds the silence between two bytes of the answer's body; streams and upgrades may be silent for StreamIdle where that is longer.
	BodyIdle setting.Duration `yaml:"body_idle"`
}

// StreamIdle is how long a stream (server-sent events, ndjson, gRPC) or an upgraded connection may be silent.
const StreamIdle = time.Hour

// Default is the block with nothing written in it.
func Default() Config {
	return Config{Connect: setting.Duration(10 * time.Second), TLS: setting.Duration(10 * time.Second),
		Attempt: setting.Duration(5 * time.Minute), Total: setting.Duration(10 * time.Minute), BodyIdle: setting.Duration(5 * time.Minute)}
}

// Written says which of the values that depend on each other somebody wrote.
type Written struct{ Attempt, Total bool }

// Derive fits the value that nobody wrote to the one that somebody did, and returns a fault where two written ones contradict each other.
func (c *Config) Derive(w Written) []setting.Fault {
	switch {
	case w.Attempt && !w.Total:
		c.Total = min(2*c.Attempt, setting.Duration(most))
	case w.Total && !w.Attempt:
		c.Attempt = min(c.Attempt, c.Total)
	case c.Total < c.Attempt:
		return []setting.Fault{setting.Faultf("total", "is %s, shorter than attempt (%s): write %s or more, or a shorter attempt", c.Total, c.Attempt, c.Attempt)}
	}
	return nil
}

const (
	least = time.Millisecond
	most  = 24 * time.Hour
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	for _, v := range []struct {
		key   string
		value setting.Duration
	}{{"connect", c.Connect}, {"tls", c.TLS}, {"attempt", c.Attempt}, {"total", c.Total}, {"body_idle", c.BodyIdle}} {
		if v.value.D() < least || v.value.D() > most {
			faults = append(faults, setting.Faultf(v.key, "must be from %s to %s, is %s", setting.Duration(least), setting.Duration(most), v.value))
		}
	}
	return faults
}
