package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state/memory"
)

// store is what daemons share, in this process. It is a millisecond away.
type store struct {
	mu      sync.Mutex
	buckets map[string]*fakeBucket
	values  map[string]fakeValue
	broken  error
	asked   map[string]int
}

type fakeBucket struct {
	tokens float64
	at     time.Time
}

type fakeValue struct {
	value []byte
	until time.Time
}

func newStore() *store {
	return &store{buckets: map[string]*fakeBucket{}, values: map[string]fakeValue{}, asked: map[string]int{}}
}

func (s *store) enter(what string) error {
	time.Sleep(time.Millisecond)
	s.mu.Lock()
	s.asked[what]++
	return s.broken
}

func (s *store) Take(_ context.Context, key string, r memory.Rate, cost, want int) (int, time.Duration, error) {
	err := s.enter("take")
	defer s.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	perSecond, now := float64(r.Requests)/r.Per.Seconds(), time.Now()
	b := s.buckets[key]
	if b == nil {
		b = &fakeBucket{float64(r.Burst), now}
		s.buckets[key] = b
	}
	b.tokens, b.at = min(float64(r.Burst), b.tokens+now.Sub(b.at).Seconds()*perSecond), now
	granted := min(want, int((b.tokens+1e-6)/float64(cost)))
	b.tokens -= float64(granted * cost)
	if granted == want {
		return granted, 0, nil
	}
	return granted, time.Duration((float64(cost) - b.tokens) / perSecond * 1e9), nil
}

func (s *store) Publish(_ context.Context, key string, value []byte, ttl time.Duration) error {
	err := s.enter("publish")
	defer s.mu.Unlock()
	if err == nil {
		s.values[key] = fakeValue{value, time.Now().Add(ttl)}
	}
	return err
}

func (s *store) Fetch(_ context.Context, key string) ([]byte, time.Duration, error) {
	err := s.enter("fetch")
	defer s.mu.Unlock()
	v := s.values[key]
	if left := time.Until(v.until); err == nil && left > 0 {
		return v.value, left, nil
	}
	return nil, 0, err
}

func (s *store) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

// daemon is a rig that shares a store; log is what it wrote.
type daemon struct {
	*rig
	log *bytes.Buffer
}

func newDaemon(t *testing.T, s *store, edit func(*ShareOptions)) daemon {
	t.Helper()
	d := daemon{newRig(t), &bytes.Buffer{}}
	d.room.Log(slog.New(slog.NewTextHandler(d.log, nil)))
	o := ShareOptions{Secret: []byte("a secret of all daemons"), Daemons: 2}
	if edit != nil {
		edit(&o)
	}
	if err := d.room.Share(s, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { time.Sleep(time.Second) }) // what is asked for nobody comes to its end
	return d
}

func TestShareNeedsASecret(t *testing.T) {
	if err := New(nil).Share(newStore(), ShareOptions{Secret: []byte("short")}); err == nil {
		t.Error("a secret that anybody could guess was taken")
	}
}

// A limit is that of both daemons together, credentials among its key.
func TestSharedLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := newDaemon(t, s, nil), newDaemon(t, s, nil)
		levels := []Level{level("defaults", 4, time.Minute, func(c *Config) { c.Wait, c.Key = 0, []string{"credential"} })}
		one, other := a.load(levels...), b.load(levels...)
		send := func(chain http.RoundTripper, account string) string {
			resp, err := chain.RoundTrip(request(t.Context(), api, header("Authorization", account)))
			var refusal *exchange.Refusal
			if errors.As(err, &refusal) {
				return string(refusal.Code)
			}
			return resp.Header.Get("RateLimit")
		}
		var got []string
		for range 3 {
			got = append(got, send(one, "x"), send(other, "x"))
		}
		got = append(got, send(other, "y"))
		want := `"defaults";r=3;t=15 "defaults";r=3;t=15 "defaults";r=2;t=30 "defaults";r=2;t=30 rate_limited rate_limited "defaults";r=3;t=15`
		if strings.Join(got, " ") != want {
			t.Errorf("%s\nwant %s", strings.Join(got, " "), want)
		}
		if a.log.Len()+b.log.Len() > 0 {
			t.Errorf("logged: %s%s", a.log, b.log)
		}
	})
}

// A daemon that only watches a limit takes nothing from those that keep it: neither before an answer nor behind it.
func TestSharedObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := newDaemon(t, s, nil), newDaemon(t, s, nil)
		a.answer = text(200, "application/json", `{"n": 2000}`)
		watches := a.load(priced(t, "response.json.n", "10", func(c *Config) { c.Mode = setting.Observe }))
		for i := range 2 {
			req := request(t.Context(), api)
			resp, err := watches.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(resp.Body)
			if got := fmt.Sprint(exchange.From(req.Context()).Story().Observed); got != []string{"[]", "[rate_limited]"}[i] {
				t.Errorf("request %d: %s", i, got)
			}
		}
		time.Sleep(time.Second)
		s.mu.Lock()
		if n := s.asked["take"]; n != 0 {
			t.Errorf("the store was asked for tokens %d times", n)
		}
		s.mu.Unlock()
		resp, err := b.load(priced(t, "response.json.n", "10", nil)).RoundTrip(request(t.Context(), api))
		if err != nil {
			t.Fatalf("the other daemon: %v", err)
		}
		if got := resp.Header.Get("RateLimit"); got != `"defaults";r=990;t=10` {
			t.Errorf("the other daemon has %s", got)
		}
	})
}

// While the store is away each daemon goes by its part; that is counted, logged once with its end, and shown. Or everything is refused.
func TestSharedOutage(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			d := newDaemon(t, s, func(o *ShareOptions) { o.Refuse = refuse })
			chain := d.load(level("defaults", 20, time.Second, func(c *Config) { c.Wait, c.Burst = setting.Duration(time.Second), 2 }))
			count := func(span time.Duration) (passed, refused int) {
				for end := time.Now().Add(span); time.Now().Before(end); {
					for _, host := range []string{api, "other.example.com"} {
						if _, err := chain.RoundTrip(request(t.Context(), host)); err == nil {
							passed++
						} else if errors.As(err, new(*exchange.Refusal)) {
							refused++
							time.Sleep(10 * time.Millisecond)
						} else {
							t.Fatal(err)
						}
					}
				}
				return passed, refused
			}
			count(10 * time.Second)
			s.breaks(errors.New("connection refused"))
			passed, refused := count(30 * time.Second)
			if !refuse && (passed < 560 || passed > 640 || refused > 0) || refuse && (passed > 4 || refused == 0) {
				t.Errorf("refuse %v: %d passed, %d refused in 30 s", refuse, passed, refused)
			}
			away := false
			d.room.Limits(func(l LimitStatus) { away = away || l.Away && len(l.Changes) == 1 })
			if n := d.metric("shared_state_fallbacks_total", "rate_limit"); n < 4 || n > 30 || !away {
				t.Errorf("%v fallbacks; shown %v", n, away)
			}
			s.breaks(nil)
			count(10 * time.Second)
			if passed, refused = count(10 * time.Second); passed < 390 || passed > 410 || refused > 0 {
				t.Errorf("refuse %v: %d passed, %d refused when it is back", refuse, passed, refused)
			}
			if lines := strings.Count(d.log.String(), "\n"); lines != 2 || !strings.Contains(d.log.String(), "answers again") {
				t.Errorf("logged:\n%s", d.log)
			}
		})
	}
}

// Two daemons that go by other numbers for one limit: both say so, once for each number, and count it.
func TestSharedConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := newDaemon(t, s, nil), newDaemon(t, s, nil)
		one := a.load(level("defaults", 100, time.Second, nil))
		other := b.load(level("defaults", 50, time.Second, nil))
		for range 200 {
			a.pass1(one)
			b.pass1(other)
			time.Sleep(time.Second)
		}
		for _, d := range []daemon{a, b} {
			if n := d.metric("rate_limit_conflicts_total"); n < 2 || strings.Count(d.log.String(), "other numbers") != 1 {
				t.Errorf("%v conflicts; logged: %s", n, d.log)
			}
		}
		if !strings.Contains(b.log.String(), "100 per 1s") || !strings.Contains(a.log.String(), "50 per 1s") {
			t.Errorf("%s%s", a.log, b.log)
		}
	})
}

// pass1 sends one request that must pass.
func (d daemon) pass1(chain http.RoundTripper, edits ...func(*http.Request, *exchange.Exchange)) {
	d.Helper()
	if _, err := chain.RoundTrip(request(d.Context(), api, edits...)); err != nil {
		d.Error(err)
	}
}

// A gate that one daemon found closed closes all, for what is left of its time; another account's stays open.
func TestSharedGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := newDaemon(t, s, nil), newDaemon(t, s, nil)
		levels := []Level{learner(nil)}
		one, other := a.load(levels...), b.load(levels...)
		account := header("Authorization", "Bearer x")
		b.pass1(other, account)
		time.Sleep(time.Second)
		a.replies(429, "Retry-After: 60")
		a.pass1(one, account)
		time.Sleep(10 * time.Second)
		b.pass1(other, account) // asks
		time.Sleep(10 * time.Millisecond)
		if got := b.refused(other, exchange.QuotaExhausted, api, account); got < 49*time.Second || got > 51*time.Second {
			t.Errorf("Retry-After %v", got)
		}
		b.pass1(other, header("Authorization", "Bearer y"))
		var changes []string
		b.room.Limits(func(l LimitStatus) {
			for _, c := range l.Changes {
				changes = append(changes, c.Reason)
			}
		})
		if len(changes) != 1 || changes[0] != "another daemon found it so" {
			t.Errorf("%v", changes)
		}
		time.Sleep(52 * time.Second)
		b.pass1(other, account)
	})
}

// What makes no sense closes nothing, and asking never holds a request up.
func TestSharedGateOfNonsense(t *testing.T) {
	for _, value := range []string{"", "{", "[]", `{"from": "x"}`, `{"from": "x", "holds": -5, "state": {}}`,
		`{"from": "x", "holds": 1, "state": {"groups": [{"closed": 9e18}]}}`, strings.Repeat("x", mostShown+1),
		`{"from": "x", "holds": 3600000000000, "state": {"groups": [{"quotas": [{"unit": "stars", "limit": 1, "remaining": 0, "reset": 1, "closes": 1}]}]}}`} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			d := newDaemon(t, s, nil)
			chain := d.load(learner(nil))
			d.pass(chain, api)
			synctest.Wait()
			var g *gates
			var a *account
			_, all := d.room.everything()
			for _, g = range all {
				a = g.table.Get(keyOf(api))
			}
			g.adopt(a, []byte(value), time.Minute, "me")
			if got := longestClosed(a); got != 0 {
				t.Errorf("%.60s closed the gate for %v", value, got)
			}
			s.breaks(errors.New("away"))
			time.Sleep(2 * time.Second)
			d.pass(chain, api)
			time.Sleep(time.Second)
			if n := d.metric("shared_state_fallbacks_total", "gate"); n != 1 {
				t.Errorf("%v fallbacks", n)
			}
		})
	}
}

// Another room may count its fallbacks in the same metric.
func TestSharedMetricIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.breaks(errors.New("away"))
		d := daemon{newRig(t), nil}
		other := newMetrics(nil, nil).fallbacks
		d.reg.MustRegister(other)
		other.WithLabelValues("dedup").Inc()
		if err := d.room.Share(s, ShareOptions{Secret: make([]byte, leastSecret)}); err != nil {
			t.Fatal(err)
		}
		d.pass1(d.load(level("defaults", 10, time.Second, nil)))
		synctest.Wait() // it is counted beside the request, which need not wait for that
		for _, what := range []string{"dedup", "rate_limit"} {
			if n := d.metric("shared_state_fallbacks_total", what); n != 1 {
				t.Errorf("%s: %v", what, n)
			}
		}
		time.Sleep(time.Second)
	})
}
