package timeout

import (
	"testing"
	"time"

	"httpowerd/internal/setting"
)

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if faults := append(c.Derive(Written{}), c.Validate()...); len(faults) > 0 || c != Default() {
		t.Error(c, faults)
	}
}

func TestDerive(t *testing.T) {
	both := Written{Attempt: true, Total: true}
	for _, c := range []struct {
		attempt, total         time.Duration
		written                Written
		wantAttempt, wantTotal time.Duration
		fault                  string
	}{
		{20 * time.Second, 10 * time.Minute, Written{Attempt: true}, 20 * time.Second, 40 * time.Second, ""},
		{time.Hour, 10 * time.Minute, Written{Attempt: true}, time.Hour, 2 * time.Hour, ""},
		{24 * time.Hour, 10 * time.Minute, Written{Attempt: true}, 24 * time.Hour, 24 * time.Hour, ""},
		{5 * time.Minute, 30 * time.Second, Written{Total: true}, 30 * time.Second, 30 * time.Second, ""},
		{5 * time.Minute, time.Hour, Written{Total: true}, 5 * time.Minute, time.Hour, ""},
		{30 * time.Second, 30 * time.Second, both, 30 * time.Second, 30 * time.Second, ""},
		{30 * time.Second, 10 * time.Second, both, 30 * time.Second, 10 * time.Second,
			"total: is 10s, shorter than attempt (30s): write 30s or more, or a shorter attempt"},
	} {
		config := Default()
		config.Attempt, config.Total = setting.Duration(c.attempt), setting.Duration(c.total)
		faults := config.Derive(c.written)
		if config.Attempt.D() != c.wantAttempt || config.Total.D() != c.wantTotal {
			t.Errorf("attempt %v, total %v became %s, %s", c.attempt, c.total, config.Attempt, config.Total)
		}
		if (c.fault == "") != (len(faults) == 0) || len(faults) > 0 && faults[0].Error() != c.fault {
			t.Errorf("told %v; want %s", faults, c.fault)
		}
	}
}

func TestValidate(t *testing.T) {
	for key, field := range map[string]func(*Config) *setting.Duration{
		"connect": func(c *Config) *setting.Duration { return &c.Connect }, "tls": func(c *Config) *setting.Duration { return &c.TLS },
		"attempt": func(c *Config) *setting.Duration { return &c.Attempt }, "total": func(c *Config) *setting.Duration { return &c.Total },
		"body_idle": func(c *Config) *setting.Duration { return &c.BodyIdle },
	} {
		for value, shown := range map[time.Duration]string{0: "0s", time.Microsecond: "1µs", 48 * time.Hour: "2d"} {
			c := Default()
			*field(&c) = setting.Duration(value)
			want := key + ": must be from 1ms to 1d, is " + shown
			if faults := c.Validate(); len(faults) != 1 || faults[0].Error() != want {
				t.Errorf("told %v; want %s", faults, want)
			}
		}
	}
}
