package breaker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// fresh is a rig as after a restart.
func (r *rig) fresh(edit func(*Config), data []byte) *rig {
	r.Helper()
	next := newRig(r.T, edit)
	if err := next.room.Import(data); err != nil {
		r.Fatal(err)
	}
	return next
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newRig(t, nil)
		old.fail(errReset)
		old.get(5)
		left := time.Until(state.WholeSecond(time.Now().Add(old.room.Status()[0].RetryAfter)))
		data := old.room.Export()
		time.Sleep(10 * time.Second) // the daemon is away
		r := old.fresh(nil, data)
		if s := r.room.Status(); len(s) != 1 || s[0].State != Open || s[0].RetryAfter != left-10*time.Second || s[0].Opened != 1 || s[0].Reason == "" {
			t.Errorf("before anybody asked: %+v; want %v", s, left-10*time.Second)
		}
		if again := r.room.Export(); string(again) != string(data) {
			t.Errorf("what nobody asked for is exported as\n%s\nwas\n%s", again, data)
		}
		r.status(200)
		if refusal := r.get(1); refusal == nil || refusal.RetryAfter > left-10*time.Second || refusal.RetryAfter < left-11*time.Second {
			t.Errorf("%+v", refusal)
		}
		r.is(Open)
		if len(r.change) != 0 || r.circuit().tally.sum != (counts{}) {
			t.Errorf("a restored state is no news: %+v", r.change)
		}
		if again := r.room.Export(); string(again) != string(data) {
			t.Errorf("what was restored is exported as\n%s\nwas\n%s", again, data)
		}
		r.wait()
		r.fail(errReset)
		r.get(1)
		if left := r.room.Status()[0].RetryAfter; left < 54*time.Second || left > 66*time.Second {
			t.Errorf("a failed probe opens for %v; want a minute: it opened before the restart", left)
		}
		r.wait()
		r.status(200)
		r.get(3)
		r.is(Closed)
		if data := r.room.Export(); string(data) != `{"version":1,"breakers":[]}` {
			t.Errorf("a closed breaker is exported: %s", data)
		}
	})
}

func TestRestartWhileProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newRig(t, nil)
		old.fail(errReset)
		old.get(5)
		old.wait()
		old.status(200)
		old.get(1)
		old.is(HalfOpen)
		data := old.room.Export()
		time.Sleep(time.Second)
		r := old.fresh(nil, data)
		r.status(200)
		r.get(1)
		time.Sleep(2 * time.Nanosecond) // gobreaker wants the clock to have moved since it was made, and this one stands still
		if r.get(1) != nil {
			t.Error("no probe is let through")
		}
		r.is(HalfOpen)
		time.Sleep(5 * time.Minute)
		r = old.fresh(nil, data) // a long time after: nothing is known of the upstream any more
		r.get(0)
		if s := r.room.Status(); len(s) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// While nothing happens, an export stays the same, until what it tells is over.
func TestExportIsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail(errReset)
		r.get(5)
		time.Sleep(300 * time.Millisecond)
		open := string(r.room.Export())
		time.Sleep(20*time.Second + 7*time.Millisecond)
		if again := string(r.room.Export()); again != open {
			t.Errorf("%s became %s", open, again)
		}
		r.wait()
		over := string(r.room.Export()) // nobody has asked for it yet
		if !strings.Contains(over, HalfOpen) {
			t.Fatal(over)
		}
		r.status(200)
		r.get(1)
		time.Sleep(20*time.Second + 7*time.Millisecond)
		r.is(HalfOpen)
		if again := string(r.room.Export()); again != over {
			t.Errorf("%s became %s", over, again)
		}
		time.Sleep(5 * time.Minute)
		if again := string(r.room.Export()); strings.Contains(again, HalfOpen) {
			t.Errorf("nothing is known of the upstream any more: %s", again)
		}
	})
}

// An export fits into its file: what was forced comes first, then what is open the longest, and what it is can be imported.
func TestExportIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		many := map[place]*restored{}
		for i := range state.MaxEntries {
			a := exchange.Authority{Host: fmt.Sprintf("h%d.example.com", i), Port: 443}
			many[place{strings.Repeat("p", 500), state.Key{Authority: a}}] = &restored{until: time.Now().Add(time.Duration(i+1) * time.Second), state: Open, opened: 1}
		}
		r.room.adopt(many, map[string]string{"z.example.com:443": Open})
		data := r.room.Export()
		var out exported
		if err := json.Unmarshal(data, &out); err != nil || len(data) > maxExport || len(data) < maxExport-1024 {
			t.Fatalf("%v, %d bytes", err, len(data))
		}
		if out.Forced["z.example.com:443"] != Open || out.Breakers[0].Authority != fmt.Sprintf("h%d.example.com:443", state.MaxEntries-1) {
			t.Errorf("%v %+v", out.Forced, out.Breakers[0])
		}
		forced := map[string]string{}
		for i := range state.MaxEntries {
			forced[fmt.Sprintf("h%d.%sexample.com:443", i, strings.Repeat("a.", 100))] = Closed
		}
		r.room.adopt(nil, forced)
		if data = r.room.Export(); len(data) > maxExport {
			t.Errorf("%d bytes", len(data))
		}
		r.fresh(nil, data)
	})
}

func TestRestartBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entry := func(until time.Time) []byte {
			return fmt.Appendf(nil, `{"version":1,"breakers":[{"policy":"api.example.com","authority":"api.example.com:443",`+
				`"state":"open","until":%q,"opened":1}]}`, until.Format(time.RFC3339Nano))
		}
		first := newRig(t, nil)
		r := first.fresh(nil, entry(time.Now().Add(1000*time.Hour)))
		r.status(200)
		if refusal := r.get(1); refusal == nil || refusal.RetryAfter > 5*time.Minute {
			t.Errorf("%+v; want open_max at most", refusal)
		}
		r = first.fresh(nil, entry(time.Now().Add(-time.Second)))
		r.status(200)
		if r.get(1) != nil {
			t.Error("what was over is restored")
		}
		r.is(Closed)
		if err := r.room.Import(entry(time.Now().Add(time.Minute))); err != nil {
			t.Fatal(err)
		}
		r.is(Closed) // this process knows better
	})
}

func TestForcedOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newRig(t, nil)
		old.status(200)
		old.get(1)
		if err := old.room.Force("api.example.com:443", Open); err != nil {
			t.Fatal(err)
		}
		data := old.room.Export()
		r := old.fresh(nil, data)
		r.status(200)
		if r.get(1) == nil {
			t.Error("forced open, it let a request through")
		}
		r.is(Open)
		if err := r.room.Force("api.example.com:443", Auto); err != nil {
			t.Fatal(err)
		}
		r.is(Closed)
		if err := r.room.Import(data); err != nil || r.room.Status()[0].State != Open {
			t.Errorf("%v %+v", err, r.room.Status())
		}
		if err := r.room.Force("api.example.com:443", Closed); err != nil {
			t.Fatal(err)
		}
		if err := r.room.Import(data); err != nil || r.room.Status()[0].State != Closed {
			t.Error("a file took back what an operator told this process")
		}
	})
}

func TestForceWhatIsOnlyRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newRig(t, nil)
		old.fail(errReset)
		old.get(5)
		r := old.fresh(nil, old.room.Export())
		if err := r.room.Force("api.example.com:443", Closed); err != nil {
			t.Fatal(err)
		}
		r.is(Closed)
		r.status(200)
		if r.get(1) != nil {
			t.Error("forced closed, it refused")
		}
		if err := r.room.Force("api.example.com:443", Auto); err != nil {
			t.Fatal(err)
		}
		r.is(Open)
	})
}

const future = "2999-01-01T00:00:00Z"

// garbage is nothing that Export writes.
var garbage = []string{
	"", "null", "[]", "{}", "{", `{"version":2,"breakers":[]}`, `{"version":1,"breakers":[],"x":1}`, `{"version":1,"breakers":[]} {}`,
	`{"version":1,"breakers":[{"policy":"p","authority":"a","state":"open","until":"` + future + `","opened":1}]}`,
	`{"version":1,"breakers":[{"policy":"p","authority":"A.example:1","state":"open","until":"` + future + `","opened":1}]}`,
	`{"version":1,"breakers":[{"policy":"p","authority":"a.example:1","state":"closed","until":"` + future + `","opened":1}]}`,
	`{"version":1,"breakers":[{"policy":"p","authority":"a.example:1","state":"open","until":"tomorrow","opened":1}]}`,
	`{"version":1,"breakers":[{"policy":"p","authority":"a.example:1","state":"open","until":"` + future + `","opened":-1}]}`,
	`{"version":1,"breakers":[{"policy":"p","authority":"a.example:1","state":"open","until":"` + future + `","opened":1e30}]}`,
	`{"version":1,"breakers":[],"forced":{"a.example:1":"half_open"}}`, `{"version":1,"breakers":[],"forced":{"a.example":"open"}}`,
}

func TestGarbageChangesNothing(t *testing.T) {
	long, _ := json.Marshal(strings.Repeat("p", maxName+1))
	many := `{"version":1,"breakers":[` + strings.TrimSuffix(strings.Repeat("{},", 10_001), ",") + `]}`
	valid := `{"policy":"p","authority":"b.example:1","state":"open","until":"` + future + `","opened":1},`
	for _, data := range append([]string{many, strings.Repeat(" ", maxExport+1),
		`{"version":1,"breakers":[` + valid + `{"policy":` + string(long) + `,"authority":"a.example:1","state":"open","until":"` + future +
			`","opened":1}]}`,
		`{"version":1,"breakers":[` + strings.TrimSuffix(valid, ",") + `],"forced":{"a.example:1":"ajar"}}`}, garbage...) {
		room := New(nil, nil)
		if err := room.Import([]byte(data)); err == nil {
			t.Errorf("%.80q was taken", data)
		}
		if len(room.left)+len(room.forced) > 0 {
			t.Errorf("%.80q left something behind", data)
		}
	}
}

// FuzzImport: whatever a file holds, nothing panics, and what is taken can be exported and taken again.
func FuzzImport(f *testing.F) {
	for _, s := range garbage {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"version":1,"breakers":[{"policy":"p","tenant":"t","authority":"[2001:db8::1]:443","state":"half_open","until":"` + future +
		`","opened":3}],"forced":{"a.example:1":"open"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		room := New(nil, nil)
		if room.Import(data) != nil {
			return
		}
		for _, s := range room.Status() {
			if s.RetryAfter < 0 || s.RetryAfter > maxOpen {
				t.Errorf("%+v", s)
			}
		}
		out := room.Export()
		again := New(nil, nil)
		if err := again.Import(out); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if second := again.Export(); string(second) != string(out) {
			t.Errorf("%s became %s", out, second)
		}
	})
}
