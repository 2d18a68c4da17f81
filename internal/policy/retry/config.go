package retry

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"httpowerd/internal/exchange"
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
	// FailureWhen is a CEL expression over response that makes an answer a failure although its status is none; empty: none does. One that fails
	// while it runs makes nothing a failure.
	FailureWhen string `yaml:"failure_when"`
	// Signal is a vendor's own form of X-Should-Retry: read from answers like it, and written as false beside it on what was retried out. Empty:
	// there is none.
	Signal string `yaml:"signal"`
	// IdempotencyKey makes writes that carry a key repeatable, for an upstream that honours it.
	IdempotencyKey IdempotencyKey `yaml:"idempotency_key"`
	// Mode observe counts and notes what would be sent again; it sends nothing more and makes no keys.
	Mode setting.Mode `yaml:"mode"`
	// Kept tells that a stage above keeps answers for other requests: they are judged then even where nothing is sent again.
	Kept bool `yaml:"-"`
}

// Backoff doubles with each attempt up to Max; what is waited is drawn evenly between nothing and that.
type Backoff struct {
	// Base is the bound of the first wait.
	Base setting.Duration `yaml:"base"`
	// Throttled is the bound of the first wait after 429, 503 and 529.
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

// usualStatuses are those of Default.
var usualStatuses = []int{408, 425, 429, 500, 502, 503, 504}

// Default is the block with nothing written in it.
func Default() Config {
	return Config{
		Attempts: 4, Methods: Methods{name: Idempotent},
		Statuses:   slices.Clone(usualStatuses),
		Backoff:    Backoff{Base: setting.Duration(100 * time.Millisecond), Throttled: setting.Duration(time.Second), Max: setting.Duration(10 * time.Second)},
		RetryAfter: RetryAfter{Max: setting.Duration(time.Minute), Unit: Seconds},
		Budget:     Budget{Ratio: 0.2, Floor: 3, TTL: setting.Duration(10 * time.Second)},
		Buffer:     1 << 20,
		Mode:       setting.Enforce,
	}
}

// Units of RetryAfter.Unit.
const (
	Seconds      = "s"
	Milliseconds = "ms"
)

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
		case s == http.StatusNotImplemented:
			fault(fmt.Sprintf("statuses[%d]", i), "is 501, which no other attempt would change: remove it")
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
		if _, err := compile(c.FailureWhen); err != nil {
			fault("failure_when", "%v", err)
		}
	}
	switch {
	case c.Signal == "":
	case !exchange.IsToken(c.Signal):
		fault("signal", "must be the name of a field, such as Stripe-Should-Retry, is %q", c.Signal)
	case slices.Contains(notKeys, http.CanonicalHeaderKey(c.Signal)):
		fault("signal", "must not be %s, which has another meaning", http.CanonicalHeaderKey(c.Signal))
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		fault("mode", "must be enforce or observe, is %q", c.Mode)
	}
	return faults
}
