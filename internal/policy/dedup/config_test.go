package dedup

import (
	"testing"
	"time"

	"httpowerd/internal/setting"
)

func TestDefaultIsValid(t *testing.T) {
	if faults := Default().Validate(); len(faults) > 0 {
		t.Error(faults)
	}
}

func TestValidate(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		"methods: must name a method: write dedup: off where nothing is to be shared": func(c *Config) { c.Methods = nil },
		"methods[1]: has GET a second time":                                           func(c *Config) { c.Methods = []string{"GET", "GET"} },
		`methods[0]: is "get": methods are case-sensitive, write GET`:                 func(c *Config) { c.Methods = []string{"get"} },
		`methods[0]: is "TRACE", must be one of GET, HEAD, OPTIONS, or with an idempotency key POST, PATCH, PUT, DELETE`: func(c *Config) {
			c.Methods = []string{"TRACE"}
		},
		"max_body: must be from 1 to 16MiB, is 0":             func(c *Config) { c.MaxBody = 0 },
		"max_body: must be from 1 to 16MiB, is 17MiB":         func(c *Config) { c.MaxBody = 17 << 20 },
		"linger: must be from 0s to 1m, is 2m":                func(c *Config) { c.Linger = seconds(120) },
		"wait: must be from 1ms to 1h, is 0s":                 func(c *Config) { c.Wait = 0 },
		"wait: must be from 1ms to 1h, is 2h":                 func(c *Config) { c.Wait = setting.Duration(2 * time.Hour) },
		"writes.keep: must be from 1s to 30d, is 0s":          func(c *Config) { c.Writes.Keep = 0 },
		"writes.max_entries: must be from 1 to 1000000, is 0": func(c *Config) { c.Writes.MaxEntries = 0 },
		"writes.max_bytes: must be from 1 to 16GiB, is 0":     func(c *Config) { c.Writes.MaxBytes = 0 },
		`mode: must be enforce or observe, is "off"`:          func(c *Config) { c.Mode = "off" },
	} {
		c := Default()
		edit(&c)
		if faults := c.Validate(); len(faults) != 1 || faults[0].Error() != want {
			t.Errorf("told %v; want %s", faults, want)
		}
	}
}
