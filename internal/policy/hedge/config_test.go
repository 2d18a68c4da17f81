package hedge

import (
	"strings"
	"testing"
	"time"

	"httpowerd/internal/setting"
)

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if faults := c.Validate(); len(faults) > 0 {
		t.Error(faults)
	}
	if c.After.String() != "p95" || c.Extra != 1 || c.Minimum != 50 || c.Mode != setting.Enforce {
		t.Errorf("%+v", c)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"after: must be from p50 to p99.9, is p49.9":                                  func(c *Config) { c.After = AfterQuantile(499) },
		"after: must be from p50 to p99.9, is p100":                                   func(c *Config) { c.After = AfterQuantile(1000) },
		"after: must be from 1ms to 1h, or a quantile such as p95, is 999µs":          func(c *Config) { c.After = AfterDuration(999 * time.Microsecond) },
		"after: must be from 1ms to 1h, or a quantile such as p95, is 0s":             func(c *Config) { c.After = After{} },
		"after: must be from 1ms to 1h, or a quantile such as p95, is 1h0m1s":         func(c *Config) { c.After = AfterDuration(time.Hour + time.Second) },
		"extra: must be from 1 to 3, is 0; write hedge: off to send no more attempts": func(c *Config) { c.Extra = 0 },
		"extra: must be from 1 to 3, is 4; write hedge: off to send no more attempts": func(c *Config) { c.Extra = 4 },
		"minimum: must be from 10 to 100000, is 9":                                    func(c *Config) { c.Minimum = 9 },
		"minimum: must be from 10 to 100000, is 100001":                               func(c *Config) { c.Minimum = 100_001 },
		`mode: must be enforce or observe, is "off"`:                                  func(c *Config) { c.Mode = "off" },
	} {
		c := Default()
		change(&c)
		if faults := c.Validate(); len(faults) != 1 || faults[0].Error() != want {
			t.Errorf("told %v; want %s", faults, want)
		}
	}
	if faults := (Config{}).Validate(); len(faults) != 4 {
		t.Errorf("told %v of a block with nothing in it", faults)
	}
}

func TestAfter(t *testing.T) {
	for in, want := range map[string]After{
		"p95": AfterQuantile(950), "p99.9": AfterQuantile(999), "p50": AfterQuantile(500), "p95.0": AfterQuantile(950), "p07": AfterQuantile(70),
		"250ms": AfterDuration(250 * ms), "2s": AfterDuration(2 * time.Second), "0": {}, "1d": AfterDuration(24 * time.Hour),
	} {
		var a After
		if err := a.DecodeSetting(in); err != nil || a != want {
			t.Errorf("%s is %+v, %v; want %+v", in, a, err, want)
		}
	}
	for _, in := range []any{"p", "p5", "p100", "p9a", "p95.", "p.95", "p95.55", "p-5", "p+5", "p95%", "P95", "95p", "95", "", "off", "-1s", "1", "soon",
		"p９５", int64(95), 0.95, true, nil, []any{"p95"}, map[string]any{"p95": true}} {
		a := AfterQuantile(990)
		if err := a.DecodeSetting(in); err == nil || a != AfterQuantile(990) || !strings.Contains(err.Error(), "p95") {
			t.Errorf("%v is %+v, %v", in, a, err)
		}
	}
	if k := (After{}).SettingKind(); k == "" {
		t.Error("nothing says what may be written")
	}
}

func FuzzAfter(f *testing.F) {
	for _, s := range []string{"p95", "p99.9", "250ms", "1h30m", "0", "p", "p9.99", "\xff", "p9\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var a, again After
		if a.DecodeSetting(s) != nil {
			return
		}
		text, _ := a.MarshalText()
		if c := (Config{After: a, Extra: 1, Minimum: 50, Mode: setting.Enforce}); len(c.Validate()) > 0 {
			return
		}
		if err := again.DecodeSetting(string(text)); err != nil || again != a {
			t.Errorf("%q is written %q, which is %+v, %v; want %+v", s, text, again, err, a)
		}
	})
}
