package policy

import (
	"regexp"
	"time"

	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
	"httpowerd/internal/state/redis"
)

// StateSettings say what outlives the process, and what daemons share.
type StateSettings struct {
	Dir string `yaml:"dir"`
	// Backend is memory, or redis: limits, gates and keyed writes are those of all daemons on one server.
	Backend string `yaml:"backend"`
	// URL is the server's; it may hold a password.
	URL redact.Secret `yaml:"url"`
	// Secret is the same in all daemons: with another one they share nothing.
	Secret redact.Secret `yaml:"secret"`
	// CA is a file of CAs for rediss://; "" is the system's.
	CA string `yaml:"ca"`
	// Prefix begins every name on the server.
	Prefix string `yaml:"prefix"`
	// Timeout bounds each call; a request waits no longer for the server.
	Timeout setting.Duration `yaml:"timeout"`
	// OnFailure says what becomes of limited requests while the server is away.
	OnFailure string `yaml:"on_failure"`
	// Share is how many daemons there are: each goes by that part of every limit while the server is away.
	Share int `yaml:"share"`
}

// Values of StateSettings.Backend and StateSettings.OnFailure.
const (
	BackendMemory = "memory"
	BackendRedis  = "redis"
	OnFailLocal   = "local"
	OnFailRefuse  = "refuse"
)

// leastSecret is the length of a secret that is worth the name.
const leastSecret = 16

func defaultState() StateSettings {
	return StateSettings{Backend: BackendMemory, Prefix: "httpowerd", Timeout: setting.Duration(100 * time.Millisecond), OnFailure: OnFailLocal, Share: 1}
}

var statePrefix = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// Validate returns every fault of the block.
func (s StateSettings) Validate() []setting.Fault {
	var c checks
	c.oneOf("backend", s.Backend, BackendMemory, BackendRedis)
	if s.Backend == BackendMemory {
		return append(c, s.idle()...)
	}
	if s.URL.IsZero() {
		c = append(c, setting.Faultf("url", "is missing: write redis://HOST:PORT"))
	} else if err := redis.CheckURL(s.URL.Reveal()); err != nil {
		c = append(c, setting.Faultf("url", "%s", setting.Own(err.Error())))
	} else if !redis.Encrypted(s.URL.Reveal()) && s.CA != "" {
		c = append(c, setting.Faultf("ca", "has no effect: url begins with no rediss://"))
	}
	if !s.Secret.IsZero() && len(s.Secret.Reveal()) < leastSecret {
		c = append(c, setting.Faultf("secret", "is too short: write at least %d characters that nobody can guess", leastSecret))
	}
	c.roots("ca", s.CA)
	if !statePrefix.MatchString(s.Prefix) {
		c = append(c, setting.Faultf("prefix", "%q must be 1 to 64 letters, digits, dots, colons, dashes or underscores", s.Prefix))
	}
	c.span("timeout", s.Timeout, time.Millisecond, 10*time.Second)
	c.oneOf("on_failure", s.OnFailure, OnFailLocal, OnFailRefuse)
	c.count("share", s.Share, 1, 10_000)
	return c
}

// idle finds what is written and has no effect without a server.
func (s StateSettings) idle() []setting.Fault {
	var c checks
	d := defaultState()
	for _, k := range []struct {
		key     string
		written bool
	}{
		{"url", !s.URL.IsZero()}, {"secret", !s.Secret.IsZero()}, {"ca", s.CA != ""}, {"prefix", s.Prefix != d.Prefix}, {"timeout", s.Timeout != d.Timeout},
		{"on_failure", s.OnFailure != d.OnFailure}, {"share", s.Share != d.Share},
	} {
		if k.written {
			c = append(c, setting.Faultf(k.key, "has no effect: write backend: redis beside it"))
		}
	}
	return c
}

// checkState warns of what others could read on the way to the server, or in it.
func (a *assembly) checkState(top func(block string, keys ...string) *node) {
	s := a.file.settings.State
	n := top("state", "url")
	if n == nil || s.Backend != BackendRedis || s.URL.IsZero() || redis.CheckURL(s.URL.Reveal()) != nil {
		return
	}
	if !redis.Encrypted(s.URL.Reveal()) && !redis.Local(s.URL.Reveal()) {
		a.warnings.at(n, "is not encrypted: whoever is on the way reads the password; write rediss://")
	}
	if s.Secret.IsZero() {
		a.warnings.at(n, "has no secret beside it, so whoever reads the server's memory can read stored answers; write state.secret, the same in all daemons")
	}
}
