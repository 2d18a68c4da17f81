package breaker

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// model is the breaker in the plainest words: a list of results, and the rules one after the other.
type model struct {
	config     Config
	start      time.Time
	state      string
	generation int
	until      time.Time // open
	opened     int
	local, up  int // in a row
	results    []result
	probes     int // places taken while half open
	successes  int
	ramp       time.Time // end
}

type result struct {
	at   time.Time
	kind string
}

// said is what an attempt said, by the name that the model has for it.
var said = []string{"ok", "local", "upstream", "soft", "nothing"}

// admits tells whether an attempt may be made now, and under which generation it reports.
func (m *model) admits(now time.Time) (generation int, ok bool) {
	switch m.state {
	case Open:
		if now.Before(m.until) {
			return 0, false
		}
		m.state, m.probes, m.successes = HalfOpen, 0, 0
		m.generation++
	case Closed:
		return m.generation, true
	}
	if m.probes == m.config.Probes {
		return 0, false
	}
	m.probes++
	return m.generation, true
}

// hears takes the result of an attempt. It returns true where the breaker opens by it.
func (m *model) hears(now time.Time, generation int, kind string) (opens bool) {
	if generation != m.generation {
		return false
	}
	if kind == "nothing" {
		if m.state == HalfOpen {
			m.probes--
		}
		return false
	}
	m.results = append(m.results, result{now, kind})
	switch kind {
	case "ok":
		m.local, m.up = 0, 0
	case "local":
		m.local++
	case "upstream":
		m.up++
	}
	switch {
	case m.state == HalfOpen && kind != "ok":
		opens = true
	case m.state == HalfOpen:
		if m.successes++; m.successes == m.config.Probes {
			m.state, m.opened, m.ramp = Closed, 0, now.Add(m.config.Ramp.D())
			m.clear()
		}
	case kind != "ok":
		failed, all, _, _ := m.window(now)
		streak := m.local + m.up
		byChance := float64(all - streak)
		for range streak {
			byChance *= float64(failed-streak) / float64(max(1, all-streak))
		}
		opens = m.config.Consecutive > 0 && streak >= m.config.Consecutive && (all-streak < 500 || failed <= streak || byChance < 0.01) ||
			m.config.Ratio > 0 && all >= m.config.Minimum && float64(failed) >= m.config.Ratio*float64(all)
	}
	if opens {
		m.state, m.ramp = Open, time.Time{}
		m.opened++
		m.clear()
	}
	return opens
}

func (m *model) clear() { m.generation++; m.local, m.up, m.results = 0, 0, nil }

// window counts what has been said in the last ten steps.
func (m *model) window(now time.Time) (failed, all, local, slow int) {
	step := m.config.Window.D() / 10
	in := func(t time.Time) time.Duration { return (t.Sub(m.start) + 1) / step }
	for _, r := range m.results {
		if in(r.at) <= in(now)-10 {
			continue
		}
		all++
		if r.kind != "ok" {
			failed++
		}
		if r.kind == "local" {
			local++
		}
		if r.kind == "slow" {
			slow++
		}
	}
	return failed, all, local, slow
}

// flight is an attempt that is not over.
type flight struct {
	generation int
	began      time.Time
	end        chan string
}

// modelled is a breaker and its model side by side.
type modelled struct {
	*rig
	admit   http.RoundTripper // without the look ahead, which throws dice during a ramp
	model   model
	flights []flight
	ended   chan struct{}
}

func newModelled(t *testing.T, c Config) *modelled {
	d := &modelled{rig: newRig(t, nil), model: model{config: c, state: Closed}, ended: make(chan struct{})}
	var keeper state.Keeper
	g := keeper.Begin()
	d.admit = exchange.Chain(exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		d.sent.Add(1)
		return d.next(r)
	}), d.room.Admit(state.Scope{Generation: g, Policy: "api.example.com"}, c))
	g.Commit()
	return d
}

// send begins an attempt in both, and checks that they agree on whether there is one.
func (d *modelled) send() {
	d.Helper()
	if d.model.start.IsZero() {
		d.model.start = time.Now()
	}
	generation, ok := d.model.admits(time.Now())
	f := flight{generation, time.Now(), make(chan string)}
	d.next = func(req *http.Request) (*http.Response, error) {
		exchange.Written(req.Context())
		switch kind := <-f.end; kind {
		case "ok":
			return answer(200), nil
		case "soft":
			return answer(501), nil
		case "local":
			return nil, &exchange.Failure{Code: exchange.UpstreamDNS}
		case "upstream":
			return nil, errReset
		}
		return answer(429), nil
	}
	sent := d.sent.Load()
	go func() {
		req, _ := request(d.Context(), http.MethodGet)
		if resp, err := d.admit.RoundTrip(req); err == nil {
			_, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		d.ended <- struct{}{}
	}()
	synctest.Wait()
	if admitted := d.sent.Load() != sent; admitted != ok {
		d.Fatalf("admitted %v; the model says %v, %s", admitted, ok, d.model.state)
	}
	if ok {
		d.flights = append(d.flights, f)
	} else {
		<-d.ended
	}
}

// end ends the flight of that number.
func (d *modelled) end(i int, kind string) {
	d.Helper()
	f := d.flights[i]
	d.flights = append(d.flights[:i], d.flights[i+1:]...)
	f.end <- kind
	<-d.ended
	synctest.Wait()
	if kind == "ok" && time.Since(f.began) > d.model.config.Slow.Duration {
		kind = "slow"
	}
	if !d.model.hears(time.Now(), f.generation, kind) {
		return
	}
	s := d.room.Status()[0]
	want := min(d.model.config.Open.D()<<(d.model.opened-1), d.model.config.OpenMax.D())
	if s.State != Open || s.RetryAfter < want*9/10 || s.RetryAfter > want*11/10 || s.RetryAfter > d.model.config.OpenMax.D() {
		d.Fatalf("after %s it is %+v; the model opens for %v ± 10 %%", kind, s, want)
	}
	d.model.until = time.Now().Add(s.RetryAfter) // the jitter is not the model's to guess
}

// agrees compares all that can be seen.
func (d *modelled) agrees() {
	d.Helper()
	all := d.room.Status()
	if len(all) == 0 {
		return // nothing was asked yet
	}
	s, now := all[0], time.Now()
	failed, n, local, slow := d.model.window(now)
	want := Window{Successes: n - failed, FailuresLocal: local, FailuresUpstream: failed - local, Slow: slow}
	if s.State != d.model.state || s.Opened != d.model.opened || s.Streak != (Streak{d.model.local, d.model.up}) || s.Window != want {
		d.Fatalf("it is %+v; the model is %s, opened %d times, %d and %d in a row, %+v", s, d.model.state, d.model.opened, d.model.local, d.model.up, want)
	}
	factor := 0.5
	if d.model.state == Closed {
		factor = 1
		if left := d.model.ramp.Sub(now); left > 0 {
			factor = 1 - left.Seconds()/d.model.config.Ramp.D().Seconds()/2
		}
	}
	if got := d.circuit().factor(); got < factor-1e-6 || got > factor+1e-6 {
		d.Fatalf("the factor is %v; the model says %v", got, factor)
	}
}

// TestAgainstTheModel: random attempts, which overlap and end as they like, in any order, over random spans of time.
func TestAgainstTheModel(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 7))
				c := Default()
				c.Consecutive, c.Minimum, c.Probes = random.IntN(6), 1+random.IntN(12), 1+random.IntN(4)
				c.Ratio = []float64{0.25, 0.5, 1}[random.IntN(3)]
				c.Window = setting.Duration(10 * time.Second * time.Duration(1+random.IntN(6)))
				c.Attempt = 24 * time.Hour // probes that never end have tests of their own
				c.Slow = setting.OptionalDuration{On: true, Duration: 20 * time.Second}
				d := newModelled(t, c)
				weights := random.Perm(len(said))
				for range 400 {
					switch random.IntN(5) {
					case 0, 1:
						d.send()
					case 2, 3:
						if len(d.flights) > 0 {
							d.end(random.IntN(len(d.flights)), said[weights[min(random.IntN(len(said)), random.IntN(len(said)))]])
						}
					default:
						time.Sleep(time.Duration(random.ExpFloat64() * float64(3*time.Second)))
						if random.IntN(20) == 0 {
							time.Sleep(time.Minute)
						}
					}
					d.agrees()
				}
				for len(d.flights) > 0 {
					d.end(0, "ok")
					d.agrees()
				}
			})
		})
	}
}
