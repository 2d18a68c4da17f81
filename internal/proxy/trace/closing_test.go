package trace

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"httpowerd/internal/redact"
)

// TestCloseWaitsForNoOldCollector: one that hangs, and is no longer in use, holds the end of the process up no longer than the one in use may.
func TestCloseWaitsForNoOldCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tracer := New(nil, discard(), redact.Default())
	if err := tracer.Use(Config{Endpoint: "http://" + l.Addr().String(), Sample: 1, Service: "s", Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	tracer.End(finished(tracer), End{Time: time.Now()})
	if err := tracer.Use(Config{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	closing := time.Now()
	tracer.Close(ctx)
	if took := time.Since(closing); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	if n := testutil.ToFloat64(tracer.metrics.dropped.WithLabelValues(lostShutdown)); n != 2 {
		t.Errorf("%v spans are said to be lost; want 2", n)
	}
}

// TestLateSpansAreCounted: whoever ends an exchange while its collector goes puts spans where nobody reads; each is counted once.
func TestLateSpansAreCounted(t *testing.T) {
	tracer, k := tracerOf(t, Config{Sample: 1, Timeout: time.Second})
	s := tracer.current.Load().sink
	const each = 500
	begin := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			x := finished(tracer)
			for i := range each {
				if i == each/4 {
					<-begin
				}
				s.put(spansOf(x, &End{Time: time.Now(), Redactor: redact.Default()}))
			}
		})
	}
	all.Go(func() {
		close(begin)
		tracer.Close(t.Context())
	})
	all.Wait()
	s.put(spansOf(finished(tracer), &End{Time: time.Now(), Redactor: redact.Default()}))
	n := float64(len(k.spans))
	for _, why := range []string{lostQueue, lostExport, lostShutdown} {
		n += testutil.ToFloat64(tracer.metrics.dropped.WithLabelValues(why))
	}
	const want = 4*each*2 + 1 // the last is of an exchange that nobody traces
	if n != want && n != want+1 || len(s.queue) > 0 {
		t.Errorf("%v spans are accounted for, %d wait for ever; want %d", n, len(s.queue), want)
	}
}
