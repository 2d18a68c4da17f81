package audit

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

func TestOff(t *testing.T) {
	tr, err := tryAt(Off, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr.t = t
	tr.events(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	view := tr.Subscribe(ctx)
	tr.Exchange(typical(), nil)
	m := decode(t, string(<-view))
	want(t, "method", m["method"].(string), "POST")
	want(t, "chained", m["seq"], nil)
	tr.end()
	if _, open := <-view; open {
		t.Error("the live view stays open")
	}
	want(t, "records", tr.counter("httpowerd_audit_records_total"), 0)
	want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 0)
	want(t, "reopen", tr.Reopen(), nil)
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, true, standard)
		time.Sleep(time.Second)
		view := tr.Subscribe(t.Context())
		tr.Exchange(typical(), nil)
		line := <-view
		time.Sleep(time.Second)
		want(t, "line", string(line), f.lines()[1])
		tr.end()
		want(t, "the last", summary(t, []string{string(<-view)}), "audit_stopped")
		if _, open := <-view; open {
			t.Error("the live view stays open")
		}
	})
}

// TestRedactions: what is hidden is counted by kind, in the record and in the metric.
func TestRedactions(t *testing.T) {
	f := &fake{}
	tr := on(t, f, true, standard)
	x := typical()
	x.URL = "https://api.example.com/?token=" + strings.Repeat("s3cr3t", 4)
	tr.Exchange(x, nil)
	tr.Exchange(x, nil)
	tr.end()
	all := strings.Join(f.lines(), "\n")
	if strings.Contains(all, "s3cr3t") {
		t.Error(all)
	}
	want(t, "redactions", tr.counter("httpowerd_redactions_total"), 2)
	if n := decode(t, f.lines()[1])["redactions"].(map[string]any); len(n) != 1 {
		t.Errorf("redactions %v", n)
	}
}

// TestLateRecords: a record that the writer makes is the one that the exchange would have made, and what it hides is counted.
func TestLateRecords(t *testing.T) {
	f := &fake{}
	tr := on(t, f, true, standard)
	x, end := typical(), time.Date(2026, 3, 4, 5, 6, 7, 9000, time.UTC)
	x.URL += "&token=" + strings.Repeat("s3cr3t", 4)
	tr.Exchange(x, &Extra{End: end})
	tr.events(1)
	tr.Exchange(x, &Extra{End: end, RequestHeader: http.Header{}}) // which is made at once
	tr.end()
	lines := f.lines()
	chained(t, lines)
	want(t, "order", summary(t, lines[2:3]), "loaded:0")
	late, once := decode(t, lines[1]), decode(t, lines[3])
	delete(once, "request_headers")
	for _, m := range []map[string]any{late, once} {
		for _, key := range []string{"seq", "prev", "hash"} {
			delete(m, key)
		}
	}
	if !reflect.DeepEqual(late, once) || late["redactions"] == nil {
		t.Errorf("late %v\nat once %v", late, once)
	}
	want(t, "redactions", tr.counter("httpowerd_redactions_total"), 2)
	want(t, "records", tr.counter("httpowerd_audit_records_total"), 5)
}

// TestUnmadeRecord: a defect in the making of one record does not end the daemon, and the trail says which exchange it has no record of.
func TestUnmadeRecord(t *testing.T) {
	f := &fake{}
	tr := on(t, f, true, standard)
	tr.Exchange(typical(), &Extra{End: time.Now(), Redactor: &redact.Redactor{}}) // which nobody made
	tr.Exchange(typical(), &Extra{End: time.Now()})
	tr.end()
	lines := f.lines()
	chained(t, lines)
	m := decode(t, lines[1])
	want[any](t, "event", m["event"], unmadeEvent)
	want[any](t, "id", m["id"], typical().ID)
	want[any](t, "the next", decode(t, lines[2])["url"], typical().URL)
	if !strings.Contains(tr.said.String(), "could not be made") {
		t.Error(tr.said.String())
	}
}

// TestCardNumbersEverywhere: wherever a client can put a card number, the record has none.
func TestCardNumbersEverywhere(t *testing.T) {
	const pan = "4111" + "111111" + "111111"
	f := &fake{}
	tr := on(t, f, true, standard)
	x := typical()
	x.OwnID = false
	x.ID, x.Method, x.URL, x.Target.Host = "order-"+pan, pan, "http://api.example.com/"+pan+"?card="+pan, pan+".example.com"
	x.Update(func(s *exchange.Story) { s.Detail = "the card " + pan })
	h := http.Header{"X-Card": {pan}}
	tr.Exchange(x, &Extra{RequestHeader: h, ResponseHeader: h, RequestType: "text/plain", RequestBody: []byte(pan), ResponseType: "application/json",
		ResponseBody: []byte(`{"card":"` + pan + `"}`)})
	tr.Event(KindAdmin, slog.String("event", pan), slog.Any("list", []string{pan}), slog.Group("g", slog.String("a", pan)))
	tr.end()
	if all := strings.Join(f.lines(), "\n"); strings.Contains(all, pan) {
		t.Error(all)
	}
	if n := tr.counter("httpowerd_redactions_total"); n < 10 {
		t.Errorf("%v redactions", n)
	}
}

// TestKindsAreBounded: more kinds than there can be share one label.
func TestKindsAreBounded(t *testing.T) {
	f := &fake{}
	tr := on(t, f, true, standard)
	defer tr.end()
	for i := range 3 * maxKinds {
		tr.metrics.kind(kindNumber(i)).Inc()
	}
	families, _ := tr.reg.Gather()
	for _, m := range families {
		if m.GetName() == "httpowerd_redactions_total" && len(m.GetMetric()) > maxKinds+1 {
			t.Errorf("%d labels", len(m.GetMetric()))
		}
	}
	want(t, "all", tr.counter("httpowerd_redactions_total"), 3*maxKinds)
}

// TestRegistryTwice: a second Log on the same registry is an error and leaves nothing behind.
func TestRegistryTwice(t *testing.T) {
	f := &fake{}
	tr := on(t, f, true, standard)
	defer tr.end()
	g := &fake{}
	if _, err := start(Config{Output: "test"}, g, opened{chain: chainNew}, environment{tr.reg, tr.said.logger(), standard}); err == nil || !g.closed {
		t.Errorf("error %v, closed %v", err, g.closed)
	}
}

func kindNumber(i int) redact.Kind { return redact.Kind(strings.Repeat("k", i+1)) }
