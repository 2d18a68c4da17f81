package ratelimit

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

func keyOf(host string) state.Key {
	return state.Key{Authority: exchange.Authority{Host: host, Port: 443}}
}

// What gates know survives a restart, for the accounts that it is about; what is over does not.
func TestExport(t *testing.T) {
	for _, loadedFirst := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			before := newRig(t)
			levels := []Level{learner(nil)}
			chain := before.load(levels...)
			mine, theirs := header("Authorization", "Bearer mine"), header("Authorization", "Bearer theirs")
			before.replies(429, "Retry-After: 600")
			before.pass(chain, api, mine)
			before.replies(200, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 1", "X-RateLimit-Reset: 900", "X-RateLimit-Resource: core")
			before.pass(chain, "search.example.com", path("/repos/a"))
			before.replies(200, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 900", "X-RateLimit-Resource: search")
			before.pass(chain, "search.example.com", path("/search/a"))
			before.replies(429, "Retry-After: 10")
			before.pass(chain, "short.example.com")
			data := before.room.Export()
			if strings.Contains(string(data), "mine") || !json.Valid(data) {
				t.Errorf("%s", data)
			}
			time.Sleep(time.Minute)

			after := newRig(t)
			var again = after.load // before or after what was saved is taken in
			if loadedFirst {
				chain = again(levels...)
			}
			if err := after.room.Import(data); err != nil {
				t.Fatal(err)
			}
			if !loadedFirst {
				chain = again(levels...)
			}
			if got := after.refused(chain, exchange.QuotaExhausted, api, mine); got != 540*time.Second {
				t.Errorf("Retry-After %v", got)
			}
			after.pass(chain, api, theirs)
			after.pass(chain, "short.example.com")
			if got := after.refused(chain, exchange.QuotaExhausted, "search.example.com", path("/search/b")); got != 840*time.Second {
				t.Errorf("the group's Retry-After %v", got)
			}
			after.pass(chain, "search.example.com", path("/repos/a"))
			time.Sleep(15 * time.Minute)
			after.pass(chain, api, mine)
			if got := after.room.Export(); got != nil {
				t.Errorf("what is over is saved: %s", got)
			}
		})
	}
}

// Other settings of how fields are read begin afresh, as in a reload.
func TestExportOfOtherSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := newRig(t), newRig(t)
		before.replies(429, "Retry-After: 600")
		before.pass(before.load(learner(nil)), api)
		if err := after.room.Import(before.room.Export()); err != nil {
			t.Fatal(err)
		}
		after.pass(after.load(learner(func(c *Config) { c.Dialect = "github" })), api)
	})
}

// Garbage is an error, and changes nothing.
func TestImportOfGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newRig(t)
		before.replies(429, "Retry-After: 600")
		before.pass(before.load(learner(nil)), api, header("Authorization", "x"))
		good := string(before.room.Export())
		for _, bad := range []string{"", "null", "{}", "[]", good[:len(good)/2], strings.Replace(good, `"version":1`, `"version":2`, 1),
			strings.Replace(good, `"secret":"`, `"secret":"AAAA`, 1), strings.Replace(good, `"secret":"`, `"secret":5,"x":"`, 1),
			strings.Replace(good, api, "", 1), strings.Replace(good, `"credential":"`, `"credential":"AAAA`, 1), strings.Replace(good, `"port":443`, `"port":99999`, 1),
			strings.Repeat(" ", 2*maxExportedSize+1)} {
			r := newRig(t)
			secret := *r.room.secret.Load()
			if err := r.room.Import([]byte(bad)); err == nil || *r.room.secret.Load() != secret || len(r.room.pending.gates) != 0 {
				t.Errorf("%.80s was taken: %v", bad, err)
			}
		}
		// What is beyond reason in a file that has the right form is clamped.
		r := newRig(t)
		if err := r.room.Import([]byte(strings.Replace(good, `"closed":`, `"closed":9000000000000000000,"x":`, 1))); err != nil {
			t.Fatal(err)
		}
		if got := r.refused(r.load(learner(nil)), exchange.QuotaExhausted, api, header("Authorization", "x")); got > time.Hour {
			t.Errorf("closed for %v", got)
		}
	})
}

// An export is bounded, and what is closed the longest comes first.
func TestExportIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(nil))
		for i := range 300 {
			r.replies(429, "Retry-After: "+strconv.Itoa(100+i))
			r.pass(chain, "h"+strconv.Itoa(i)+".example.com")
		}
		data := r.room.Export()
		var out exported
		if err := json.Unmarshal(data, &out); err != nil || len(out.Gates) != 300 || out.Gates[0].Host != "h299.example.com" {
			t.Errorf("%v, %d gates, %+v", err, len(out.Gates), out.Gates[0])
		}
		for i := range out.Gates {
			out.Gates[i].Tenant = strings.Repeat("t", 10_000)
		}
		after := newRig(t)
		after.room.pending.set(out.Gates)
		if data = after.room.Export(); len(data) > maxExportedSize || len(data) < maxExportedSize-12_000 {
			t.Errorf("%d bytes", len(data))
		}
		if err := json.Unmarshal(data, &out); err != nil || len(out.Gates) > 160 || out.Gates[0].Host != "h299.example.com" {
			t.Errorf("%v, %d gates, %+v", err, len(out.Gates), out.Gates[0])
		}
	})
}

// What an earlier process left is saved again, also where nobody has asked for it, and stays the same as long as nothing but the clock moves.
func TestExportOfWhatNobodyAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newRig(t)
		chain := first.load(learner(nil))
		first.replies(429, "retry-after-ms: 600123")
		first.pass(chain, api)
		first.replies(200, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 7", "X-RateLimit-Reset: 900")
		first.pass(chain, "known.example.com")
		data := first.room.Export()
		time.Sleep(70*time.Second + 7*time.Millisecond)
		if again := first.room.Export(); string(again) != string(data) {
			t.Errorf("%s became %s", data, again)
		}
		second := newRig(t)
		second.load(learner(nil))
		third := newRig(t)
		if err := errors.Join(second.room.Import(data), third.room.Import(data)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for name, r := range map[string]*rig{"with": second, "without its policy": third} {
				if again := r.room.Export(); string(again) != string(data) {
					t.Errorf("%s: %s became %s", name, data, again)
				}
			}
			time.Sleep(29*time.Second + 3*time.Millisecond)
		}
		fourth := newRig(t)
		if err := fourth.room.Import(third.room.Export()); err != nil {
			t.Fatal(err)
		}
		if got := fourth.refused(fourth.load(learner(nil)), usedUp, api); got < 470*time.Second || got > 473*time.Second {
			t.Errorf("Retry-After %v", got)
		}
		time.Sleep(15 * time.Minute)
		if got := third.room.Export(); got != nil {
			t.Errorf("what is over is saved: %s", got)
		}
	})
}

// With a secret that all daemons share, what was saved under another is of no use where it is about credentials.
func TestImportWhereSecretsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newRig(t)
		before.replies(429, "Retry-After: 600")
		chain := before.load(learner(nil))
		before.pass(chain, api, header("Authorization", "x"))
		before.pass(chain, api)
		after := newDaemon(t, newStore(), nil)
		if err := after.room.Import(before.room.Export()); err != nil {
			t.Fatal(err)
		}
		chain = after.load(learner(nil))
		after.pass(chain, api, header("Authorization", "x"))
		after.refused(chain, exchange.QuotaExhausted, api)
	})
}

func FuzzImport(f *testing.F) {
	f.Add(`{"version":1,"secret":"` + strings.Repeat("A", 43) + `=","gates":[{"policy":"*.example.com#0","host":"api.example.com",` +
		`"port":443,"options":{"Dialect":"auto","Reset":"auto"},"state":{"groups":[{"closed":4102444800000000000,"quotas":[{"name":"a","unit":"requests","limit":-1,` +
		`"remaining":0,"reset":4102444800000000000,"closes":1}]}],"paths":{"1":"a"}}}]}`)
	f.Add(`{"version":1}`)
	f.Fuzz(func(t *testing.T, data string) {
		r := New(nil)
		if r.Import([]byte(data)) != nil {
			return
		}
		var keeper state.Keeper
		g := keeper.Begin()
		levels := []Level{learner(nil)}
		look := r.Look(state.Scope{Generation: g, Policy: policy}, levels)
		g.Commit()
		chain := exchange.Chain(exchange.RoundTripperFunc((&rig{T: t}).upstream), look)
		_, err := chain.RoundTrip(request(t.Context(), api))
		var refusal *exchange.Refusal
		if err != nil && (!errors.As(err, &refusal) || refusal.RetryAfter > time.Hour) {
			t.Errorf("%v", err)
		}
		if again := r.Export(); again != nil && !json.Valid(again) {
			t.Errorf("what was taken in cannot be saved again: %s", again)
		}
	})
}
