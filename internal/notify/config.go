package notify

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Config is the block notify: targets by their names.
type Config map[string]Target

// Target is where notifications go.
type Target struct {
	// URL is posted to. What stands behind its host is a secret: with many receivers it is all that it takes to post there.
	URL URL `yaml:"url"`
	// Format is json, or slack for receivers of incoming webhooks as Slack has them.
	Format Format `yaml:"format"`
	// Secret signs what is posted by Standard Webhooks; without it nobody can tell that it came from here.
	Secret redact.Secret `yaml:"secret"`
	// Timeout is how long one try may take.
	Timeout Timeout `yaml:"timeout"`
	// Events are the types that go there; empty: all.
	Events []string `yaml:"events"`
}

// The types of notifications.
const (
	BreakerStateChanged = "breaker.state_changed"
	GateClosed          = "gate.closed"
	GateOpened          = "gate.opened"
	CredentialFailed    = "credential.failed"
	AuditFailed         = "audit.failed"
	ConfigReloadFailed  = "config.reload_failed"
)

func types() []string {
	return []string{BreakerStateChanged, GateClosed, GateOpened, CredentialFailed, AuditFailed, ConfigReloadFailed}
}

// Bounds of the configuration.
const (
	maxTargets = 32
	minTimeout = 100 * time.Millisecond
	maxTimeout = time.Minute
)

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	if len(c) > maxTargets {
		faults = append(faults, setting.Faultf("", "has %d targets, more than %d", len(c), maxTargets))
	}
	for _, n := range slices.Sorted(maps.Keys(c)) {
		key := fmt.Sprintf("[%q]", n)
		if !name.MatchString(n) {
			faults = append(faults, setting.Faultf(key, "a target's name is of letters, digits, _, - and ., at most 64"))
		}
		for _, f := range c[n].Validate() {
			f.Key = key + "." + f.Key
			faults = append(faults, f)
		}
	}
	return faults
}

// Validate returns every fault of the target.
func (t Target) Validate() []setting.Fault {
	var faults []setting.Fault
	if t.URL.IsZero() {
		faults = append(faults, setting.Faultf("url", "is missing: write https://…"))
	}
	if !t.Secret.IsZero() {
		if _, err := signingKey(t.Secret); err != nil {
			faults = append(faults, setting.Faultf("secret", "%v", err))
		}
	}
	for i, e := range t.Events {
		if !slices.Contains(types(), e) {
			faults = append(faults, setting.Faultf(fmt.Sprintf("events[%d]", i), "must be one of %s", setting.Words(types())))
		}
	}
	return faults
}

// wants tells whether events of the type go to the target.
func (t *Target) wants(kind string) bool {
	return len(t.Events) == 0 || slices.Contains(t.Events, kind)
}

// URL is an http or https URL that is shown without what stands behind its host.
type URL struct {
	text      redact.Secret
	scheme    string
	authority exchange.Authority
}

// Secrets is the URL itself: with most services whoever knows it may post.
func (u URL) Secrets() []redact.Secret {
	if u.text.IsZero() {
		return nil
	}
	return []redact.Secret{u.text}
}

// DecodeSetting takes a URL. Its errors do not repeat what was written.
func (u *URL) DecodeSetting(v any) error {
	text, ok := v.(string)
	parsed, err := url.Parse(text)
	switch {
	case !ok || err != nil || parsed.Opaque != "" || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http":
		return errors.New("must be a URL that begins with https:// (or http://)")
	case parsed.User != nil:
		return errors.New("holds a user or password, which the receiver would not be sent: write it without, and sign with secret")
	case parsed.Fragment != "":
		return errors.New("ends in a fragment (#…), which is never sent: write it without")
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return errors.New("holds a blank or control character")
	}
	port := uint16(443)
	if parsed.Scheme == "http" {
		port = 80
	}
	a, err := exchange.ParseAuthority(parsed.Host, port)
	if err != nil {
		return errors.New("has a host or port that is none")
	}
	*u = URL{redact.NewSecret(text), parsed.Scheme, a}
	return nil
}

// SettingKind describes what may be written.
func (URL) SettingKind() string { return "a URL that begins with https://" }

// IsZero tells whether there is none.
func (u URL) IsZero() bool { return u.text.IsZero() }

// Authority is the host and port that are connected to.
func (u URL) Authority() exchange.Authority { return u.authority }

// Encrypted tells whether nobody on the way can read along.
func (u URL) Encrypted() bool { return u.scheme == "https" }

// String is the scheme and host alone.
func (u URL) String() string {
	if u.IsZero() {
		return ""
	}
	return u.scheme + "://" + u.authority.ForScheme(u.scheme) + "/" + redact.Placeholder
}

// MarshalText is String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// GoString is String.
func (u URL) GoString() string { return u.String() }

// Format is a shape of notifications.
type Format string

// The shapes; the zero value is JSON.
const (
	JSON  Format = "json"
	Slack Format = "slack"
)

// DecodeSetting takes the words.
func (f *Format) DecodeSetting(v any) error {
	switch v {
	case string(JSON), string(Slack):
		*f = Format(v.(string))
		return nil
	}
	return errors.New("must be json or slack")
}

// SettingKind describes what may be written.
func (Format) SettingKind() string { return "json or slack" }

// String is the shape that holds.
func (f Format) String() string {
	if f == "" {
		return string(JSON)
	}
	return string(f)
}

// Timeout is a duration; the zero value is 10 seconds.
type Timeout struct{ written setting.Duration }

const usualTimeout = setting.Duration(10 * time.Second)

// D is the duration that holds.
func (t Timeout) D() time.Duration {
	if t.written == 0 {
		return usualTimeout.D()
	}
	return t.written.D()
}

// DecodeSetting takes a duration within the bounds.
func (t *Timeout) DecodeSetting(v any) error {
	text, _ := v.(string)
	d, err := setting.ParseDuration(text)
	if err != nil || d < minTimeout || d > maxTimeout {
		return fmt.Errorf("must be a duration from %s to %s", setting.Duration(minTimeout), setting.Duration(maxTimeout))
	}
	t.written = setting.Duration(d)
	return nil
}

// SettingKind describes what may be written.
func (Timeout) SettingKind() string { return "a duration such as 10s" }

// String is the duration that holds.
func (t Timeout) String() string { return setting.Duration(t.D()).String() }

// MarshalText is String.
func (t Timeout) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// The length of a signing key, as Standard Webhooks has it.
const minKey, maxKey = 24, 64

// signingKey is the key in a secret of Standard Webhooks: base64, with or without the prefix that says so.
func signingKey(s redact.Secret) ([]byte, error) {
	text := strings.TrimPrefix(s.Reveal(), "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		if key, err = base64.RawStdEncoding.DecodeString(text); err != nil {
			return nil, errors.New("is not base64, with or without whsec_ before it")
		}
	}
	if len(key) < minKey || len(key) > maxKey {
		return nil, fmt.Errorf("holds %d bytes; a key has %d to %d: openssl rand -base64 32 makes one", len(key), minKey, maxKey)
	}
	return key, nil
}
