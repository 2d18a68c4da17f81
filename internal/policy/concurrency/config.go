package concurrency

import (
	"errors"
	"fmt"
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
	// Adaptive finds from latency how many may wait for the head of their answer, at most Max with those whose answers go on. Off, there are Max, but for a minute after the upstream refused
	// a request because too many were in flight.
	Adaptive Adaptive `yaml:"adaptive"`
	// Mode observe counts and notes, but lets everything pass.
	Mode setting.Mode `yaml:"mode"`
}

// Names of Config.Scope.
const (
	ScopeAuthority = "authority"
	ScopePattern   = "pattern"
)

// Adaptive is off (the zero value), on, or on within bounds of its own.
type Adaptive struct {
	On       bool
	Min, Max int // 0: 1, and the block's Max
}

var errAdaptive = errors.New("must be on, off or {min: …, max: …}")

// DecodeSetting takes on, off, true, false, and a mapping of min and max.
func (a *Adaptive) DecodeSetting(v any) error {
	switch v := v.(type) {
	case bool:
		*a = Adaptive{On: v}
		return nil
	case string:
		if v == "on" || v == "off" {
			*a = Adaptive{On: v == "on"}
			return nil
		}
	case map[string]any:
		out := Adaptive{On: true}
		for key, value := range v {
			n, ok := value.(int64)
			if !ok || n < 1 || n > maxMax {
				return fmt.Errorf("%s must be a number from 1 to %d", key, maxMax)
			}
			switch key {
			case "min":
				out.Min = int(n)
			case "max":
				out.Max = int(n)
			default:
				return errAdaptive
			}
		}
		*a = out
		return nil
	}
	return errAdaptive
}

// SettingKind describes what may be written.
func (Adaptive) SettingKind() string { return "on, off or {min: …, max: …}" }

// String is as it is written.
func (a Adaptive) String() string {
	switch {
	case !a.On:
		return "off"
	case a.Min == 0 && a.Max == 0:
		return "on"
	case a.Max == 0:
		return fmt.Sprintf("{min: %d}", a.Min)
	case a.Min == 0:
		return fmt.Sprintf("{max: %d}", a.Max)
	}
	return fmt.Sprintf("{min: %d, max: %d}", a.Min, a.Max)
}

// MarshalText is String.
func (a Adaptive) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// bounds are between how many places an adaptive limit moves.
func (c Config) bounds() (least, most int) {
	least, most = max(1, c.Adaptive.Min), c.Max
	if c.Adaptive.Max > 0 {
		most = min(most, c.Adaptive.Max)
	}
	return min(least, most), most
}

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
	switch a := c.Adaptive; {
	case a.Max > c.Max:
		faults = append(faults, setting.Faultf("adaptive", "its max (%d) must not be above max beside it (%d)", a.Max, c.Max))
	case a.Max > 0 && a.Min > a.Max || a.Min > c.Max:
		faults = append(faults, setting.Faultf("adaptive", "its min (%d) must not be above its max", a.Min))
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		faults = append(faults, setting.Faultf("mode", "must be enforce or observe, is %q", c.Mode))
	}
	return faults
}
