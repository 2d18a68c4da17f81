package trace

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// Whatever a client sends, spans are few, short and valid: a collector refuses a whole batch for one byte that is not UTF-8.
func TestSpansAreBounded(t *testing.T) {
	long := strings.Repeat("a\xff", 100_000)
	x := &exchange.Exchange{ID: long, Kind: exchange.KindRequest, Mode: exchange.ModePlain, Start: time.Now(), Client: long, Tenant: long, Method: long,
		URL: "http://" + long + "?" + long, Policy: long, Target: exchange.Authority{Host: long, Port: 1},
		Trace: exchange.Trace{ID: [16]byte{1}, Span: exchange.NewSpan(), First: exchange.NewSpan(), Sampled: true}}
	for range 1000 {
		x.NextAttempt("status", time.Second)
		i := x.BeginAttempt(time.Now())
		x.Connected(i, long, false)
		x.EndAttempt(i, time.Now(), 0, exchange.UpstreamReset)
		x.Waited(time.Second)
		x.Observe(long)
	}
	all := spansOf(x, &End{Time: time.Now(), Redactor: redact.Default()})
	if len(all) != maxAttempts+1 || len(all[0].events) > 64+maxAttempts+1 {
		t.Errorf("%d spans, %d events", len(all), len(all[0].events))
	}
	for _, s := range all {
		size := len(s.name)
		for _, a := range s.attributes {
			text := a.Value.String()
			if size += len(text); a.Value.Type() == attribute.STRING && len(text) > maxURL || !utf8.ValidString(text) {
				t.Errorf("%s has %d bytes", a.Key, len(text))
			}
		}
		if size > 128<<10 || s.name != "HTTP" || !utf8.ValidString(s.name) {
			t.Errorf("%s has %d bytes", s.name, size)
		}
	}
}

// A client that left, and an attempt that lost, have not failed; a refusal below 500 is no error of a server.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		outcome exchange.Code
		status  int
		attempt exchange.Code
		server  codes.Code
		client  codes.Code
	}{
		{exchange.OK, 200, "", codes.Unset, codes.Unset},
		{exchange.OK, 200, exchange.Superseded, codes.Unset, codes.Unset},
		{exchange.ClientGone, 0, exchange.ClientGone, codes.Unset, codes.Unset},
		{exchange.RateLimited, 429, "", codes.Unset, codes.Unset},
		{exchange.UpstreamTimeout, 504, exchange.UpstreamTimeout, codes.Error, codes.Error},
		{exchange.UpstreamReset, 0, exchange.UpstreamReset, codes.Error, codes.Error},
	} {
		x := finished(nil)
		x.Trace.Sampled = true
		i := x.BeginAttempt(time.Now())
		x.EndAttempt(i, time.Now(), 0, c.attempt)
		x.Update(func(s *exchange.Story) { s.Status, s.Outcome = c.status, c.outcome })
		all := spansOf(x, &End{Time: time.Now(), Redactor: redact.Default()})
		if all[0].status.Code != c.server || all[2].status.Code != c.client {
			t.Errorf("%s %d: %v and %v", c.outcome, c.status, all[0].status, all[2].status)
		}
	}
}

// An upgraded request's URL has the scheme that its sender meant, and the attempt's the one that was spoken.
func TestSentURL(t *testing.T) {
	x := finished(nil)
	x.Mode = exchange.ModeUpgrade
	all := spansOf(x, &End{Time: time.Now(), Redactor: redact.Default()})
	full := func(s *span) string {
		for _, a := range s.attributes {
			if a.Key == "url.full" {
				return a.Value.AsString()
			}
		}
		return ""
	}
	if full(all[0]) != x.URL || full(all[1]) != "https://"+strings.TrimPrefix(x.URL, "http://") {
		t.Errorf("%q and %q", full(all[0]), full(all[1]))
	}
}

// A key in a host's name is hidden in server.address, too, which has lost the case that gives it away.
func TestHostInItsCase(t *testing.T) {
	key := "AKIA" + "Q3EGUYTRBW7KXJ2M"
	x := finished(nil)
	x.URL, x.Target.Host = "http://"+key+".test/", strings.ToLower(key)+".test"
	for _, s := range spansOf(x, &End{Time: time.Now(), Redactor: redact.Default()}) {
		if all := strings.ToLower(fmt.Sprint(s.attributes)); strings.Contains(all, strings.ToLower(key[4:])) {
			t.Error(all)
		}
	}
}

// Off, tracing allocates nothing.
func TestOffAllocatesNothing(t *testing.T) {
	off := New(nil, discard(), redact.Default())
	x := &exchange.Exchange{}
	for name, h := range map[string]map[string][]string{"no trace": fields("Accept", "*/*"), "a trace": fields(traceparent, theirs, tracestate, "foo=1")} {
		if n := testing.AllocsPerRun(100, func() {
			off.Begin(x, h)
			Carry(x, h)
			i := x.Traceparent(0)
			_ = i
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
