package exchange

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestStory(t *testing.T) {
	x := &Exchange{}
	if From(NewContext(context.Background(), x)) != x {
		t.Fatal("the context lost the exchange")
	}
	now := time.Unix(1000, 0)
	first := x.BeginAttempt(now)
	x.Connected(first, "192.0.2.1:443", false)
	x.EndAttempt(first, now.Add(time.Second), 0, UpstreamReset)
	x.NextAttempt(ReasonReset, 2*time.Second)
	second := x.BeginAttempt(now.Add(3 * time.Second))
	x.EndAttempt(second, now.Add(4*time.Second), 200, "")
	third := x.BeginAttempt(now.Add(4 * time.Second))
	x.EndAttempt(third, now.Add(4*time.Second), 200, "")
	s := x.Story()
	want := []Attempt{
		{N: 1, Error: UpstreamReset, Duration: time.Second, Address: "192.0.2.1:443"},
		{N: 2, Status: 200, Reason: ReasonReset, Wait: 2 * time.Second, Duration: time.Second},
		{N: 3, Status: 200},
	}
	for i, w := range want {
		got := s.Attempts[i]
		got.begin, got.ended = time.Time{}, false
		if got != w {
			t.Errorf("attempt %d: %+v; want %+v", i, got, w)
		}
	}
	if s.Backoff != 2*time.Second || s.Upstream != 2*time.Second {
		t.Errorf("backoff %v, upstream %v", s.Backoff, s.Upstream)
	}
}

func TestChainOrder(t *testing.T) {
	var order string
	stage := func(name string) Stage {
		return Stage{Name: name, Wrap: func(next http.RoundTripper) http.RoundTripper {
			return RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
				order += name
				return next.RoundTrip(r)
			})
		}}
	}
	end := RoundTripperFunc(func(*http.Request) (*http.Response, error) { order += "."; return nil, nil })
	_, _ = Chain(end, stage("a"), stage("b"), stage("c")).RoundTrip(nil)
	if order != "abc." {
		t.Errorf("the stages ran as %q", order)
	}
}

func TestRefusalAndFailure(t *testing.T) {
	cause := errors.New("cause")
	r := &Refusal{Code: TooLarge, Status: http.StatusRequestHeaderFieldsTooLarge, Cause: cause}
	if r.HTTPStatus() != 431 || !errors.Is(r, cause) {
		t.Errorf("%+v", r)
	}
	if got := Refuse(BreakerOpen, "x").HTTPStatus(); got != 503 {
		t.Errorf("breaker_open is %d", got)
	}
	for code, reason := range map[Code]string{UpstreamDNS: "dns", UpstreamConnect: "connect", UpstreamTLS: "tls", UpstreamTimeout: "timeout",
		UpstreamReset: "reset", UpstreamProtocol: "reset"} {
		if got := (&Failure{Code: code}).Reason(); got != reason {
			t.Errorf("%s is %s; want %s", code, got, reason)
		}
	}
	if info := Code("nonsense").Info(); info.Status != 500 {
		t.Errorf("an unknown code is %d", info.Status)
	}
}

func TestPattern(t *testing.T) {
	for policy, want := range map[string]string{"": "", "api.example.com": "api.example.com", "*.example.com:8443#writes": "*.example.com:8443",
		"api.example.com@billing": "api.example.com", "api.example.com#a@b@billing": "api.example.com"} {
		if got := (&Exchange{Policy: policy}).Pattern(); got != want {
			t.Errorf("%s: %q", policy, got)
		}
	}
}
