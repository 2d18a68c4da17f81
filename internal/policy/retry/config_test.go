package retry

import (
	"math"
	"net/http"
	"testing"
	"time"

	"httpowerd/internal/setting"
)

func seconds(n float64) setting.Duration { return setting.Duration(n * float64(time.Second)) }

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	if faults := append(c.Derive(10*time.Minute, Written{}), c.Validate()...); len(faults) > 0 {
		t.Error(faults)
	}
	if c.RetryAfter.Max != seconds(60) || c.Backoff != Default().Backoff {
		t.Errorf("deriving changed the defaults: %+v", c)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"attempts: must be from 1 to 100, is 0":                                                             func(c *Config) { c.Attempts = 0 },
		"attempts: must be from 1 to 100, is 101":                                                           func(c *Config) { c.Attempts = 101 },
		"statuses[1]: must be from 400 to 599, is 200":                                                      func(c *Config) { c.Statuses = []int{503, 200} },
		"statuses[0]: must be from 400 to 599, is 600":                                                      func(c *Config) { c.Statuses = []int{600} },
		"statuses[2]: has 503 a second time":                                                                func(c *Config) { c.Statuses = []int{503, 500, 503} },
		"backoff.base: must be from 0s to 1h, is 2h":                                                        func(c *Config) { c.Backoff.Base = seconds(7200) },
		"backoff.throttled: must be from 0s to 1h, is 2h":                                                   func(c *Config) { c.Backoff.Throttled = seconds(7200) },
		"backoff.max: must be from 0s to 1h, is 2h":                                                         func(c *Config) { c.Backoff.Max = seconds(7200) },
		"retry_after.max: must be from 0s to 1d, is 25h":                                                    func(c *Config) { c.RetryAfter.Max = seconds(25 * 3600) },
		`retry_after.unit: must be s or ms, is "min"`:                                                       func(c *Config) { c.RetryAfter.Unit = "min" },
		"budget.ratio: must be from 0 to 100, is -0.1":                                                      func(c *Config) { c.Budget.Ratio = -0.1 },
		"budget.ratio: must be from 0 to 100, is NaN":                                                       func(c *Config) { c.Budget.Ratio = math.NaN() },
		"budget.floor: must be from 0 to 100000, is +Inf":                                                   func(c *Config) { c.Budget.Floor = math.Inf(1) },
		"budget.ttl: must be from 1s to 1h, is 500ms":                                                       func(c *Config) { c.Budget.TTL = seconds(0.5) },
		"buffer: must be from 0 to 1GiB, is 2GiB":                                                           func(c *Config) { c.Buffer = 2 << 30 },
		"statuses[1]: is 501, which no other attempt would change: remove it":                               func(c *Config) { c.Statuses = []int{500, 501} },
		"failure_when: must be a boolean, is int: compare it with something, as in request.method == 'GET'": func(c *Config) { c.FailureWhen = "response.status" },
		`signal: must be the name of a field, such as Stripe-Should-Retry, is "no field"`:                   func(c *Config) { c.Signal = "no field" },
		"signal: must not be Content-Length, which has another meaning":                                     func(c *Config) { c.Signal = "content-length" },
		`mode: must be enforce or observe, is "off"`:                                                        func(c *Config) { c.Mode = "off" },
	} {
		c := Default()
		change(&c)
		if faults := c.Validate(); len(faults) != 1 || faults[0].Error() != want {
			t.Errorf("told %v; want %s", faults, want)
		}
	}
}

func TestDerive(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*Config)
		total   time.Duration
		written Written
		want    func(Config) bool
		fault   string
	}{
		"a short total":     {nil, 20 * time.Second, Written{Total: true}, func(c Config) bool { return c.RetryAfter.Max == seconds(10) }, ""},
		"no total":          {nil, 0, Written{}, func(c Config) bool { return c.RetryAfter.Max == seconds(60) }, ""},
		"a long wait alone": {func(c *Config) { c.RetryAfter.Max = seconds(3600) }, 10 * time.Minute, Written{RetryAfterMax: true}, func(c Config) bool { return c.RetryAfter.Max == seconds(3600) }, ""},
		"both written": {func(c *Config) { c.RetryAfter.Max = seconds(20) }, 20 * time.Second, Written{Total: true, RetryAfterMax: true}, nil,
			"retry_after.max: is 20s, not shorter than timeout.total (20s): no attempt could follow such a wait"},
		"both written, fitting": {func(c *Config) { c.RetryAfter.Max = seconds(19) }, 20 * time.Second, Written{Total: true, RetryAfterMax: true}, nil, ""},
		"a long base":           {func(c *Config) { c.Backoff.Base = seconds(30) }, 0, Written{BackoffBase: true}, func(c Config) bool { return c.Backoff.Max == seconds(30) }, ""},
		"a short max": {func(c *Config) { c.Backoff.Max = seconds(0.05) }, 0, Written{BackoffMax: true}, func(c Config) bool {
			return c.Backoff.Base == seconds(0.05) && c.Backoff.Throttled == seconds(0.05)
		}, ""},
		"base beyond max": {func(c *Config) { c.Backoff.Base, c.Backoff.Max = seconds(2), seconds(1) }, 0, Written{BackoffBase: true, BackoffMax: true}, nil,
			"backoff.base: is 2s, longer than backoff.max (1s)"},
		"throttled beyond max": {func(c *Config) { c.Backoff.Throttled, c.Backoff.Max = seconds(2), seconds(1) }, 0, Written{BackoffThrottled: true, BackoffMax: true}, nil,
			"backoff.throttled: is 2s, longer than backoff.max (1s)"},
	} {
		config := Default()
		if c.change != nil {
			c.change(&config)
		}
		faults := config.Derive(c.total, c.written)
		if (c.fault == "") != (len(faults) == 0) || len(faults) > 0 && faults[0].Error() != c.fault {
			t.Errorf("%s: told %v", name, faults)
		}
		if c.want != nil && !c.want(config) {
			t.Errorf("%s: %+v", name, config)
		}
	}
}

func TestMethods(t *testing.T) {
	for _, c := range []struct {
		v         any
		text      string
		has, lack []string
	}{
		{"safe", "safe", []string{"GET", "HEAD", "OPTIONS", "TRACE", ""}, []string{"PUT", "DELETE", "POST", "CONNECT", "PROPFIND"}},
		{"idempotent", "idempotent", []string{"GET", "PUT", "DELETE"}, []string{"POST", "PATCH", "CONNECT"}},
		{"all", "all", []string{"GET", "POST", "PATCH", "BREW"}, []string{"CONNECT"}},
		{[]any{"GET", "REPORT"}, "[GET, REPORT]", []string{"GET", "REPORT"}, []string{"HEAD", "POST"}},
		{[]any{}, "[]", nil, []string{"GET"}},
	} {
		var m Methods
		if err := m.DecodeSetting(c.v); err != nil || m.String() != c.text {
			t.Errorf("%v: %v, %v", c.v, m, err)
		}
		for _, method := range c.has {
			if !m.has(method) {
				t.Errorf("%v lacks %s", m, method)
			}
		}
		for _, method := range c.lack {
			if m.has(method) {
				t.Errorf("%v has %s", m, method)
			}
		}
	}
	for _, c := range []struct {
		v    any
		want string
	}{
		{"GET", "must be safe, idempotent, all, or a list of methods such as [GET, PUT]"},
		{true, "must be safe, idempotent, all, or a list of methods such as [GET, PUT]"},
		{[]any{"get"}, `has "get": methods are case-sensitive, write GET`},
		{[]any{"GET", "GET"}, "has GET twice"},
		{[]any{"CONNECT"}, "has CONNECT: a tunnel is only ever made again before anything went through it"},
		{[]any{int64(5)}, "has 5, which is not a method"},
		{[]any{"GET POST"}, "has GET POST, which is not a method"},
	} {
		var m Methods
		if err := m.DecodeSetting(c.v); err == nil || err.Error() != c.want {
			t.Errorf("%v: %v; want %s", c.v, err, c.want)
		}
	}
}

func TestIdempotencyKeySetting(t *testing.T) {
	for _, c := range []struct {
		v    any
		text string
	}{
		{"off", "off"}, {false, "off"},
		{true, "{header: Idempotency-Key, inject: true, quoted: false, methods: [POST, PATCH]}"},
		{map[string]any{}, "{header: Idempotency-Key, inject: true, quoted: false, methods: [POST, PATCH]}"},
		{map[string]any{"header": "paypal-request-id", "quoted": true, "inject": false, "methods": []any{"POST"}},
			"{header: Paypal-Request-Id, inject: false, quoted: true, methods: [POST]}"},
	} {
		k := IdempotencyKey{On: true}
		if err := k.DecodeSetting(c.v); err != nil || k.String() != c.text {
			t.Errorf("%v: %v, %v", c.v, k, err)
		}
	}
	for _, c := range []struct {
		v    any
		want string
	}{
		{"yes", errKey.Error()}, {int64(1), errKey.Error()}, {[]any{}, errKey.Error()},
		{map[string]any{"name": "x"}, "name is not one of its keys: header, inject, quoted, methods"},
		{map[string]any{"header": "no spaces"}, "header must be the name of a field, such as Idempotency-Key"},
		{map[string]any{"header": "content-length"}, "header must not be Content-Length, which has another meaning"},
		{map[string]any{"inject": "yes"}, "inject must be true or false"},
		{map[string]any{"quoted": int64(1)}, "quoted must be true or false"},
		{map[string]any{"methods": "POST"}, "methods must be a list such as [POST, PATCH]"},
		{map[string]any{"methods": []any{"post"}}, `methods has "post": methods are case-sensitive, write POST`},
	} {
		var k IdempotencyKey
		if err := k.DecodeSetting(c.v); err == nil || err.Error() != c.want || k.On {
			t.Errorf("%v: %v; want %s", c.v, err, c.want)
		}
	}
	if http.CanonicalHeaderKey("paypal-request-id") != "Paypal-Request-Id" {
		t.Error("net/http spells fields otherwise")
	}
}
