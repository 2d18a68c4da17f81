package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hit is one try as the receiver sees it.
type hit struct {
	at     time.Time
	header http.Header
	url    string
	body   string
}

// rig is a Sender before a receiver that answers as the test says.
type rig struct {
	*testing.T
	sender *Sender
	reg    *prometheus.Registry
	log    bytes.Buffer
	answer func(n int, r *http.Request) (*http.Response, error) // n is the try's number, from 0

	mu   sync.Mutex
	hits []hit
}

func newRig(t *testing.T, c Config) *rig {
	t.Helper()
	r := &rig{T: t, reg: prometheus.NewPedanticRegistry()}
	r.sender = New(r.reg, slog.New(slog.NewTextHandler(&r.log, nil)))
	r.sender.Use(c, r)
	r.status(204)
	return r
}

// RoundTrip is the receiver.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	n := len(r.hits)
	r.hits = append(r.hits, hit{time.Now(), req.Header, req.URL.String(), string(body)})
	answer := r.answer
	r.mu.Unlock()
	return answer(n, req)
}

func (r *rig) answers(f func(int, *http.Request) (*http.Response, error)) {
	r.mu.Lock()
	r.answer = f
	r.mu.Unlock()
}

func reply(status int, fields ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}
	for i := 0; i < len(fields); i += 2 {
		resp.Header.Set(fields[i], fields[i+1])
	}
	return resp
}

func (r *rig) status(status int, fields ...string) {
	r.answers(func(int, *http.Request) (*http.Response, error) { return reply(status, fields...), nil })
}

func (r *rig) seen() []hit {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]hit(nil), r.hits...)
}

func (r *rig) close(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	r.sender.Close(ctx)
}

// counted is the metric by result, without zeros.
func (r *rig) counted() map[string]float64 {
	r.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if v := m.GetCounter().GetValue(); v > 0 {
				out[m.GetLabel()[0].GetValue()] = v
			}
		}
	}
	return out
}

func (r *rig) expect(want map[string]float64) {
	r.Helper()
	if got := r.counted(); !maps.Equal(got, want) {
		r.Errorf("counted %v; want %v", got, want)
	}
}

func parsed(t testing.TB, text string) URL {
	t.Helper()
	var u URL
	if err := u.DecodeSetting(text); err != nil {
		t.Fatal(err)
	}
	return u
}

const hook = "https://hooks.example.com/T0/hush-hush"

func ops(t testing.TB) Config { return Config{"ops": {URL: parsed(t, hook)}} }

func change(from, to string) Event {
	return Event{Type: BreakerStateChanged, Time: time.Now(), Policy: "*.example.com", Host: "*.example.com", Authority: "api.example.com:443",
		From: from, To: to, Reason: "5 failures in a row, the last: upstream_reset", RetryAfter: 30512345678}
}

func TestPosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, ops(t))
		r.sender.Tell(change("closed", "open"), "ops", "unknown")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		hits := r.seen()
		want := `{"type":"breaker.state_changed","time":"2000-01-01T00:00:00Z","policy":"*.example.com","host":"*.example.com",` +
			`"authority":"api.example.com:443","from":"closed","to":"open","reason":"5 failures in a row, the last: upstream_reset",` +
			`"retry_after_seconds":30.512}`
		if len(hits) != 1 || hits[0].body != want || hits[0].url != hook || hits[0].header.Get("Content-Type") != "application/json" {
			t.Errorf("%+v\nwant %s", hits, want)
		}
		if hits[0].header.Get("Webhook-Signature") != "" {
			t.Error("signed without a secret")
		}
		r.close(2 * time.Second)
		r.expect(map[string]float64{resultDelivered: 1})
		r.sender.Tell(change("closed", "open"), "ops") // too late, and no harm
		r.sender.Use(ops(t), r)
	})
}

// TestSignature takes the signature apart as a receiver would, and checks it against the one that Standard Webhooks' own documentation shows.
func TestSignature(t *testing.T) {
	secret := "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	key, err := signingKey(redact.NewSecret(secret))
	if err != nil {
		t.Fatal(err)
	}
	timestamp, got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if timestamp != "1614265330" || got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("%s %s", timestamp, got)
	}
	synctest.Test(t, func(t *testing.T) {
		c := ops(t)
		target := c["ops"]
		target.Secret = redact.NewSecret(strings.TrimPrefix(secret, "whsec_"))
		c["ops"] = target
		r := newRig(t, c)
		r.answers(func(n int, _ *http.Request) (*http.Response, error) { return reply([]int{500, 200}[n]), nil })
		r.sender.Tell(change("closed", "open"), "ops")
		time.Sleep(time.Minute)
		synctest.Wait()
		hits := r.seen()
		if len(hits) != 2 {
			t.Fatal(hits)
		}
		for _, h := range hits {
			id := h.header.Get("Webhook-Id")
			stamp, want := sign(key, id, h.at, []byte(h.body))
			if !strings.HasPrefix(id, "msg_") || h.header.Get("Webhook-Timestamp") != stamp || h.header.Get("Webhook-Signature") != want {
				t.Errorf("%v; want %s %s", h.header, stamp, want)
			}
		}
		if hits[0].header.Get("Webhook-Id") != hits[1].header.Get("Webhook-Id") {
			t.Error("the second try has another id: the receiver cannot tell that it is the same message")
		}
		r.close(time.Second)
	})
}

func TestSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ops(t)
		target := c["ops"]
		target.Format = Slack
		c["ops"] = target
		r := newRig(t, c)
		e := change("half_open", "open")
		e.Reason, e.Tenant = "<!channel> & <http://evil.example.net|click>", "billing"
		r.sender.Tell(e, "ops")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		var got map[string]string
		if err := json.Unmarshal([]byte(r.seen()[0].body), &got); err != nil || len(got) != 1 {
			t.Fatal(err, got)
		}
		want := "*Circuit breaker open* for `api.example.com:443` (was half open): &lt;!channel&gt; &amp; &lt;http://evil.example.net|click&gt;; " +
			"tried again in 31s; tenant billing"
		if got["text"] != want {
			t.Errorf("%s\nwant\n%s", got["text"], want)
		}
		r.close(time.Second)
	})
}

func TestTries(t *testing.T) {
	reset := &exchange.Failure{Code: exchange.UpstreamReset, Err: errors.New("read https://hooks.example.com/T0/hush-hush")}
	first, second := [2]time.Duration{4 * time.Second, 6 * time.Second}, [2]time.Duration{16 * time.Second, 24 * time.Second}
	for name, row := range map[string]struct {
		answer func(n int, r *http.Request) (*http.Response, error)
		want   map[string]float64
		waits  [][2]time.Duration
	}{
		"mends": {func(n int, _ *http.Request) (*http.Response, error) { return reply([]int{503, 408, 200}[n]), nil },
			map[string]float64{resultRetried: 2, resultDelivered: 1}, [][2]time.Duration{first, second}},
		"never": {func(int, *http.Request) (*http.Response, error) { return nil, reset }, map[string]float64{resultRetried: 4, resultFailed: 1},
			[][2]time.Duration{first, second, {time.Minute, 90 * time.Second}, {160 * time.Second, 240 * time.Second}}},
		"asked for": {func(n int, _ *http.Request) (*http.Response, error) {
			return reply([]int{429, 200}[n], "Retry-After", "120"), nil
		},
			map[string]float64{resultRetried: 1, resultDelivered: 1}, [][2]time.Duration{{2 * time.Minute, 2 * time.Minute}}},
		"asked for too much": {func(n int, _ *http.Request) (*http.Response, error) {
			return reply([]int{503, 200}[n], "Retry-After", "99999999999"), nil
		}, map[string]float64{resultRetried: 1, resultDelivered: 1}, [][2]time.Duration{{maxWait, maxWait}}},
		"asked for less": {func(n int, _ *http.Request) (*http.Response, error) {
			return reply([]int{425, 200}[n], "Retry-After", "0"), nil
		},
			map[string]float64{resultRetried: 1, resultDelivered: 1}, [][2]time.Duration{first}},
		"hangs": {func(n int, r *http.Request) (*http.Response, error) {
			if n > 0 {
				return reply(200), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, map[string]float64{resultRetried: 1, resultDelivered: 1}, [][2]time.Duration{{14 * time.Second, 16 * time.Second}}},
		"gone": {func(int, *http.Request) (*http.Response, error) { return reply(410), nil }, map[string]float64{resultFailed: 1}, nil},
		"elsewhere": {func(int, *http.Request) (*http.Response, error) {
			return reply(307, "Location", "http://169.254.169.254/"), nil
		},
			map[string]float64{resultFailed: 1}, nil},
		"forbidden": {func(int, *http.Request) (*http.Response, error) {
			return nil, exchange.Refuse(exchange.DestinationDenied, "no")
		},
			map[string]float64{resultFailed: 1}, nil},
		"defect": {func(int, *http.Request) (*http.Response, error) { panic("a defect") }, map[string]float64{resultFailed: 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, ops(t))
				r.answers(row.answer)
				r.sender.Tell(change("closed", "open"), "ops")
				time.Sleep(time.Hour)
				synctest.Wait()
				hits := r.seen()
				if len(hits) != len(row.waits)+1 {
					t.Fatalf("%d tries; want %d", len(hits), len(row.waits)+1)
				}
				for i, w := range row.waits {
					if wait := hits[i+1].at.Sub(hits[i].at); wait < w[0] || wait > w[1] {
						t.Errorf("wait %d is %v; want %v", i, wait, w)
					}
				}
				r.close(time.Second)
				r.expect(row.want)
				if strings.Contains(r.log.String(), "hush-hush") || len(row.waits) > 0 != strings.Contains(r.log.String(), "tried again") {
					t.Errorf("the log says\n%s", r.log.String())
				}
			})
		})
	}
}

func TestCoalescing(t *testing.T) {
	for name, row := range map[string]struct {
		tell func(*Sender)
		want []string
		lost float64
	}{
		"there and back": {func(s *Sender) { s.Tell(change("closed", "open"), "ops"); s.Tell(change("open", "closed"), "ops") }, nil, 2},
		"on and on": {func(s *Sender) {
			s.Tell(change("closed", "open"), "ops")
			s.Tell(change("open", "half_open"), "ops")
			s.Tell(change("half_open", "closed"), "ops")
			s.Tell(change("closed", "open"), "ops")
		}, []string{"closed>open"}, 3},
		"not at once": {func(s *Sender) {
			s.Tell(change("closed", "open"), "ops")
			time.Sleep(1001 * time.Millisecond)
			s.Tell(change("open", "closed"), "ops")
		}, []string{"closed>open", "open>closed"}, 0},
		"others": {func(s *Sender) {
			other := change("open", "closed")
			other.Authority = "b.example.com:443"
			tenant := change("open", "closed")
			tenant.Tenant = "billing"
			gate := change("open", "closed")
			gate.Type = GateClosed
			s.Tell(change("closed", "open"), "ops")
			s.Tell(other, "ops")
			s.Tell(tenant, "ops")
			s.Tell(gate, "ops")
		}, []string{"closed>open", "open>closed", "open>closed", "open>closed"}, 0},
		"without states": {func(s *Sender) {
			s.TellAll(Event{Type: ConfigReloadFailed, Time: time.Now(), Reason: "one"})
			s.TellAll(Event{Type: ConfigReloadFailed, Time: time.Now(), Reason: "two"})
		}, []string{">"}, 1},
		"the trail and its copies": {func(s *Sender) {
			s.TellAll(Event{Type: AuditFailed, Time: time.Now(), Reason: "no space left"})
			s.TellAll(Event{Type: AuditFailed, Time: time.Now(), Reason: "the copy to a: connection refused"})
			s.TellAll(Event{Type: AuditFailed, Time: time.Now(), Reason: "the copy to b: connection refused"})
			s.TellAll(Event{Type: AuditFailed, Time: time.Now(), Reason: "no space left"})
		}, []string{">", ">", ">"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, ops(t))
				row.tell(r.sender)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				var got []string
				for _, h := range r.seen() {
					var p payload
					if err := json.Unmarshal([]byte(h.body), &p); err != nil {
						t.Fatal(err)
					}
					got = append(got, p.From+">"+p.To)
				}
				if fmt.Sprint(got) != fmt.Sprint(row.want) || r.counted()[resultCoalesced] != row.lost {
					t.Errorf("%v, %v; want %v, %v", got, r.counted(), row.want, row.lost)
				}
				r.close(time.Second)
			})
		})
	}
}

// TestFullQueue: a receiver that takes nothing costs bounded memory and nobody's time.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, ops(t))
		r.status(503)
		began := time.Now()
		for i := range 1000 {
			e := change("closed", "open")
			e.Authority = fmt.Sprintf("h%d.example.com:443", i)
			r.sender.Tell(e, "ops")
		}
		if time.Since(began) != 0 {
			t.Error("somebody waited")
		}
		target := r.sender.targets["ops"]
		target.mu.Lock()
		queued := len(target.queue)
		target.mu.Unlock()
		if queued != maxQueue {
			t.Errorf("%d are queued", queued)
		}
		time.Sleep(10 * time.Second)
		r.status(200)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		hits := r.seen()
		if !strings.Contains(hits[0].body, "h744.") || !strings.Contains(hits[len(hits)-1].body, "h999.") {
			t.Errorf("the first is %s, the last %s; want the latest 256, in order", hits[0].body, hits[len(hits)-1].body)
		}
		r.close(time.Second)
		got := r.counted()
		if got[resultDropped] != 744 || got[resultDelivered] != maxQueue {
			t.Errorf("%v", got)
		}
		if n := strings.Count(r.log.String(), "notifications are lost"); n != 1 {
			t.Errorf("the log says so %d times", n)
		}
	})
}

func TestFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ops(t)
		c["config"] = Target{URL: parsed(t, "https://b.example.com/"), Events: []string{ConfigReloadFailed, AuditFailed}}
		r := newRig(t, c)
		r.sender.Tell(change("closed", "open"), "ops", "config")
		r.sender.TellAll(Event{Type: ConfigReloadFailed, Time: time.Now(), Reason: "password=hush " + strings.Repeat("x", 5000)})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var urls []string
		for _, h := range r.seen() {
			urls = append(urls, h.url)
			if strings.Contains(h.body, "hush ") || len(h.body) > 2000 {
				t.Errorf("posted %d bytes: %s", len(h.body), h.body)
			}
		}
		if len(urls) != 3 {
			t.Errorf("posted to %v", urls)
		}
		r.close(time.Second)
	})
}

func TestUseAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ops(t)
		c["old"] = Target{URL: parsed(t, "https://old.example.com/")}
		r := newRig(t, c)
		r.sender.TellAll(change("closed", "open"))
		r.sender.Use(Config{"ops": {URL: parsed(t, "https://new.example.com/")}}, r)
		r.sender.TellAll(Event{Type: AuditFailed, Time: time.Now()})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		got := map[string]int{}
		for _, h := range r.seen() {
			got[h.url]++
		}
		if want := map[string]int{"https://old.example.com/": 1, "https://new.example.com/": 2}; !maps.Equal(got, want) {
			t.Errorf("%v; want %v", got, want)
		}
		r.close(time.Second)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, ops(t))
		r.status(503)
		r.sender.Tell(change("closed", "open"), "ops")
		time.Sleep(3 * time.Second) // the first try is over
		r.status(200)
		e := change("closed", "open")
		e.Authority = "b.example.com:443"
		r.sender.Tell(e, "ops") // has not settled
		began := time.Now()
		r.close(2 * time.Second)
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		r.expect(map[string]float64{resultRetried: 1, resultDelivered: 2})
	})
	synctest.Test(t, func(t *testing.T) { // a receiver that hangs does not hold the daemon
		r := newRig(t, ops(t))
		r.answers(func(_ int, req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		for i := range 3 {
			e := change("closed", "open")
			e.Authority = fmt.Sprintf("h%d.example.com:443", i)
			r.sender.Tell(e, "ops")
		}
		began := time.Now()
		r.close(2 * time.Second)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
		r.expect(map[string]float64{resultDropped: 3})
		if len(r.seen()) != 1 {
			t.Errorf("%d tries", len(r.seen()))
		}
	})
}

// TestOverTheWire is one notification to a real server.
func TestOverTheWire(t *testing.T) {
	got := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.URL.Path + " " + r.Header.Get("User-Agent") + " " + string(body)
	}))
	defer s.Close()
	sender := New(nil, nil)
	sender.Use(Config{"ops": {URL: parsed(t, s.URL+"/hook")}}, &http.Transport{DisableKeepAlives: true})
	sender.TellAll(Event{Type: AuditFailed, Time: time.Unix(0, 0), Reason: "no space left"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sender.Close(ctx)
	if want := `POST /hook httpowerd {"type":"audit.failed","time":"1970-01-01T00:00:00Z","reason":"no space left"}`; <-got != want {
		t.Error(want)
	}
}

func TestUnderLoad(t *testing.T) {
	r := newRig(t, Config{"a": {URL: parsed(t, "https://a.example.com/")}, "b": {URL: parsed(t, "https://b.example.com/")}})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 500 {
				e := change("closed", "open")
				e.Authority = fmt.Sprintf("h%d.example.com:443", i*1000+j)
				r.sender.TellAll(e)
				if j%100 == 0 {
					r.sender.Use(Config{"a": {URL: parsed(t, "https://a.example.com/")}, "b": {URL: parsed(t, "https://c.example.com/")}}, r)
				}
			}
		})
	}
	wg.Wait()
	r.close(30 * time.Second)
	if got := r.counted(); got[resultDelivered]+got[resultDropped] > 4000 || got[resultDelivered] == 0 {
		t.Errorf("%v", got)
	}
}

func BenchmarkTell(b *testing.B) {
	s := New(nil, nil)
	s.Use(Config{"ops": {URL: parsed(b, "https://hooks.example.com/")}}, http.NewFileTransport(http.Dir(b.TempDir())))
	e := change("closed", "open")
	b.ReportAllocs()
	for b.Loop() {
		s.Tell(e, "ops")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Close(ctx)
}
