package hedge

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/setting"
)

// Config is the block hedge. Start from Default.
type Config struct {
	// After is how long the upstream is given before another attempt is sent: a quantile of the times that it took lately, or a duration. A low
	// quantile sends more of what was not needed.
	After After `yaml:"after"`
	// Extra is how many more attempts there may be beside the first, each After after the one before. Each costs the upstream's quota.
	Extra int `yaml:"extra"`
	// Minimum is how many answers a quantile is taken from at least; before that nothing is hedged. It means nothing to a duration.
	Minimum int `yaml:"minimum"`
	// Mode observe counts and notes what would be sent, and sends nothing.
	Mode setting.Mode `yaml:"mode"`
}

// Default is the block with nothing written in it.
func Default() Config {
	return Config{After: After{permille: 950}, Extra: 1, Minimum: 50, Mode: setting.Enforce}
}

// After is a quantile or a duration. Its zero value is neither, and not valid.
type After struct {
	permille int // 0: a duration
	duration time.Duration
}

// AfterQuantile is the quantile of so many thousandths: 950 is p95.
func AfterQuantile(permille int) After { return After{permille: permille} }

// AfterDuration is a fixed duration.
func AfterDuration(d time.Duration) After { return After{duration: d} }

var errAfter = errors.New("must be a quantile such as p95 or p99.9, or a duration such as 250ms")

// DecodeSetting takes a quantile or a duration.
func (a *After) DecodeSetting(v any) error {
	s, ok := v.(string)
	if !ok {
		return errAfter
	}
	if digits, quantile := strings.CutPrefix(s, "p"); quantile {
		n, ok := permille(digits)
		if !ok {
			return errAfter
		}
		*a = After{permille: n}
		return nil
	}
	d, err := setting.ParseDuration(s)
	if err != nil {
		return errAfter
	}
	*a = After{duration: d}
	return nil
}

// permille reads NN or NN.N in thousandths.
func permille(s string) (n int, ok bool) {
	whole, tenth, dotted := strings.Cut(s, ".")
	if !dotted {
		tenth = "0"
	}
	if len(whole) != 2 || len(tenth) != 1 {
		return 0, false
	}
	for _, c := range []byte(whole + tenth) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// SettingKind describes what may be written.
func (After) SettingKind() string { return "a quantile such as p95, or a duration" }

// String is the value as it is written: p95, p99.9, 250ms.
func (a After) String() string {
	if a.permille == 0 {
		return setting.Duration(a.duration).String()
	}
	text := "p" + strconv.Itoa(a.permille/10)
	if tenth := a.permille % 10; tenth != 0 {
		text += "." + strconv.Itoa(tenth)
	}
	return text
}

// MarshalText is String.
func (a After) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Bounds of what may be written.
const (
	lowest     = 500 // p50: below, most requests would be sent twice
	shortest   = time.Millisecond
	longest    = time.Hour
	maxExtra   = 3
	minMinimum = 10
	maxMinimum = 100_000
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	switch a := c.After; {
	case a.permille != 0 && (a.permille < lowest || a.permille > 999):
		faults = append(faults, setting.Faultf("after", "must be from p50 to p99.9, is %s", a))
	case a.permille == 0 && (a.duration < shortest || a.duration > longest):
		faults = append(faults, setting.Faultf("after", "must be from 1ms to 1h, or a quantile such as p95, is %s", a))
	}
	if c.Extra < 1 || c.Extra > maxExtra {
		faults = append(faults, setting.Faultf("extra", "must be from 1 to %d, is %d; write hedge: off to send no more attempts", maxExtra, c.Extra))
	}
	if c.Minimum < minMinimum || c.Minimum > maxMinimum {
		faults = append(faults, setting.Faultf("minimum", "must be from %d to %d, is %d", minMinimum, maxMinimum, c.Minimum))
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		faults = append(faults, setting.Faultf("mode", "must be enforce or observe, is %q", c.Mode))
	}
	return faults
}
