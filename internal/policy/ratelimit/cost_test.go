package ratelimit

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

// priced is a limit of 1000 tokens that come back in 1000 seconds.
func priced(t *testing.T, cost, estimate string, edit func(*Config)) Level {
	t.Helper()
	return level("defaults", 1000, 1000*second, func(c *Config) {
		c.Wait = 0
		for text, into := range map[string]*Cost{cost: &c.Cost, estimate: &c.Estimate} {
			if text == "" {
				continue
			}
			if err := into.DecodeSetting(text); err != nil {
				t.Fatal(text, err)
			}
		}
		if edit != nil {
			edit(c)
		}
	})
}

// left is how many tokens the only limit has.
func (r *rig) left() (tokens float64) {
	r.room.Limits(func(s LimitStatus) {
		if s.Kind == Configured {
			tokens = s.Remaining - s.Debt
		}
	})
	return math.Round(tokens*1e6) / 1e6
}

func post(body string) func(*http.Request, *exchange.Exchange) {
	return func(r *http.Request, _ *exchange.Exchange) {
		r.Method, r.ContentLength, r.Body = http.MethodPost, int64(len(body)), io.NopCloser(strings.NewReader(body))
	}
}

func text(status int, kind, body string, lines ...string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		resp := reply(status, append(lines, "Content-Type: "+kind)...)
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return resp, nil
	}
}

const usage = `{"usage": {"prompt_tokens": 10, "total_tokens": 250}}`

func TestCostOfRequest(t *testing.T) {
	for name, c := range map[string]struct {
		cost  string
		body  string
		spent float64
		fault string
	}{
		"a number":                {"7", "", 7, ""},
		"the method":              {"request.method == 'POST' ? 5 : 1", "", 5, ""},
		"a field":                 {"int(request.headers['x-units']) * 2", "", 6, ""},
		"the path":                {"request.path.startsWith('/v1') ? 3 : 1", "", 3, ""},
		"the rest":                {"size(request.host) + request.port + size(request.query) + (request.scheme == 'https' ? 1 : 0)", "", 15 + 443 + 1 + 1, ""},
		"the length":              {"request.content_length / 2", "12345678", 4, ""},
		"the body":                {"size(request.body)", "12345678", 8, ""},
		"json":                    {"request.json.max_tokens", `{"max_tokens": 40}`, 40, ""},
		"a sum of json":           {"request.json.n * request.json.max_tokens", `{"max_tokens": 40, "n": 2}`, 80, ""},
		"a fraction":              {"request.json.x + 0.5", `{"x": 1}`, 1.5, ""},
		"optional":                {"has(request.json.max) ? request.json.max : 9", `{}`, 9, ""},
		"nothing":                 {"request.json.max", `{"max": 0}`, 0, ""},
		"no such key":             {"request.json.max", `{}`, 1, costFailed},
		"no json":                 {"request.json.max", `max`, 1, costFailed},
		"too large for json":      {"request.json.max", `{"max": 5, "x": "` + strings.Repeat("x", maxSeen) + `"}`, 1, costFailed},
		"too large for all of it": {"size(request.body)", strings.Repeat("x", 2*maxSeen), 4600, ""},
		"no number":               {"request.json.max", `{"max": "5"}`, 1, costFailed},
		"no finite number":        {"0.0 / request.json.x", `{"x": 0.0}`, 1, costFailed},
		"below nothing":           {"request.json.max", `{"max": -5}`, 0, costClamped},
		"beyond reason":           {"request.json.max", `{"max": 1e300}`, 4600, costClamped}, // an hour's and the bucket: the most that is owed
		"division by nothing":     {"1 / size(request.body)", ``, 1, costFailed},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			var seen string
			r.answer = func(req *http.Request) (*http.Response, error) {
				all, err := io.ReadAll(req.Body)
				if err != nil {
					t.Error(err)
				}
				seen = string(all)
				return reply(200), nil
			}
			chain := r.load(priced(t, c.cost, "", nil))
			r.pass(chain, api, post(c.body), header("X-Units", "3"), path("/v1/things"), func(req *http.Request, _ *exchange.Exchange) { req.URL.RawQuery = "a=1" })
			if seen != c.body {
				t.Errorf("%s: the upstream got %d bytes of %d", name, len(seen), len(c.body))
			}
			if got := 1000 - r.left(); got != c.spent {
				t.Errorf("%s: %v tokens; want %v", name, got, c.spent)
			}
			for _, fault := range []string{costFailed, costClamped, costUnseen} {
				want := -1.0
				if fault == c.fault {
					want = 1
				}
				if got := r.metric("rate_limit_cost_faults_total", fault, api); got != want {
					t.Errorf("%s: %s %v times; want %v", name, fault, got, want)
				}
			}
		})
	}
}

func TestCostOfAnswer(t *testing.T) {
	stream := "event: message_start\ndata: {\"message\": {\"usage\": {\"input_tokens\": 30}}, \"usage\": null}\n\n" +
		"data: {\"delta\": {\"text\": \"hello\"}}\n\ndata: {\"usage\": {\"output_tokens\": 12}}\n\ndata: {\"usage\": null}\n\ndata: [DONE]\n\n"
	long := stream[:strings.Index(stream, "data: {\"delta\"")] + strings.Repeat("data: {\"delta\": {\"text\": \"hello\"}}\n\n", 10_000) +
		stream[strings.Index(stream, "data: {\"usage\": {\"output"):]
	both := "response.json.message.usage.input_tokens + response.json.usage.output_tokens"
	total := "response.json.usage.total_tokens"
	for name, c := range map[string]struct {
		cost, estimate string
		answer         func(*http.Request) (*http.Response, error)
		before, spent  float64
		fault          string
	}{
		"usage":                 {total, "", text(200, "application/json", usage), 1, 250, ""},
		"usage, estimated":      {total, "100", text(200, "application/json", usage), 100, 250, ""},
		"less than estimated":   {total, "600", text(200, "application/json", usage), 600, 250, ""},
		"estimated by request":  {total, "request.json.max_tokens", text(200, "application/json", usage), 90, 250, ""},
		"nothing before":        {total, "0", text(200, "application/json", usage), 0, 250, ""},
		"the status":            {"response.status >= 500 ? 0 : 10", "5", text(503, "text/plain", "no"), 0, 0, ""},
		"a field":               {"int(response.headers['x-cost'])", "", text(200, "text/plain", "", "X-Cost: 33"), 33, 33, ""},
		"the length":            {"response.content_length", "", text(200, "text/plain", "12345"), 5, 5, ""},
		"the text":              {"size(response.body)", "", text(200, "text/plain", "12345"), 1, 5, ""},
		"request and answer":    {total + " + request.json.max_tokens", "", text(200, "application/json", usage), 1, 340, ""},
		"no usage":              {total, "70", text(200, "application/json", `{}`), 70, 70, costFailed},
		"no json":               {total, "70", text(200, "text/plain", `usage`), 70, 70, costFailed},
		"no number":             {total, "70", text(200, "application/json", `{"usage": {"total_tokens": "many"}}`), 70, 70, costFailed},
		"below nothing":         {total, "70", text(200, "application/json", `{"usage": {"total_tokens": -4}}`), 70, 0, costClamped},
		"beyond reason":         {total, "70", text(200, "application/json", `{"usage": {"total_tokens": 1e99}}`), 70, 4600, costClamped},
		"encoded":               {total, "70", text(200, "application/json", usage, "Content-Encoding: gzip"), 70, 70, costUnseen},
		"too large":             {total, "70", text(200, "application/json", usage+strings.Repeat(" ", maxSeen)), 70, 70, costUnseen},
		"a stream":              {both, "", text(200, "text/event-stream; charset=utf-8", stream), 1, 42, ""},
		"a long stream":         {both, "", text(200, "text/event-stream", long), 1, 42, ""},
		"a stream without data": {both, "", text(200, "text/event-stream", ": ping\n\n"), 1, 1, costFailed},
		"no body at all":        {total, "70", func(*http.Request) (*http.Response, error) { return reply(204), nil }, 70, 70, costFailed},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.answer = c.answer
			chain := r.load(priced(t, c.cost, c.estimate, nil))
			resp := r.pass(chain, api, post(`{"max_tokens": 90}`))
			if got := 1000 - r.left(); got != c.before {
				t.Errorf("%s: %v before the answer was read; want %v", name, got, c.before)
			}
			if _, err := io.Copy(io.Discard, iotest.HalfReader(resp.Body)); err != nil {
				t.Error(err)
			}
			_ = resp.Body.Close()
			if got := 1000 - r.left(); got != c.spent {
				t.Errorf("%s: %v; want %v", name, got, c.spent)
			}
			for _, fault := range []string{costFailed, costClamped, costUnseen} {
				want := -1.0
				if fault == c.fault {
					want = 1
				}
				if got := r.metric("rate_limit_cost_faults_total", fault, api); got != want {
					t.Errorf("%s: %s %v times; want %v", name, fault, got, want)
				}
			}
		})
	}
}

// What an answer costs more is owed: those who come next wait for it.
func TestCostMakesDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answer = text(200, "application/json", `{"usage": {"total_tokens": 1100}}`)
		chain := r.load(priced(t, "response.json.usage.total_tokens", "10", func(c *Config) { c.Wait = setting.Duration(5 * time.Minute) }))
		for _, want := range []time.Duration{0, 110 * second} {
			begin := time.Now()
			resp, err := chain.RoundTrip(request(t.Context(), api))
			if err != nil || time.Since(begin) != want {
				t.Fatalf("%v after %v; want %v", err, time.Since(begin), want)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		if got := r.refused(chain, exchange.RateLimited, api); got != 1100*second {
			t.Errorf("Retry-After %v", got)
		}
		if got := r.left(); got != -1090 {
			t.Errorf("%v left", got)
		}
	})
}

// An answer that is not read to its end stays as it was estimated; one whose length is known may end without its EOF being read.
func TestCostOfAPartOfAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answer = text(200, "application/json", usage)
		chain := r.load(priced(t, "response.json.usage.total_tokens", "70", nil))
		resp := r.pass(chain, api)
		_, _ = resp.Body.Read(make([]byte, 10))
		_, _ = resp.Body.Close(), resp.Body.Close()
		if got := 1000 - r.left(); got != 70 {
			t.Errorf("left in the middle: %v", got)
		}
		resp = r.pass(chain, api)
		_, _ = io.ReadFull(resp.Body, make([]byte, len(usage)))
		_ = resp.Body.Close()
		if got := 1000 - r.left(); got != 320 {
			t.Errorf("read but for its EOF: %v", got)
		}
		r.answer = func(*http.Request) (*http.Response, error) {
			resp := reply(200)
			resp.ContentLength, resp.Body = -1, io.NopCloser(io.MultiReader(strings.NewReader(usage), iotest.ErrReader(errors.New("reset"))))
			return resp, nil
		}
		resp = r.pass(chain, api)
		_, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := 1000 - r.left(); got != 390 {
			t.Errorf("cut off: %v", got)
		}
		if got := r.metric("rate_limit_cost_faults_total", costUnseen, api); got != 2 {
			t.Errorf("not seen whole: %v", got)
		}
	})
}

// Refused by a stage below, an estimate is given back; failed, it stays; tunnels and connections keep their estimate.
func TestCostWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(priced(t, "response.json.n", "70", nil))
		r.answer = func(*http.Request) (*http.Response, error) { return nil, exchange.Refuse(exchange.BreakerOpen, "no") }
		_, _ = chain.RoundTrip(request(t.Context(), api))
		if got := 1000 - r.left(); got != 0 {
			t.Errorf("refused: %v", got)
		}
		r.answer = func(*http.Request) (*http.Response, error) {
			return nil, &exchange.Failure{Code: exchange.UpstreamReset}
		}
		_, _ = chain.RoundTrip(request(t.Context(), api))
		r.answer = func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 101, Header: http.Header{}, Body: connection{}}, nil
		}
		resp := r.pass(chain, api)
		if _, ok := resp.Body.(io.Writer); !ok {
			t.Error("a connection cannot be written to any more")
		}
		r.pass(chain, api, func(req *http.Request, _ *exchange.Exchange) { req.Method = http.MethodConnect })
		if got := 1000 - r.left(); got != 210 {
			t.Errorf("failed, and two connections: %v", got)
		}
	})
}

type connection struct{ io.ReadWriter }

func (connection) Close() error { return nil }

// An answer that must be read is asked for without a coding; others are left alone.
func TestCostAsksForAPlainAnswer(t *testing.T) {
	for cost, want := range map[string]string{"response.json.n": "identity", "response.status": "gzip, br", "request.json.n": "gzip, br"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			got := ""
			r.answer = func(req *http.Request) (*http.Response, error) {
				got = req.Header.Get("Accept-Encoding")
				return reply(200), nil
			}
			req := request(t.Context(), api, header("Accept-Encoding", "gzip, br"))
			if _, err := r.load(priced(t, cost, "", nil)).RoundTrip(req); err != nil || got != want || req.Header.Get("Accept-Encoding") != "gzip, br" {
				t.Errorf("%s: %v, asked for %q; want %q", cost, err, got, want)
			}
		})
	}
}

// What only watches asks for nothing else, and changes nothing: answers are decoded where they come coded.
func TestCostObservedOfCodedAnswers(t *testing.T) {
	gzipped := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	for name, c := range map[string]struct {
		kind, body string
		spent      float64
		fault      string
	}{
		"short":     {"application/json", gzipped(usage), 250, ""},
		"too large": {"application/json", gzipped(usage + strings.Repeat(" ", maxSeen)), 70, costUnseen},
		"cut off":   {"application/json", gzipped(usage)[:30], 70, costUnseen},
		"a lie":     {"application/json", usage, 70, costUnseen},
		"a stream":  {"text/event-stream", gzipped("data: " + usage + "\n\n"), 70, costUnseen},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			asked := ""
			r.answer = func(req *http.Request) (*http.Response, error) {
				asked = req.Header.Get("Accept-Encoding")
				return text(200, c.kind, c.body, "Content-Encoding: gzip")(req)
			}
			chain := r.load(priced(t, "response.json.usage.total_tokens", "70", func(c *Config) { c.Mode = setting.Observe }))
			resp, err := chain.RoundTrip(request(t.Context(), api, header("Accept-Encoding", "gzip, br")))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != c.body || resp.Header.Get("Content-Encoding") != "gzip" || asked != "gzip, br" {
				t.Errorf("%s: %v, asked for %q, answered %q in %q", name, err, asked, got, resp.Header.Get("Content-Encoding"))
			}
			if got := 1000 - r.left(); got != c.spent {
				t.Errorf("%s: %v; want %v", name, got, c.spent)
			}
			if c.fault != "" && r.metric("rate_limit_cost_faults_total", c.fault, api) != 1 {
				t.Errorf("%s: not counted as %s", name, c.fault)
			}
		})
	}
}

// In observe mode costs are reckoned as well, and hold nobody.
func TestCostObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.answer = text(200, "application/json", `{"n": 2000}`)
		chain := r.load(priced(t, "response.json.n", "10", func(c *Config) { c.Mode = setting.Observe }))
		for i := range 2 {
			req := request(t.Context(), api)
			resp, err := chain.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(resp.Body)
			if got := fmt.Sprint(exchange.From(req.Context()).Story().Observed); got != []string{"[]", "[rate_limited]"}[i] {
				t.Errorf("request %d: %s", i, got)
			}
		}
	})
}

// A request whose body cannot be read is sent on as it is: the upstream side finds out.
func TestCostOfABrokenBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		broken := errors.New("the client left")
		var got string
		var err error
		r.answer = func(req *http.Request) (*http.Response, error) {
			var all []byte
			all, err = io.ReadAll(req.Body)
			got = string(all)
			return reply(200), nil
		}
		chain := r.load(priced(t, "size(request.body)", "", nil))
		r.pass(chain, api, func(req *http.Request, _ *exchange.Exchange) {
			req.Method, req.Body = "POST", io.NopCloser(io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(broken)))
		})
		if got != "begin" || !errors.Is(err, broken) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestCostSetting(t *testing.T) {
	for text, fine := range map[string]bool{"5": true, "request.json.n": true, "response.json.n * 2.5": true, "": false, "request.": false, "'a'": false,
		"request.method": false, "true": false, "1.5": true, "99999999999": false, "-99999999999": false} {
		var c Cost
		if err := c.DecodeSetting(text); (err == nil) != fine {
			t.Errorf("%q: %v", text, err)
		} else if fine && c.String() != text {
			t.Errorf("%q became %q", text, c)
		}
	}
	for _, v := range []any{true, 1.5, nil, []any{}, map[string]any{}} {
		if err := new(Cost).DecodeSetting(v); err == nil {
			t.Errorf("%v was taken", v)
		}
	}
}

func FuzzAnswerCost(f *testing.F) {
	f.Add(usage, "application/json", 7)
	f.Add("data: {\"usage\": {\"total_tokens\": 5}}\n\n", "text/event-stream", 3)
	f.Add("data: {\"usage\":", "text/event-stream", 1)
	f.Add(`{"usage": {"total_tokens": 1e309}}`, "", 100)
	program, _, err := compileCost("response.json.usage.total_tokens")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, kind string, step int) {
		resp := reply(200)
		resp.Header.Set("Content-Type", kind)
		a := newAnswer(resp)
		for rest := []byte(body); len(rest) > 0; {
			n := min(len(rest), max(1, step))
			a.see(rest[:n])
			rest = rest[n:]
		}
		if len(a.begin) > maxSeen || len(a.end) > 2*streamEnd {
			t.Errorf("%d and %d bytes are kept", len(a.begin), len(a.end))
		}
		n, _, why := evaluate(program, costValues{answer: a})
		if !(n >= 0 && n <= maxRequests) || len(why) > 150 {
			t.Errorf("%v, %s", n, why)
		}
	})
}
