package breaker

import (
	"time"

	"httpowerd/internal/setting"
)

// Config is the block breaker. Start from Default, then Derive.
type Config struct {
	// Consecutive failures (connect, TLS, reset, timeout, 502, 503, 504) open the breaker, however far apart; 0 switches the rule off.
	Consecutive int `yaml:"consecutive"`
	// Ratio of failures (those, and every other 5xx) among the answers of Window opens it too; 0 switches the rule off.
	Ratio float64 `yaml:"ratio"`
	// Minimum is how many answers Window must hold before Ratio is looked at.
	Minimum int `yaml:"minimum"`
	// Window rolls in ten steps. Where nobody wrote it, it is at least twice the attempt's timeout.
	Window setting.Duration `yaml:"window"`
	// Open is how long the breaker refuses before it lets probes through, ± 10 %; it doubles up to OpenMax when probes fail.
	Open setting.Duration `yaml:"open"`
	// OpenMax bounds the doubling, and what a 503 with Retry-After may ask for.
	OpenMax setting.Duration `yaml:"open_max"`
	// Probes are let through at once while half open, and as many successes in a row close the breaker.
	Probes int `yaml:"probes"`
	// Slow makes an answer whose head takes longer, from the last byte of the request on, count as a failure of the ratio rule.
	Slow setting.OptionalDuration `yaml:"slow"`
	// CountFourTwoNine makes 429 a consecutive failure; without it 429 is neutral.
	CountFourTwoNine bool `yaml:"count_429"`
	// Ramp is the time after closing in which the admitted share of a crowd grows from half to all; 0s switches it off.
	Ramp setting.Duration `yaml:"ramp"`
	// Notify names the notify: targets that hear of state changes.
	Notify []string `yaml:"notify"`
	// Mode observe counts and notes, but lets everything pass.
	Mode setting.Mode `yaml:"mode"`

	// Attempt is the attempt's timeout, and with it the deadline of a probe; 0: half of Window. Derive sets it.
	Attempt time.Duration `yaml:"-"`
	// Narrow is what Window was before Derive fitted it to Attempt; 0: it is as it was.
	Narrow setting.Duration `yaml:"-"`
	// Unit of a bare number in Retry-After, s or ms ("" is s): the retry block says so.
	Unit string `yaml:"-"`
}

// Default is the block with nothing written in it.
func Default() Config {
	return Config{
		Consecutive: 5, Ratio: 0.5, Minimum: 20, Window: setting.Duration(time.Minute),
		Open: setting.Duration(30 * time.Second), OpenMax: setting.Duration(5 * time.Minute), Probes: 3,
		Ramp: setting.Duration(30 * time.Second), Mode: setting.Enforce,
	}
}

// Written says which of the values that depend on each other somebody wrote.
type Written struct{ Attempt, Window, Open, OpenMax bool }

// Derive fits the values that nobody wrote to those that were, and returns a fault where two written ones contradict each other.
// attempt is the attempt's timeout of the same policy.
func (c *Config) Derive(attempt time.Duration, w Written) []setting.Fault {
	var faults []setting.Fault
	c.Attempt = attempt
	if c.Window.D() < 2*attempt {
		switch {
		case !w.Window:
			c.Narrow, c.Window = c.Window, setting.Duration(min(2*attempt, maxWindow))
		case w.Attempt:
			faults = append(faults, setting.Faultf("window",
				"is %s, shorter than twice timeout.attempt (%s): failures that take so long would hardly meet in it",
				c.Window, setting.Duration(attempt)))
		}
	}
	if c.OpenMax < c.Open {
		switch {
		case !w.OpenMax:
			c.OpenMax = c.Open
		case !w.Open:
			c.Open = c.OpenMax
		default:
			faults = append(faults, setting.Faultf("open_max", "is %s, shorter than open (%s)", c.OpenMax, c.Open))
		}
	}
	return faults
}

// kept is the part of it that breakers are kept by: without what other blocks say, and who is told.
func (c Config) kept() Config {
	if c.Narrow > 0 {
		c.Window = c.Narrow
	}
	c.Narrow, c.Attempt, c.Unit, c.Notify = 0, 0, "", nil
	return c
}

// probeDeadline is how long a probe may keep its place without an answer.
func (c *Config) probeDeadline() time.Duration {
	if c.Attempt > 0 {
		return c.Attempt
	}
	return c.Window.D() / 2
}

const (
	maxWindow = 24 * time.Hour
	maxOpen   = 24 * time.Hour
	maxProbes = 1000
	maxCount  = 1_000_000
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	count := func(key string, v, least, most int) {
		if v < least || v > most {
			faults = append(faults, setting.Faultf(key, "must be from %d to %d, is %d", least, most, v))
		}
	}
	span := func(key string, v setting.Duration, least, most time.Duration) {
		if v.D() < least || v.D() > most {
			faults = append(faults, setting.Faultf(key, "must be from %s to %s, is %s", setting.Duration(least), setting.Duration(most), v))
		}
	}
	count("consecutive", c.Consecutive, 0, maxCount)
	count("minimum", c.Minimum, 1, maxCount)
	count("probes", c.Probes, 1, maxProbes)
	span("window", c.Window, time.Second, maxWindow)
	span("open", c.Open, time.Millisecond, maxOpen)
	span("open_max", c.OpenMax, time.Millisecond, maxOpen)
	span("ramp", c.Ramp, 0, time.Hour)
	if !(c.Ratio >= 0 && c.Ratio <= 1) {
		faults = append(faults, setting.Faultf("ratio", "must be from 0 to 1, is %v", c.Ratio))
	}
	if c.Slow.On && c.Slow.Duration <= 0 {
		faults = append(faults, setting.Faultf("slow", "must be a duration above 0, or off"))
	}
	if c.Consecutive == 0 && c.Ratio == 0 {
		faults = append(faults, setting.Faultf("", "has no rule left that could open it: write consecutive or ratio, or breaker: off"))
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		faults = append(faults, setting.Faultf("mode", "must be enforce or observe, is %q", c.Mode))
	}
	return faults
}
