package exchange

import (
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"
)

type deaf struct{}

func (deaf) Inform(int, http.Header) {}

// TestDetach fails when a field of Exchange or Story is added and nobody decided what a detached one does with it.
func TestDetach(t *testing.T) {
	x := &Exchange{ID: "id", Kind: KindRequest, Mode: ModePlain, Start: time.Unix(1, 0), Client: "192.0.2.1:1", Tenant: "t", Method: "GET", URL: "u",
		Scheme: "https", Target: Authority{Host: "h", Port: 1}, Policy: "p", Host: "l", TraceID: "trace", Trace: Trace{Sampled: true}, Door: 1,
		Informational: deaf{}, Repeats: true, OwnID: true}
	b := x.Detach()
	from, to := reflect.ValueOf(x).Elem(), reflect.ValueOf(b).Elem()
	for i := range from.NumField() {
		f := from.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		if from.Field(i).IsZero() || to.Field(i).IsZero() {
			t.Errorf("a detached exchange loses %s", f.Name)
		}
	}
	if b.Label() != "l" {
		t.Errorf("label %q", b.Label())
	}

	now := time.Unix(1000, 0)
	x.EndAttempt(x.BeginAttempt(now), now.Add(time.Second), 500, "")
	x.Observe("one")
	b.EndAttempt(b.BeginAttempt(now), now.Add(2*time.Second), 200, "")
	b.Waited(time.Minute)
	b.Observe("two")
	b.Relabel("reached")
	b.Update(func(s *Story) { s.Breaker, s.NotRetried, s.Backoff = "closed", "budget", time.Hour })
	x.Join(b)
	s := x.Story()
	if len(s.Attempts) != 2 || s.Attempts[1].N != 2 || s.Attempts[1].Status != 200 || s.Upstream != 3*time.Second || s.LimitWait != time.Minute ||
		s.Backoff != time.Hour || s.Breaker != "closed" || s.NotRetried != "budget" || !slices.Equal(s.Observed, []string{"one", "two"}) ||
		x.Label() != "reached" {
		t.Errorf("%+v, label %s", s, x.Label())
	}
	b.EndAttempt(0, now.Add(time.Hour), 599, "")
	if x.Story().Attempts[1].Status != 200 {
		t.Error("the detached exchange still writes to the exchange it was joined to")
	}
}
