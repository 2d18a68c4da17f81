package retry

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/setting"
)

// Config is the block retry. Start from Default, then Derive.
type Config struct {
	// Attempts in all, the first included; 1 retries nothing.
	Attempts int `yaml:"attempts"`
	// Methods that may be sent again after the upstream may have acted on them: safe, idempotent, all, or a list. all repeats writes. Whatever
	// is written here, a request of which nothing was sent may be sent again.
	Methods Methods `yaml:"methods"`
	// Statuses that make an answer worth another attempt; an empty list leaves failures of the connection.
	Statuses []int `yaml:"statuses"`
	// Backoff is the wait before an attempt where the upstream names none.
	Backoff Backoff `yaml:"backoff"`
	// RetryAfter is how an upstream's own wait is honoured; it takes the place of Backoff.
	RetryAfter RetryAfter `yaml:"retry_after"`
	// Budget bounds retries against first attempts, so that an upstream in trouble does not get a multiple of its load.
	Budget Budget `yaml:"budget"`
	// Buffer is how much of a request's body is kept for another attempt. A larger one streams and is sent once.
	Buffer setting.Size `yaml:"buffer"`
	// FailureWhen would make an answer a failure by an expression; this release has none.
	FailureWhen string `yaml:"failure_when"`
	// IdempotencyKey makes writes that carry a key repeatable, for an upstream that honours it.
	IdempotencyKey IdempotencyKey `yaml:"idempotency_key"`
}

// Backoff doubles with each attempt up to Max; what is waited is drawn evenly between nothing and that.
type Backoff struct {
	// Base is the bound of the first wait.
	Base setting.Duration `yaml:"base"`
	// Throttled is the bound of the first wait after 429 and 503.
	Throttled setting.Duration `yaml:"throttled"`
	// Max bounds every wait.
	Max setting.Duration `yaml:"max"`
}

// RetryAfter is about the field of that name (RFC 9110 section 10.2.3).
type RetryAfter struct {
	// Max is the longest wait that is honoured; with a longer one the answer goes to the client at once. Where nobody wrote it, it is the
	// smaller of 60s and half of timeout.total.
	Max setting.Duration `yaml:"max"`
	// Unit of a bare number: s, as the standard says, or ms.
	Unit string `yaml:"unit"`
}

// Budget allows Ratio retries for each first attempt, and Floor for each second, counted over the last TTL.
type Budget struct {
	// Ratio of retries to first attempts.
	Ratio float64 `yaml:"ratio"`
	// Floor is what is allowed besides, each second, however few requests there are.
	Floor float64 `yaml:"floor"`
	// TTL is how long a first attempt and a retry count.
	TTL setting.Duration `yaml:"ttl"`
}

// Default is the block with nothing written in it.
func Default() Config {
	return Config{
		Attempts: 4, Methods: Methods{name: Idempotent},
		Statuses:   []int{408, 425, 429, 500, 502, 503, 504},
		Backoff:    Backoff{Base: setting.Duration(100 * time.Millisecond), Throttled: setting.Duration(time.Second), Max: setting.Duration(10 * time.Second)},
		RetryAfter: RetryAfter{Max: setting.Duration(time.Minute), Unit: Seconds},
		Budget:     Budget{Ratio: 0.2, Floor: 3, TTL: setting.Duration(10 * time.Second)},
		Buffer:     1 << 20,
	}
}

// Units of RetryAfter.Unit.
const (
	Seconds      = "s"
	Milliseconds = "ms"
)

// Names of groups of methods (RFC 9110 section 9.2).
const (
	Safe       = "safe"
	Idempotent = "idempotent"
	All        = "all"
)

var (
	safe       = []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace}
	idempotent = append(slices.Clone(safe), http.MethodPut, http.MethodDelete)
)

// Methods is a group's name or a list. Its zero value has none.
type Methods struct {
	name string
	list []string
}

var errMethods = errors.New("must be safe, idempotent, all, or a list of methods such as [GET, PUT]")

// DecodeSetting takes a group's name or a list.
func (m *Methods) DecodeSetting(v any) error {
	switch v := v.(type) {
	case string:
		if v != Safe && v != Idempotent && v != All {
			return errMethods
		}
		*m = Methods{name: v}
		return nil
	case []any:
		list, err := methodList(v)
		*m = Methods{list: list}
		return err
	}
	return errMethods
}

// methodList reads methods. They are case-sensitive, so one in lower case is a mistake that would never match.
func methodList(items []any) ([]string, error) {
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		switch {
		case !ok || !token(s):
			return nil, fmt.Errorf("has %v, which is not a method", item)
		case s == http.MethodConnect:
			return nil, errors.New("has CONNECT: a tunnel is only ever made again before anything went through it")
		case s != strings.ToUpper(s):
			return nil, fmt.Errorf("has %q: methods are case-sensitive, write %s", s, strings.ToUpper(s))
		case slices.Contains(list, s):
			return nil, fmt.Errorf("has %s twice", s)
		}
		list = append(list, s)
	}
	return list, nil
}

// SettingKind describes what may be written.
func (Methods) SettingKind() string { return "safe, idempotent, all, or a list of methods" }

// String is the group's name, or the list as it is written.
func (m Methods) String() string {
	if m.name != "" {
		return m.name
	}
	return "[" + strings.Join(m.list, ", ") + "]"
}

// MarshalText is String.
func (m Methods) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// has tells whether the method may be sent again. "" is GET, as in net/http.
func (m Methods) has(method string) bool {
	if method == "" {
		method = http.MethodGet
	}
	switch m.name {
	case All:
		return method != http.MethodConnect
	case Safe:
		return slices.Contains(safe, method)
	case Idempotent:
		return slices.Contains(idempotent, method)
	}
	return slices.Contains(m.list, method)
}

// IdempotencyKey says which field makes a write repeatable. Its zero value is off.
type IdempotencyKey struct {
	On      bool
	Header  string   // canonical
	Inject  bool     // a key is made where the client sent none; all attempts of a request carry the same
	Quoted  bool     // a made key is a structured-field string, in quotes
	Methods []string // that the key makes repeatable
}

var errKey = errors.New("must be off, or a mapping such as {header: Idempotency-Key, inject: true, quoted: false, methods: [POST, PATCH]}")

// DecodeSetting takes off, or a mapping of the values that differ from the usual ones.
func (k *IdempotencyKey) DecodeSetting(v any) error {
	fields, isMapping := v.(map[string]any)
	switch {
	case v == "off" || v == false:
		*k = IdempotencyKey{}
		return nil
	case v == "on" || v == true:
	case !isMapping:
		return errKey
	}
	key := IdempotencyKey{On: true, Header: "Idempotency-Key", Inject: true, Methods: []string{http.MethodPost, http.MethodPatch}}
	for name, value := range fields {
		if err := key.field(name, value); err != nil {
			return err
		}
	}
	*k = key
	return nil
}

func (k *IdempotencyKey) field(name string, value any) error {
	switch name {
	case "header":
		s, ok := value.(string)
		if !ok || !token(s) {
			return errors.New("header must be the name of a field, such as Idempotency-Key")
		}
		if k.Header = http.CanonicalHeaderKey(s); slices.Contains(notKeys, k.Header) {
			return fmt.Errorf("header must not be %s, which has another meaning", k.Header)
		}
	case "inject", "quoted":
		b, ok := value.(bool)
		if !ok {
			return fmt.Errorf("%s must be true or false", name)
		}
		if name == "inject" {
			k.Inject = b
		} else {
			k.Quoted = b
		}
	case "methods":
		items, ok := value.([]any)
		if !ok || len(items) == 0 {
			return errors.New("methods must be a list such as [POST, PATCH]")
		}
		list, err := methodList(items)
		if err != nil {
			return fmt.Errorf("methods %w", err)
		}
		k.Methods = list
	default:
		return fmt.Errorf("%s is not one of its keys: header, inject, quoted, methods", name)
	}
	return nil
}

// notKeys are fields that a made key would break.
var notKeys = []string{"Authorization", "Connection", "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Via"}

// SettingKind describes what may be written.
func (IdempotencyKey) SettingKind() string {
	return "off, or a mapping of header, inject, quoted and methods"
}

// String is off, or the mapping on one line.
func (k IdempotencyKey) String() string {
	if !k.On {
		return "off"
	}
	return fmt.Sprintf("{header: %s, inject: %t, quoted: %t, methods: [%s]}", k.Header, k.Inject, k.Quoted, strings.Join(k.Methods, ", "))
}

// MarshalText is String.
func (k IdempotencyKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Written says which of the values that depend on each other somebody wrote; Total is timeout's.
type Written struct{ Total, RetryAfterMax, BackoffBase, BackoffThrottled, BackoffMax bool }

// Derive fits the values that nobody wrote to those that somebody did, and returns a fault where two written ones contradict each other.
// total is the time that all attempts have (timeout.total); 0 is without end.
func (c *Config) Derive(total time.Duration, w Written) []setting.Fault {
	var faults []setting.Fault
	switch longest := setting.Duration(total); {
	case total <= 0:
	case !w.RetryAfterMax:
		c.RetryAfter.Max = min(c.RetryAfter.Max, longest/2)
	case w.Total && c.RetryAfter.Max >= longest:
		faults = append(faults, setting.Faultf("retry_after.max", "is %s, not shorter than timeout.total (%s): no attempt could follow such a wait",
			c.RetryAfter.Max, longest))
	}
	b := &c.Backoff
	if !w.BackoffMax {
		b.Max = max(b.Max, b.Base, b.Throttled)
		return faults
	}
	for _, bound := range []struct {
		key     string
		value   *setting.Duration
		written bool
	}{{"backoff.base", &b.Base, w.BackoffBase}, {"backoff.throttled", &b.Throttled, w.BackoffThrottled}} {
		switch {
		case *bound.value <= b.Max:
		case bound.written:
			faults = append(faults, setting.Faultf(bound.key, "is %s, longer than backoff.max (%s)", *bound.value, b.Max))
		default:
			*bound.value = b.Max
		}
	}
	return faults
}

// Bounds of what may be written.
const (
	maxAttempts = 100
	maxBackoff  = time.Hour
	maxWait     = 24 * time.Hour
	maxRatio    = 100
	maxFloor    = 100_000
	minTTL      = time.Second
	maxTTL      = time.Hour
	maxBuffer   = 1 << 30
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	fault := func(key, format string, args ...any) { faults = append(faults, setting.Faultf(key, format, args...)) }
	span := func(key string, v setting.Duration, least, most time.Duration) {
		if v.D() < least || v.D() > most {
			fault(key, "must be from %s to %s, is %s", setting.Duration(least), setting.Duration(most), v)
		}
	}
	if c.Attempts < 1 || c.Attempts > maxAttempts {
		fault("attempts", "must be from 1 to %d, is %d", maxAttempts, c.Attempts)
	}
	for i, s := range c.Statuses {
		switch {
		case s < 400 || s > 599:
			fault(fmt.Sprintf("statuses[%d]", i), "must be from 400 to 599, is %d", s)
		case slices.Contains(c.Statuses[:i], s):
			fault(fmt.Sprintf("statuses[%d]", i), "has %d a second time", s)
		}
	}
	span("backoff.base", c.Backoff.Base, 0, maxBackoff)
	span("backoff.throttled", c.Backoff.Throttled, 0, maxBackoff)
	span("backoff.max", c.Backoff.Max, 0, maxBackoff)
	span("retry_after.max", c.RetryAfter.Max, 0, maxWait)
	if c.RetryAfter.Unit != Seconds && c.RetryAfter.Unit != Milliseconds {
		fault("retry_after.unit", "must be s or ms, is %q", c.RetryAfter.Unit)
	}
	if !(c.Budget.Ratio >= 0 && c.Budget.Ratio <= maxRatio) {
		fault("budget.ratio", "must be from 0 to %d, is %v", maxRatio, c.Budget.Ratio)
	}
	if !(c.Budget.Floor >= 0 && c.Budget.Floor <= maxFloor) {
		fault("budget.floor", "must be from 0 to %d, is %v", maxFloor, c.Budget.Floor)
	}
	span("budget.ttl", c.Budget.TTL, minTTL, maxTTL)
	if c.Buffer < 0 || c.Buffer > maxBuffer {
		fault("buffer", "must be from 0 to 1GiB, is %s", c.Buffer)
	}
	if c.FailureWhen != "" {
		fault("failure_when", "is not available in this release: remove it")
	}
	return faults
}

// token is the production of that name (RFC 9110 section 5.6.2).
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
