package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestClientThatLeavesFreesItsPlace: one in flight, one place; who leaves makes room for the next, whether it was in flight or in the queue.
func TestClientThatLeavesFreesItsPlace(t *testing.T) {
	g := newGated()
	r := newRig(t, g, "concurrency: {max: 1, queue: 1, wait: 1m}, retry: {attempts: 1}")
	first, leave := context.WithCancel(t.Context())
	inFlight := r.begin(first, http.MethodGet, "")
	g.arrive(t, 1)
	for range 5 { // in a queue with one place
		ctx, leaveQueue := context.WithCancel(t.Context())
		queued := r.begin(ctx, http.MethodGet, "")
		r.connected(t, 2)
		leaveQueue()
		<-queued
		r.connected(t, 1)
	}
	next := r.begin(t.Context(), http.MethodGet, "", "X-At-Once", "1")
	r.connected(t, 2)
	leave()
	<-inFlight
	if s := <-next; s.status != 200 {
		t.Errorf("the one after those that left got %d %s %v", s.status, s.code, s.err)
	}
	r.admitted(t, "after everybody left")
	r.until(t, "httpowerd_concurrency_active", 0)
	if n := g.left.Load(); n != 1 {
		t.Errorf("%d requests were cancelled at the upstream; want the first one", n)
	}
	r.stop()
}

// TestClientThatLeavesGivesItsTurnBack: the turn of a client that leaves the queue of a limit is the next one's: five that left would have
// been in front of it for longer than it may wait.
func TestClientThatLeavesGivesItsTurnBack(t *testing.T) {
	g := newGated()
	close(g.release)
	r := newRig(t, g, "rate_limit: {requests: 1, per: 3s, burst: 1, wait: 1m, queue: 5, learn: false}")
	r.admitted(t, "the first")
	ctx, leave := context.WithCancel(t.Context())
	var waiting []<-chan said
	for range 5 {
		waiting = append(waiting, r.begin(ctx, http.MethodGet, ""))
	}
	r.queued(t, 5)
	leave()
	for _, w := range waiting {
		<-w
	}
	r.queued(t, 0)
	r.admitted(t, "the one after those that left")
	var records []record
	eventually(t, "both are recorded", func() error {
		if records = r.records(t, func(q record) bool { return q.Status == 200 }); len(records) != 2 {
			return fmt.Errorf("%d are", len(records))
		}
		return nil
	})
	if wait := records[1].LimitWait; wait > 1.5*3000 {
		t.Errorf("it waited %.0f ms behind those that had left", wait)
	}
	r.stop()
}

// TestClientThatLeavesGivesTheProbeBack: of a half-open breaker with one probe, whoever leaves while it is the probe leaves the next one to be it.
func TestClientThatLeavesGivesTheProbeBack(t *testing.T) {
	g := newGated()
	var broken atomic.Bool
	broken.Store(true)
	upstream := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		g.ServeHTTP(w, q)
	})
	r := newRig(t, upstream, "retry: {attempts: 1}, breaker: {consecutive: 1, ratio: 0, open: 1s, open_max: 1s, probes: 1}")
	if s := r.send(t.Context(), http.MethodGet, ""); s.status != 503 || s.code != "" {
		t.Fatalf("%d %s", s.status, s.code)
	}
	if s := r.send(t.Context(), http.MethodGet, ""); s.code != "breaker_open" {
		t.Fatalf("the breaker did not open: %d %s", s.status, s.code)
	}
	broken.Store(false)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	eventually(t, "a probe is at the upstream", func() error {
		if g.arrived.Load() == 0 {
			r.begin(ctx, http.MethodGet, "")
			time.Sleep(100 * time.Millisecond)
			return fmt.Errorf("the breaker is open")
		}
		return nil
	})
	if s := r.send(t.Context(), http.MethodGet, "", "X-At-Once", "1"); s.code != "breaker_open" {
		t.Errorf("beside the probe a request got %d %s", s.status, s.code)
	}
	leave()
	eventually(t, "the next one is the probe", func() error {
		if s := r.send(t.Context(), http.MethodGet, "", "X-At-Once", "1"); s.status != 200 {
			return fmt.Errorf("%d %s", s.status, s.code)
		}
		return nil
	})
	if states := r.counted("httpowerd_breaker_state", "state"); states["closed"] != 1 {
		t.Errorf("the breaker is %v", states)
	}
	r.stop()
}

// connected waits until so many clients are connected.
func (r *rig) connected(t *testing.T, n float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v are connected", n), func() error {
		if got := parseMetrics(r.ask("/metrics"))["httpowerd_connections_active"]; len(got) != 1 || got[0].value != n {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// queued waits until so many requests wait for the limit.
func (r *rig) queued(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d wait", n), func() error {
		if _, got := r.limitOf(t); got != n {
			return fmt.Errorf("%d do", got)
		}
		return nil
	})
}

// limitOf is what the admin API says of the host's only limit.
func (r *rig) limitOf(t *testing.T) (remaining float64, waiting int) {
	t.Helper()
	var view struct {
		Limits []struct {
			Kind      string
			Remaining float64
			Waiting   int
		}
	}
	if err := json.Unmarshal([]byte(r.ask("/api/v1/hosts/"+r.host)), &view); err != nil {
		t.Fatal(err)
	}
	for _, l := range view.Limits {
		if l.Kind == "configured" {
			return l.Remaining, l.Waiting
		}
	}
	t.Fatal("there is no limit")
	return 0, 0
}
