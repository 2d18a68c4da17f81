package state

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// reference is a budget that remembers every event, and forgets it when its tenth of the ttl is eleven tenths old.
type reference struct {
	ratio, floor float64
	ttl          time.Duration
	start        time.Time
	firsts       []time.Duration
	retries      []time.Duration
}

func (m *reference) now() time.Duration { return time.Since(m.start) }

func (m *reference) count(events []time.Duration) (n int) {
	part := m.ttl / 10
	for _, at := range events {
		if m.now()/part-at/part < 11 {
			n++
		}
	}
	return n
}

func (m *reference) reserve() bool {
	if float64(m.count(m.retries)+1) > m.ratio*float64(m.count(m.firsts))+m.floor*m.ttl.Seconds()+1e-9 {
		return false
	}
	m.retries = append(m.retries, m.now())
	return true
}

// Random sequences of everything that a budget can be asked, against the reference.
func TestBudgetAgainstAModel(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			m := &reference{ratio: []float64{0, 0.1, 0.2, 1, 2.5}[random.IntN(5)], floor: []float64{0, 0.3, 3}[random.IntN(3)],
				ttl: time.Duration(1+random.IntN(20)) * time.Second, start: time.Now()}
			b := NewBudget(m.ratio, m.floor, m.ttl)
			type held struct {
				reservation Reservation
				at          time.Duration
			}
			var out []held
			for range 1500 {
				switch random.IntN(6) {
				case 0, 1:
					b.First()
					m.firsts = append(m.firsts, m.now())
				case 2, 3:
					r, ok := b.Reserve()
					if want := m.reserve(); ok != want {
						t.Fatalf("seed %d after %v: %v, the model says %v (%d first attempts, %d retries)", seed, m.now(), ok, want, m.count(m.firsts), m.count(m.retries))
					}
					if ok {
						out = append(out, held{r, m.now()})
					}
				case 4:
					if len(out) == 0 {
						continue
					}
					i := random.IntN(len(out))
					b.Return(out[i].reservation)
					for j, at := range m.retries {
						if at == out[i].at {
							m.retries = append(m.retries[:j], m.retries[j+1:]...)
							break
						}
					}
					out = append(out[:i], out[i+1:]...)
				default:
					time.Sleep(time.Duration(random.Int64N(int64(m.ttl / 4))))
				}
			}
		})
	}
}

// Whatever the load does, retries never exceed their ratio to the first attempts and floor for each second, but for one ttl's floor to begin with.
func TestBudgetBoundsTheLongRun(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			ratio, floor, ttl := 0.2, float64(random.IntN(4)), time.Duration(1+random.IntN(10))*time.Second
			b := NewBudget(ratio, floor, ttl)
			start, firsts, retries := time.Now(), 0, 0
			for range 3000 {
				for range random.IntN(8) {
					b.First()
					firsts++
				}
				for range random.IntN(12) {
					if _, ok := b.Reserve(); ok {
						retries++
					}
				}
				time.Sleep(time.Duration(random.Int64N(int64(ttl / 5))))
				if most := ratio*float64(firsts) + floor*(time.Since(start)+ttl).Seconds(); float64(retries) > most+1e-6 {
					t.Fatalf("seed %d: %d retries for %d first attempts in %v; want %.1f at most", seed, retries, firsts, time.Since(start), most)
				}
			}
		})
	}
}

// Whoever was held up between looking at the clock and counting must not take away what was counted since.
func TestBudgetLateCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1, 0, 10*time.Second)
		old := b.tick()
		time.Sleep(11 * time.Second) // the same slot
		for range 5 {
			b.First()
		}
		b.add(old, 1, 0)
		if got := takes(b); got != 5 {
			t.Errorf("%d retries for 5 first attempts", got)
		}
	})
}
