package retry

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

func when(text string) func(*Config) { return func(c *Config) { c.FailureWhen = text } }

func packed(t testing.TB, coding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	default:
		w, _ = flate.NewWriter(&b, 6)
	}
	_, _ = io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFailureWhen(t *testing.T) {
	unhappy := `{"ok": false, "code": 7}`
	js := map[string]string{"Content-Type": "application/json"}
	coded := func(name string) map[string]string { return map[string]string{"Content-Encoding": name} }
	for name, c := range map[string]struct {
		when     string
		method   string
		first    step
		attempts int
		unjudged string // why the first answer could not be judged
	}{
		"JSON":                     {`response.status == 200 && response.json.ok == false`, "GET", step{status: 200, body: unhappy, header: js}, 2, ""},
		"JSON that is fine":        {`response.json.ok == false`, "GET", step{status: 200, body: `{"ok": true}`}, 1, ""},
		"no such member":           {`response.json.missing == 1`, "GET", step{status: 200, body: unhappy}, 1, "error"},
		"not JSON":                 {`response.json == null`, "GET", step{status: 200, body: "<html>"}, 2, ""},
		"text":                     {`response.body.contains("try again")`, "GET", step{status: 200, body: "please try again"}, 2, ""},
		"not UTF-8":                {`response.body.endsWith("x")`, "GET", step{status: 200, body: "\xffx"}, 2, ""},
		"headers":                  {`"x-fault" in response.headers`, "GET", step{status: 204, header: map[string]string{"X-Fault": "1"}}, 2, ""},
		"status":                   {`response.status == 202`, "GET", step{status: 202}, 2, ""},
		"a 404":                    {`response.status == 404 && request.path.startsWith("/v1/")`, "GET", step{status: 404}, 2, ""},
		"request":                  {`request.method == "PUT"`, "PUT", step{status: 200}, 2, ""},
		"not for POST":             {`response.status == 200`, "POST", step{status: 200}, 1, ""},
		"the upstream says no":     {`response.status == 200`, "GET", step{status: 200, header: map[string]string{"X-Should-Retry": "false"}}, 1, ""},
		"gzip":                     {`response.json.ok == false`, "GET", step{status: 200, body: packed(t, "gzip", unhappy), header: coded("gzip")}, 2, ""},
		"deflate":                  {`response.json.ok == false`, "GET", step{status: 200, body: packed(t, "deflate", unhappy), header: coded("Deflate")}, 2, ""},
		"deflate without a frame":  {`response.json.ok == false`, "GET", step{status: 200, body: packed(t, "raw", unhappy), header: coded("deflate")}, 2, ""},
		"a gzip bomb":              {`response.body != ""`, "GET", step{status: 200, body: packed(t, "gzip", strings.Repeat("0", 1<<20)), header: coded("gzip")}, 1, "body"},
		"broken gzip":              {`response.body != ""`, "GET", step{status: 200, body: "no gzip", header: coded("gzip")}, 1, "body"},
		"another coding":           {`response.body != ""`, "GET", step{status: 200, body: unhappy, header: coded("br")}, 1, "body"},
		"the bound":                {`size(response.body) == 65536`, "GET", step{status: 200, body: strings.Repeat("x", 64<<10)}, 2, ""},
		"too large":                {`size(response.body) > 0`, "GET", step{status: 200, body: strings.Repeat("x", 64<<10+1)}, 1, "body"},
		"too large, not looked at": {`response.status == 201 && response.body != ""`, "GET", step{status: 200, body: strings.Repeat("x", 64<<10+1)}, 1, ""},
		"an event stream":          {`response.body != ""`, "GET", step{status: 200, body: "data: x\n\n", header: map[string]string{"Content-Type": "text/event-stream; charset=utf-8"}}, 1, "body"},
		"HEAD":                     {`response.body == ""`, "HEAD", step{status: 200}, 2, ""},
		"deep JSON":                {`response.json.ok == false`, "GET", step{status: 200, body: strings.Repeat("[", 60_000)}, 1, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := scene{method: c.method, config: when(c.when), steps: []step{c.first, {status: 201, body: `{"ok": true}`, header: map[string]string{"X-Should-Retry": "false"}}}}.play(t)
				if len(r.requests) != c.attempts {
					t.Fatalf("%d attempts", len(r.requests))
				}
				if c.attempts == 2 {
					if r.status() != 201 || r.story.Attempts[1].Reason != "predicate" || r.count("httpowerd_retries_total", "predicate") != 1 {
						t.Errorf("status %d, %+v", r.status(), r.story.Attempts)
					}
				} else if r.text != c.first.body || r.status() != c.first.status {
					t.Errorf("status %d, %d bytes of %d", r.status(), len(r.text), len(c.first.body))
				}
				noted := slices.Contains(r.story.Unapplied, "retry.failure_when")
				if noted != (c.unjudged != "") || noted && r.count("httpowerd_retry_unjudged_total", c.unjudged) != 1 {
					t.Errorf("noted %v, want %q", r.story.Unapplied, c.unjudged)
				}
			})
		})
	}
}

// A failure that the expression found to the end is the upstream's own answer, complete, and is noted once.
// TestFails: whoever chooses among answers is told the same, and each has its body to the end.
func TestFails(t *testing.T) {
	if Fails(Default()) != nil || Fails(Config{FailureWhen: "true", Mode: setting.Observe}) != nil {
		t.Error("something is a failure without an expression, or in observe mode")
	}
	not := `response.json.ok == false`
	for name, c := range map[string]struct {
		when, signal string
		status       int
		body         string
		field, value string
		want         bool
	}{
		"a failure":         {not, "", 200, `{"ok":false}`, "", "", true},
		"none":              {not, "", 200, `{"ok":true}`, "", "", false},
		"cannot be told":    {not, "", 200, `{}`, "", "", false},
		"a stream":          {not, "", 200, `{"ok":false}`, "Content-Type", "text/event-stream", false},
		"not again":         {not, "", 200, `{"ok":false}`, "X-Should-Retry", "false", false},
		"the vendor's no":   {not, "vendor-should-retry", 200, `{"ok":false}`, "Vendor-Should-Retry", "false", false},
		"by its head alone": {`"x-busy" in response.headers`, "", 200, "x", "X-Busy", "1", true},
		"other protocols":   {`true`, "", 101, "", "", "", false},
	} {
		r := request(t.Context(), newExchange("GET"), nil)
		resp := &http.Response{StatusCode: c.status, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(c.body))}
		if c.field != "" {
			resp.Header.Set(c.field, c.value)
		}
		resp, got := Fails(Config{FailureWhen: c.when, Signal: c.signal})(r, resp)
		if b, err := io.ReadAll(resp.Body); got != c.want || string(b) != c.body || err != nil {
			t.Errorf("%s: %v, body %q, %v", name, got, b, err)
		}
	}
	broken := &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))}
	if _, failed := Fails(Config{FailureWhen: not})(request(t.Context(), newExchange("GET"), nil), broken); !failed {
		t.Error("what breaks off is no failure")
	}
}

func TestFailureWhenToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := scene{config: when(`response.json.ok == false`), steps: []step{{status: 200, body: `{"ok": false}`}}}.play(t)
		if len(r.requests) != 4 || r.text != `{"ok": false}` || r.story.NotRetried != "attempts" || r.resp.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%d attempts, %q, %q, %v", len(r.requests), r.text, r.story.NotRetried, r.resp.Header)
		}
		r = scene{config: when(`response.status == 503 || response.json.none`), steps: []step{{status: 503}, {status: 200, body: "{}"}}}.play(t)
		if len(r.requests) != 2 || r.text != "{}" || len(r.story.Unapplied) != 1 {
			t.Errorf("%d attempts, %q, noted %v", len(r.requests), r.text, r.story.Unapplied)
		}
	})
}

// trickle is an answer's body that comes a piece at a time.
type trickle struct {
	pieces []string
	pause  time.Duration
	end    error
	closed bool
	read   int
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.closed {
		return 0, errors.New("read after close")
	}
	if len(b.pieces) == 0 {
		return 0, b.end
	}
	time.Sleep(b.pause)
	n := copy(p, b.pieces[0])
	b.read += n
	if b.pieces[0] = b.pieces[0][n:]; b.pieces[0] == "" {
		b.pieces = b.pieces[1:]
	}
	return n, nil
}

func (b *trickle) Close() error { b.closed = true; return nil }

// answering is a stage over an upstream that answers with these bodies, their lengths unknown, and 200.
func answering(t *testing.T, config func(*Config), bodies ...*trickle) (http.RoundTripper, *int) {
	t.Helper()
	s := newStand(t, config)
	n := 0
	next := exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		x := exchange.From(r.Context())
		x.EndAttempt(x.BeginAttempt(time.Now()), time.Now(), 200, "")
		n++
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: bodies[min(n, len(bodies))-1], ContentLength: -1}, nil
	})
	linked := *s.stage.(*plan)
	linked.next = next
	return &linked, &n
}

// A body that comes slowly, or goes on, is handed to the client as it comes.
func TestFailureWhenDoesNotHoldUp(t *testing.T) {
	for name, c := range map[string]struct {
		body trickle
		held time.Duration // before the client has the head
	}{
		"slow":  {trickle{pieces: slices.Repeat([]string{"x"}, 20), pause: time.Second, end: io.EOF}, glimpseTime},
		"long":  {trickle{pieces: slices.Repeat([]string{strings.Repeat("x", 1000)}, 100), pause: time.Millisecond, end: io.EOF}, 66 * time.Millisecond},
		"short": {trickle{pieces: []string{"x", "y"}, pause: time.Second, end: io.EOF}, 2 * time.Second},
		"stuck": {trickle{pieces: []string{"x", "y"}, pause: time.Hour, end: io.EOF}, glimpseTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want := strings.Join(c.body.pieces, "")
				stage, _ := answering(t, when(`response.body == "?"`), &c.body)
				begin := time.Now()
				x := newExchange("GET")
				resp, err := stage.RoundTrip(request(t.Context(), x, nil))
				if err != nil || time.Since(begin) != c.held || x.Story().Upstream != c.held {
					t.Fatalf("%v; the head came after %v, %v of which were the upstream's; want %v", err, time.Since(begin), x.Story().Upstream, c.held)
				}
				got, err := io.ReadAll(resp.Body)
				if string(got) != want || err != nil {
					t.Errorf("the client read %d bytes of %d, %v", len(got), len(want), err)
				}
				resp.Body.Close()
				if !c.body.closed {
					t.Error("the body was not closed")
				}
			})
		})
	}
}

// What has come of a slow body reaches the client before the rest of it.
func TestFailureWhenHandsOverWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &trickle{pieces: []string{"first", "second"}, pause: 4 * time.Second, end: io.EOF}
		stage, _ := answering(t, when(`response.body == "?"`), b)
		begin := time.Now()
		resp, err := stage.RoundTrip(request(t.Context(), newExchange("GET"), nil))
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 100)
		if n, err := resp.Body.Read(p); string(p[:n]) != "first" || err != nil || time.Since(begin) != glimpseTime {
			t.Errorf("read %q, %v after %v", p[:n], err, time.Since(begin))
		}
		if n, err := resp.Body.Read(p); string(p[:n]) != "second" || err != nil || time.Since(begin) != 8*time.Second {
			t.Errorf("read %q, %v after %v", p[:n], err, time.Since(begin))
		}
		resp.Body.Close()
	})
}

// A body that breaks off while the expression wants it is worth another attempt: nothing of it has gone to the client.
func TestFailureWhenTheBodyBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &trickle{pieces: []string{"ha"}, end: io.ErrUnexpectedEOF}
		fine := &trickle{pieces: []string{"whole"}, end: io.EOF}
		stage, n := answering(t, when(`response.body == "?"`), broken, &trickle{end: io.ErrUnexpectedEOF}, fine)
		x := newExchange("GET")
		resp, err := stage.RoundTrip(request(t.Context(), x, nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != "whole" || err != nil || *n != 3 || x.Story().Attempts[1].Reason != "reset" || !broken.closed || len(x.Story().Unapplied) != 1 {
			t.Errorf("%q, %v after %d attempts: %+v", got, err, *n, x.Story().Attempts)
		}
		synctest.Wait()
		stage, n = answering(t, func(c *Config) { when(`response.body == "?"`)(c); c.Methods = Methods{name: Safe} }, &trickle{pieces: []string{"ha"}, end: io.ErrUnexpectedEOF})
		resp, err = stage.RoundTrip(request(t.Context(), newExchange("POST"), nil))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); string(got) != "ha" || err != io.ErrUnexpectedEOF || *n != 1 {
			t.Errorf("%q, %v after %d attempts", got, err, *n)
		}
	})
}

// Upstreams are asked only for codings that can be read, and only where an expression reads bodies.
func TestFailureWhenAsksForReadableCodings(t *testing.T) {
	for _, c := range []struct {
		when, sent, want string
		mode             setting.Mode
	}{
		{`response.body == ""`, "gzip, deflate, br, zstd", "gzip, deflate", setting.Enforce},
		{`response.json.ok`, "br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip;q=0.8", setting.Enforce},
		{`response.json.ok`, "br", "identity", setting.Enforce},
		{`response.json.ok`, "gzip", "gzip", setting.Enforce},
		{`response.json.ok`, "", "", setting.Enforce},
		{`response.json.ok`, "br", "br", setting.Observe},
		{`response.status == 200`, "br", "br", setting.Enforce},
		{``, "br", "br", setting.Enforce},
	} {
		synctest.Test(t, func(t *testing.T) {
			header := map[string]string{}
			if c.sent != "" {
				header["Accept-Encoding"] = c.sent
			}
			r := scene{config: func(conf *Config) { conf.FailureWhen, conf.Mode = c.when, c.mode }, header: header, steps: []step{{status: 404}}}.play(t)
			if got := r.requests[0].Header.Get("Accept-Encoding"); got != c.want {
				t.Errorf("%s: asked for %q; want %q", c.when, got, c.want)
			}
		})
	}
}

func BenchmarkFailureWhen(b *testing.B) {
	for _, text := range []string{`response.status == 299`, `response.status == 200 && response.json.ok == false`} {
		b.Run(text, func(b *testing.B) {
			c := Default()
			c.FailureWhen = text
			stage, r := benchStage(b, c)
			next := exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"ok": true}`)), ContentLength: 12}, nil
			})
			linked := *stage.(*plan)
			linked.next = next
			r.Body = nil
			b.ReportAllocs()
			for b.Loop() {
				_, _ = linked.RoundTrip(r)
			}
		})
	}
}
