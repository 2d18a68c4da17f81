package ratelimit

import (
	"slices"
	"strings"
	"testing"
	"time"

	"httpowerd/internal/setting"
)

func TestDefaults(t *testing.T) {
	c := Default()
	if faults := c.Validate(); len(faults) > 0 || c.Limits() || !c.Learn {
		t.Errorf("%+v: %v", c, faults)
	}
	c.Requests, c.Per = 100, setting.Duration(time.Second)
	if faults := c.Validate(); len(faults) > 0 || !c.Limits() || c.burst() != 100 {
		t.Errorf("%+v: %v", c, faults)
	}
}

// Every rule of Validate, just inside and just beyond it.
func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Config)
		want []string // the beginnings of the faults; none: valid
	}{
		"requests alone":         {func(c *Config) { c.Per = 0 }, []string{"per: is missing or 0"}},
		"per alone":              {func(c *Config) { c.Requests = 0 }, []string{"requests: is missing or 0"}},
		"requests below 0":       {func(c *Config) { c.Requests = -1 }, []string{"requests: must be from 1 to 1000000000, is -1"}},
		"requests, the most":     {func(c *Config) { c.Requests = maxRequests }, nil},
		"requests beyond":        {func(c *Config) { c.Requests = maxRequests + 1 }, []string{"requests: must be"}},
		"per, the least":         {func(c *Config) { c.Per = setting.Duration(time.Millisecond) }, nil},
		"per below":              {func(c *Config) { c.Per = setting.Duration(time.Microsecond) }, []string{"per: must be from 1ms to 31d, is 1µs"}},
		"per below 0":            {func(c *Config) { c.Per = -1 }, []string{"per: must be"}},
		"per, the most":          {func(c *Config) { c.Per = setting.Duration(31 * 24 * time.Hour) }, nil},
		"per beyond":             {func(c *Config) { c.Per = setting.Duration(31*24*time.Hour + 1) }, []string{"per: must be"}},
		"burst of 1":             {func(c *Config) { c.Burst = 1 }, nil},
		"burst below 0":          {func(c *Config) { c.Burst = -1 }, []string{"burst: must be from 1 to 1000000000, is -1"}},
		"burst beyond":           {func(c *Config) { c.Burst = maxRequests + 1 }, []string{"burst: must be"}},
		"cost of nothing":        {func(c *Config) { c.Cost = Tokens(0) }, []string{"cost: must be from 1 to burst (10), is 0"}},
		"cost of all":            {func(c *Config) { c.Cost = Tokens(10) }, nil},
		"cost of more":           {func(c *Config) { c.Cost = Tokens(11) }, []string{"cost: must be from 1 to burst (10), is 11"}},
		"cost of more than goes": {func(c *Config) { c.Burst, c.Cost = 3, Tokens(4) }, []string{"cost: must be from 1 to burst (3), is 4"}},
		"wait of nothing":        {func(c *Config) { c.Wait = 0 }, nil},
		"wait, the most":         {func(c *Config) { c.Wait = setting.Duration(time.Hour) }, nil},
		"wait beyond":            {func(c *Config) { c.Wait = setting.Duration(time.Hour + 1) }, []string{"wait: must be from 0s to 1h"}},
		"wait below 0":           {func(c *Config) { c.Wait = -1 }, []string{"wait: must be"}},
		"queue of nobody":        {func(c *Config) { c.Queue = 0 }, nil},
		"queue, the most":        {func(c *Config) { c.Queue = maxQueue }, nil},
		"queue beyond":           {func(c *Config) { c.Queue = maxQueue + 1 }, []string{"queue: must be from 0 to 1000000, is 1000001"}},
		"queue below 0":          {func(c *Config) { c.Queue = -1 }, []string{"queue: must be"}},
		"every part":             {func(c *Config) { c.Key = []string{"tenant", "credential", "path", "header:X-A", "header:x-b"} }, nil},
		"no part":                {func(c *Config) { c.Key = []string{"method"} }, []string{`key: "method" is not a part: write tenant, credential, path or header:NAME`}},
		"a header without name":  {func(c *Config) { c.Key = []string{"header:"} }, []string{`key: "header:" does not name a header`}},
		"a header of no name":    {func(c *Config) { c.Key = []string{"header:X A"} }, []string{`key: "header:X A" does not name a header`}},
		"a header that never is": {func(c *Config) { c.Key = []string{"header:host"} }, []string{`key: "header:host" never reaches the limit`}},
		"hop by hop":             {func(c *Config) { c.Key = []string{"header:Proxy-Authorization"} }, []string{`key: "header:Proxy-Authorization" never`}},
		"a part twice":           {func(c *Config) { c.Key = []string{"path", "tenant", "path"} }, []string{"key: names a part twice"}},
		"scope":                  {func(c *Config) { c.Scope = "host" }, []string{`scope: must be one of authority, pattern, is "host"`}},
		"charge":                 {func(c *Config) { c.Charge = "" }, []string{`charge: must be one of attempt, exchange, is ""`}},
		"dialect":                {func(c *Config) { c.Dialect = "git" }, []string{"dialect: must be one of auto, anthropic, openai,"}},
		"reset":                  {func(c *Config) { c.Reset = "unix" }, []string{"reset: must be one of auto, seconds, milliseconds, epoch, epoch-ms, duration, date"}},
		"mode":                   {func(c *Config) { c.Mode = "dry" }, []string{`mode: must be one of enforce, observe, is "dry"`}},
		"learning only":          {func(c *Config) { *c = Default() }, nil},
		"nothing at all":         {func(c *Config) { *c = Default(); c.Learn = false }, []string{"does nothing: write requests and per, or learn: true, or off"}},
		"a limit's keys without one": {func(c *Config) {
			*c = Default()
			c.Burst, c.Key, c.Scope, c.Charge, c.Cost = 5, []string{"path"}, ScopePattern, ChargeExchange, Tokens(2)
		}, []string{"burst: needs requests", "key: needs requests", "scope: needs requests", "charge: needs requests", "cost: needs requests"}},
		"all at once": {func(c *Config) { c.Requests, c.Wait, c.Queue, c.Scope = -5, -1, -1, "x" }, []string{"requests:", "wait:", "queue:", "scope:"}},
	} {
		config := Default()
		config.Requests, config.Per = 10, setting.Duration(time.Second)
		c.edit(&config)
		var got []string
		for _, f := range config.Validate() {
			got = append(got, f.Error())
		}
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
}
