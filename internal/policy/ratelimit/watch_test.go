package ratelimit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

// listen collects gate changes as texts.
func (r *rig) listen() *[]string {
	var told []string
	r.room.OnGate(func(c GateChange) {
		what := "opened"
		if c.Closed {
			what = fmt.Sprintf("closed for %v", c.After)
		}
		told = append(told, strings.TrimSpace(fmt.Sprintf("%v %s %s %s", c.Time.Sub(r.begin), c.Authority, what, c.Tenant)))
		if c.Policy != policy || c.Reason == "" || c.Closed != (c.After > 0) {
			r.Errorf("%+v", c)
		}
		r.room.Limits(func(LimitStatus) {}) // no lock is held
		r.room.Export()
	})
	return &told
}

func TestGatesAreTold(t *testing.T) {
	mine, theirs := header("Authorization", "mine"), header("Authorization", "theirs")
	type step struct {
		at     time.Duration
		status int
		lines  string // separated by ;
		edit   func(*http.Request, *exchange.Exchange)
	}
	for name, c := range map[string]struct {
		steps []step
		want  []string
	}{
		"by a refusal, and by time": {[]step{{0, 429, "Retry-After: 60", mine}},
			[]string{"0s api.example.com:443 closed for 1m0s", "1m0s api.example.com:443 opened"}},
		"403": {[]step{{0, 403, "Retry-After: 60", mine}},
			[]string{"0s api.example.com:443 closed for 1m0s", "1m0s api.example.com:443 opened"}},
		"503 is the breaker's": {[]step{{0, 503, "Retry-After: 60", mine}}, nil},
		"used up, and a better announcement": {[]step{{0, 200, "X-RateLimit-Remaining: 0; X-RateLimit-Reset: 60", mine},
			{10 * second, 200, "X-RateLimit-Remaining: 9; X-RateLimit-Reset: 300", mine}},
			[]string{"0s api.example.com:443 closed for 1m0s", "10s api.example.com:443 opened"}},
		"a better announcement for another account": {[]step{{0, 200, "X-RateLimit-Remaining: 0; X-RateLimit-Reset: 60", mine},
			{10 * second, 200, "X-RateLimit-Remaining: 9; X-RateLimit-Reset: 300", theirs}},
			[]string{"0s api.example.com:443 closed for 1m0s", "1m0s api.example.com:443 opened"}},
		"for longer, told once": {[]step{{0, 429, "Retry-After: 60", mine}, {10 * second, 429, "Retry-After: 100", mine}},
			[]string{"0s api.example.com:443 closed for 1m0s", "1m50s api.example.com:443 opened"}},
		"two accounts are one subject": {[]step{{0, 429, "Retry-After: 60", mine}, {10 * second, 429, "Retry-After: 100", theirs}},
			[]string{"0s api.example.com:443 closed for 1m0s", "1m50s api.example.com:443 opened"}},
		"two tenants are two": {[]step{{0, 429, "Retry-After: 60", tenant("a")}, {10 * second, 429, "Retry-After: 20", tenant("b")}},
			[]string{"0s api.example.com:443 closed for 1m0s a", "10s api.example.com:443 closed for 20s b", "30s api.example.com:443 opened b",
				"1m0s api.example.com:443 opened a"}},
		"again": {[]step{{0, 429, "Retry-After: 5", mine}, {10 * second, 429, "Retry-After: 5", mine}},
			[]string{"0s api.example.com:443 closed for 5s", "5s api.example.com:443 opened", "10s api.example.com:443 closed for 5s",
				"15s api.example.com:443 opened"}},
		"a moment is not told": {[]step{{0, 429, "Retry-After: 2", mine}}, nil},
	} {
		for _, mode := range []setting.Mode{setting.Enforce, setting.Observe} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				told := r.listen()
				levels := []Level{learner(func(c *Config) { c.Mode = mode })}
				release := make(chan struct{})
				r.answer = func(req *http.Request) (*http.Response, error) { // requests that were under way before the gate closed
					<-release
					var i int
					_, _ = fmt.Sscan(req.Header.Get("X-Who"), &i)
					time.Sleep(c.steps[i].at)
					return reply(c.steps[i].status, strings.Split(c.steps[i].lines, "; ")...), nil
				}
				chain := r.load(levels...)
				for i, s := range c.steps {
					r.join(t.Context(), chain, fmt.Sprint(i), api, s.edit)
				}
				close(release)
				time.Sleep(time.Hour)
				synctest.Wait()
				if !slices.Equal(*told, c.want) {
					t.Errorf("%s: told %q; want %q", name, *told, c.want)
				}
				if w := &r.room.watch; len(w.subjects) != 0 || w.accounts != 0 || w.count.Load() != 0 || !w.next.IsZero() {
					t.Errorf("%s: something is still watched: %+v, %d", name, w.subjects, w.accounts)
				}
			})
		}
	}
}

// Who takes over knows what was told, and tells when it is over.
func TestGatesAreToldAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := newRig(t)
		before.replies(429, "Retry-After: 60")
		before.pass(before.load(learner(nil)), api)
		before.replies(200, "X-RateLimit-Remaining: 7", "X-RateLimit-Reset: 900")
		before.pass(before.load(learner(nil)), "known.example.com")
		after := newRig(t)
		told := after.listen()
		if err := after.room.Import(before.room.Export()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if want := []string{"1m0s api.example.com:443 opened"}; !slices.Equal(*told, want) {
			t.Errorf("told %q; want %q", *told, want)
		}
	})
}

// What is watched is bounded, and what is over makes room.
func TestWatchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		told := r.listen()
		w := &r.room.watch
		at := subject{policy, "", exchange.Authority{Host: api, Port: 443}}
		w.mu.Lock()
		for i := range maxWatched + 10 {
			w.shut(at, fmt.Sprint(i), api, time.Minute)
		}
		w.mu.Unlock()
		chain := r.load(learner(nil))
		r.replies(429, "Retry-After: 60")
		r.pass(chain, "more.example.com")
		w.mu.Lock()
		if w.accounts != maxWatched || len(w.subjects) != 1 {
			t.Errorf("%d accounts of %d subjects", w.accounts, len(w.subjects))
		}
		w.mu.Unlock()
		time.Sleep(2 * time.Minute)
		r.pass(chain, "more.example.com")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := []string{"1m0s api.example.com:443 opened", "2m0s more.example.com:443 closed for 1m0s", "3m0s more.example.com:443 opened"}
		if !slices.Equal(*told, want) || w.accounts != 0 {
			t.Errorf("told %q; want %q; %d accounts", *told, want, w.accounts)
		}
	})
}
