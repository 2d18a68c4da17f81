package concurrency

import (
	"errors"
	"time"

	"httpowerd/internal/setting"
)

// Config is the block concurrency of one level. Start from Default.
type Config struct {
	// Max is how many exchanges may be in flight at once, from the attempt's begin to the end of the answer's body.
	Max int `yaml:"max"`
	// Queue is how many may wait for a place; the next is refused at once.
	Queue int `yaml:"queue"`
	// Wait is how long one may wait; 0s refuses whatever has no place at once.
	Wait setting.Duration `yaml:"wait"`
	// Scope is authority (one bulkhead for each host and port) or pattern (one for all that the host pattern matches).
	Scope string `yaml:"scope"`
	// Adaptive may only be off: the limit is what Max says.
	Adaptive Adaptive `yaml:"adaptive"`
	// Mode observe counts and notes, but lets everything pass.
	Mode setting.Mode `yaml:"mode"`
}

// Names of Config.Scope.
const (
	ScopeAuthority = "authority"
	ScopePattern   = "pattern"
)

// Adaptive is a switch, written on or off.
type Adaptive bool

// DecodeSetting takes on, off, true and false.
func (a *Adaptive) DecodeSetting(v any) error {
	switch v {
	case true, "on":
		*a = true
	case false, "off":
		*a = false
	default:
		return errors.New("must be on or off")
	}
	return nil
}

// SettingKind describes what may be written.
func (Adaptive) SettingKind() string { return "on or off" }

// String is on or off.
func (a Adaptive) String() string {
	if a {
		return "on"
	}
	return "off"
}

// MarshalText is String.
func (a Adaptive) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Default is the block with nothing written in it.
func Default() Config {
	return Config{Max: 100, Queue: 100, Wait: setting.Duration(5 * time.Second), Scope: ScopeAuthority, Mode: setting.Enforce}
}

const (
	maxMax   = 1_000_000
	maxQueue = 1_000_000
	maxWait  = time.Hour
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	if c.Max < 1 || c.Max > maxMax {
		faults = append(faults, setting.Faultf("max", "must be from 1 to %d, is %d", maxMax, c.Max))
	}
	if c.Queue < 0 || c.Queue > maxQueue {
		faults = append(faults, setting.Faultf("queue", "must be from 0 to %d, is %d", maxQueue, c.Queue))
	}
	if c.Wait < 0 || c.Wait.D() > maxWait {
		faults = append(faults, setting.Faultf("wait", "must be from 0s to 1h, is %s", c.Wait))
	}
	if c.Scope != ScopeAuthority && c.Scope != ScopePattern {
		faults = append(faults, setting.Faultf("scope", "must be authority or pattern, is %q", c.Scope))
	}
	if c.Adaptive {
		faults = append(faults, setting.Faultf("adaptive", "is not available: write off, and the limit under max"))
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		faults = append(faults, setting.Faultf("mode", "must be enforce or observe, is %q", c.Mode))
	}
	return faults
}
