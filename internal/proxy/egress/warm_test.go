package egress

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// onlyWire: connections are made ahead by the project's own wire alone.
func onlyWire(t *testing.T) {
	if onStandard {
		t.Skip("net/http makes connections when they are needed")
	}
}

func soon(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// warmed is a registry that counts the connections that were made ahead, and a wait until so many are kept: their upstream knows of them earlier.
func warmed(t *testing.T) (*prometheus.Registry, func(n float64)) {
	t.Helper()
	registry := prometheus.NewRegistry()
	return registry, func(n float64) {
		t.Helper()
		soon(t, fmt.Sprintf("%v connections are kept", n), func() bool {
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			kept := 0.0
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if f.GetName() == "httpowerd_upstream_warmed_total" {
						kept += m.GetCounter().GetValue()
					}
				}
			}
			return kept >= n
		})
	}
}

func warm(n int, early string) func(*upstream.Config) {
	return func(c *upstream.Config) { c.Warm, c.Early = n, early }
}

// TestWarmFromLoad: connections are there before the first request, which uses one of them; its place is taken by another.
func TestWarmFromLoad(t *testing.T) {
	onlyWire(t)
	o := says(t, ok)
	registry, kept := warmed(t)
	rt := end(t, setup{options: Options{Registerer: registry}, up: warm(3, "http://"+o.Addr().String())})
	kept(3)
	soon(t, "three connections", func() bool { return o.count() == 3 })
	r, x := request(t, "GET", "http://"+o.Addr().String()+"/", "")
	want(t, get(rt, r), "200 ok")
	if a := x.Story().Attempts; len(a) != 1 || !a[0].Reused {
		t.Errorf("attempts %+v", a)
	}
	time.Sleep(50 * time.Millisecond)
	if n := o.count(); n > 4 {
		t.Errorf("%d connections", n)
	}
}

// TestWarmTLS: the handshake is done before the first request, but where an upstream speaks HTTP/2 alone.
func TestWarmTLS(t *testing.T) {
	onlyWire(t)
	for _, name := range []string{"one", "both", "two"} {
		alone := name == "two"
		o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
		o.EnableHTTP2 = name != "one"
		o.TLS = &tls.Config{}
		o.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config := o.TLS.Clone()
			if alone && !slices.Contains(hello.SupportedProtos, "h2") {
				config.NextProtos = []string{"h3"}
			}
			return config, nil
		}
		o.Config.ErrorLog = log.New(io.Discard, "", 0)
		o.StartTLS()
		t.Cleanup(o.Close)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		registry, kept := warmed(t)
		rt := end(t, setup{options: Options{Registerer: registry}, up: func(c *upstream.Config) { c.Warm, c.Early, c.CA = 2, o.URL, ca }})
		if !alone {
			kept(2)
		}
		r, x := request(t, "GET", o.URL+"/", "")
		want(t, get(rt, r), "200 ok")
		if a := x.Story().Attempts; len(a) != 1 || a[0].Reused == alone {
			t.Errorf("%s: attempts %+v", name, a)
		}
	}
}

// TestWarmOnceReached: nothing is made before the first request, and then what is wanted; max_connections holds.
func TestWarmOnceReached(t *testing.T) {
	onlyWire(t)
	for most, conns := range map[int]int{0: 3, 2: 2} {
		o := says(t, ok)
		rt := end(t, setup{up: func(c *upstream.Config) { c.Warm, c.MaxConnections = 3, most }})
		time.Sleep(50 * time.Millisecond)
		if o.count() != 0 {
			t.Fatal("a connection before the first request")
		}
		r, _ := request(t, "GET", "http://"+o.Addr().String()+"/", "")
		want(t, get(rt, r), "200 ok")
		soon(t, "the connections", func() bool { return o.count() >= conns })
		time.Sleep(50 * time.Millisecond)
		if n := o.count(); n > conns+1 || most > 0 && n > most {
			t.Errorf("%d connections", n)
		}
	}
}

// TestWarmUnwanted: an upstream that closes what it is not asked over is left alone for longer and longer.
func TestWarmUnwanted(t *testing.T) {
	onlyWire(t)
	o := serve(t, func(_ int, c net.Conn, _ *bufio.Reader, _ *origin) { c.Close() })
	end(t, setup{up: func(c *upstream.Config) {
		c.Warm, c.Early, c.Idle = 2, "http://"+o.Addr().String(), setting.Duration(400*time.Millisecond)
	}})
	soon(t, "two connections", func() bool { return o.count() == 2 })
	time.Sleep(3500 * time.Millisecond)
	if n := o.count(); n > 6 {
		t.Errorf("%d connections in four seconds", n)
	}
}

// TestWarmRefused: what requests may not reach, or are held back from, is not connected to, and neither failures are tried all the time.
func TestWarmRefused(t *testing.T) {
	onlyWire(t)
	o := says(t, ok)
	end(t, setup{remote: true, up: warm(2, "http://"+o.Addr().String())}) // loopback is private
	var asked atomic.Int32
	end(t, setup{up: warm(2, "http://"+o.Addr().String()), options: Options{Held: func(policy string, k state.Key) bool {
		if policy != "test" || k.Authority.String() != o.Addr().String() {
			t.Errorf("asked for %q %v", policy, k)
		}
		asked.Add(1)
		return true
	}}})
	soon(t, "a second look", func() bool { return asked.Load() >= 2 })
	if asked.Load() > 3 {
		t.Errorf("it was asked %d times", asked.Load())
	}
	if o.count() != 0 {
		t.Errorf("%d connections", o.count())
	}
}

// TestWarmEnds: what was kept for a configuration ends with it, and what was given up before it was in use never began.
func TestWarmEnds(t *testing.T) {
	onlyWire(t)
	var wg sync.WaitGroup
	wg.Add(2)
	o := serve(t, func(_ int, c net.Conn, br *bufio.Reader, _ *origin) {
		_, _ = br.ReadByte() // until the end
		wg.Done()
	})
	e := New(Options{Registerer: newRegistry()})
	rules, err := destination.Compile(destination.Default(), true)
	if err != nil {
		t.Fatal(err)
	}
	keeper := new(state.Keeper)
	load := func(warm int) *state.Generation {
		g := keeper.Begin()
		up := upstream.Default()
		up.Warm, up.Early = warm, "http://"+o.Addr().String()
		limits := timeout.Config{Connect: setting.Duration(5 * time.Second), TLS: setting.Duration(5 * time.Second)}
		if _, err := e.Requests(state.Scope{Generation: g, Policy: "test"}, up, limits, rules); err != nil {
			t.Fatal(err)
		}
		return g
	}
	load(2).Abort()
	time.Sleep(50 * time.Millisecond)
	if o.count() != 0 {
		t.Fatal("a configuration that was given up made a connection")
	}
	load(2).Commit()
	soon(t, "two connections", func() bool { return o.count() == 2 })
	load(2).Commit() // the same
	load(0).Commit()
	wg.Wait()
	if o.count() != 2 {
		t.Errorf("%d connections", o.count())
	}
	keeper.Close()
}
