package policy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/redact"
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends answers 204 to everything, or fails to be made.
type ends struct {
	fail error
	made []string
}

func (e *ends) Requests(s state.Scope, _ upstream.Config, _ timeout.Config, _ *destination.Rules) (http.RoundTripper, error) {
	e.made = append(e.made, s.Policy)
	return exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}), e.fail
}

func (e *ends) Tunnels(s state.Scope, u upstream.Config, t timeout.Config, d *destination.Rules) (http.RoundTripper, error) {
	return e.Requests(s, u, t, d)
}

func rooms(e *ends) Rooms {
	reg, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	return Rooms{Timeout: timeout.New(), Retry: retry.New(reg), Hedge: hedge.New(reg), Dedup: dedup.New(reg), Sanitize: sanitize.New(reg), RateLimit: ratelimit.New(reg), Concurrency: concurrency.New(reg),
		Breaker: breaker.New(reg, log), Ends: e}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type held struct {
	*Holder
	ends *ends
	reg  *prometheus.Registry
	log  *logBuffer
	told chan reloaded
}

type reloaded struct {
	snapshot *Snapshot
	err      error
	restart  []string
}

func hold(t *testing.T, path string) held {
	t.Helper()
	h := held{ends: &ends{}, reg: prometheus.NewRegistry(), log: &logBuffer{}, told: make(chan reloaded, 100)}
	h.Holder = NewHolder(testSource(path), rooms(h.ends), h.reg, slog.New(slog.NewTextHandler(h.log, nil)))
	h.OnReload(func(s *Snapshot, err error, restart []string) { h.told <- reloaded{s, err, restart} })
	return h
}

// next is what the next reload said; file system events are the one thing here that takes real time.
func (h held) next(t *testing.T) reloaded {
	t.Helper()
	select {
	case r := <-h.told:
		return r
	case <-time.After(15 * time.Second):
		t.Fatal("no reload")
		return reloaded{}
	}
}

// loaded is the next reload that loads: a look may meet a file that is just being written, and then the write's own event brings another.
func (h held) loaded(t *testing.T) reloaded {
	t.Helper()
	for {
		if r := h.next(t); r.err == nil {
			return r
		}
	}
}

func authority(t testing.TB, s string) exchange.Authority {
	t.Helper()
	a, err := exchange.ParseAuthority(s, 443)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSnapshotFindsHostAndRoute(t *testing.T) {
	f := loadText(t, layered)
	s, err := Compile(f, rooms(&ends{}), &state.Keeper{})
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"http://api.example.com/": "api.example.com", "http://api.example.com/reports/1": "api.example.com#reports",
		"http://api.example.com/raw/x": "api.example.com#1", "http://elsewhere.example.com/": "", "http://API.example.com./": "api.example.com",
	} {
		r, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := s.Host(authority(t, r.URL.Host)).Policy(r)
		if p.Name != want {
			t.Errorf("%s: policy %q, want %q", url, p.Name, want)
		}
		x := explained(t, f, url)
		if x.Policy != want || !slices.Equal(x.Chain, p.Stages) {
			t.Errorf("%s: explain says %q %v, the snapshot %q %v", url, x.Policy, x.Chain, p.Name, p.Stages)
		}
	}
	if hosts := s.Hosts(); len(hosts) != 2 || hosts[0].Pattern != "api.example.com" || s.Default().Name != "" {
		t.Errorf("%v", hosts)
	}
}

// The names that explain prints are those that the stages give themselves.
func TestStageNames(t *testing.T) {
	f := loadText(t, "version: 1\ndefaults: {rate_limit: {learn: true}, concurrency: {}}\n")
	var keeper state.Keeper
	scope := state.Scope{Generation: keeper.Begin()}
	c := settingsOf(f.base)
	for _, links := range [][]link{requestOrder(c), tunnelOrder(c)} {
		for _, l := range links {
			got := l.stage(rooms(&ends{}), scope).Name
			if got != l.name && (l.name != "retry" || !strings.HasPrefix(got, "retry")) {
				t.Errorf("the stage %s calls itself %s", l.name, got)
			}
		}
	}
	want := "timeout, retry, breaker look, gate, concurrency, rate_limit, breaker, attempt timeout, egress"
	if got := strings.Join(names(requestOrder(c)), ", "); got != want {
		t.Errorf("requests pass %s, want %s", got, want)
	}
	want = "timeout, retry, breaker look, concurrency, rate_limit, breaker, egress"
	if got := strings.Join(names(tunnelOrder(c)), ", "); got != want {
		t.Errorf("tunnels pass %s, want %s", got, want)
	}
}

// TestReload: what cannot be used changes nothing, and is counted (A69).
func TestReload(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\nhosts: {a.example.com: {access: deny}}\n")
	h := hold(t, path)
	if h.Load() != nil {
		t.Fatal("a snapshot before the first reload")
	}
	if err := h.Reload(t.Context(), "start"); err != nil {
		t.Fatal(err)
	}
	first := h.Load()
	if first.Host(authority(t, "a.example.com")).Base.Access != Deny {
		t.Error("the host block does not hold")
	}

	write(t, path, "version: 1\nhosts: {a.example.com: {acess: deny}}\n")
	err := h.Reload(t.Context(), "signal")
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || h.Load() != first {
		t.Errorf("a bad file: %v", err)
	}
	if v := gathered(t, h.reg)["httpowerd_config_last_reload_successful"]; v != 0 {
		t.Errorf("last_reload_successful %v", v)
	}

	h.ends.fail = errors.New("no such certificate")
	write(t, path, "version: 1\n")
	if err := h.Reload(t.Context(), "signal"); err == nil || h.Load() != first {
		t.Errorf("a file that does not compile: %v", err)
	}
	h.ends.fail = nil
	write(t, path, "version: 1\nproxy: {listen: 127.0.0.1:1}\nadmin: {listen: 127.0.0.1:2}\naudit: {output: off}\n")
	if err := h.Reload(t.Context(), "signal"); err != nil {
		t.Fatal(err)
	}
	var restart []string
	for range 4 {
		restart = h.next(t).restart
	}
	if !slices.Equal(restart, []string{"proxy.listen", "admin.listen", "audit"}) {
		t.Errorf("restart needed for %v", restart)
	}
	text := h.log.String()
	for _, want := range []string{"configuration loaded", "the one in use stays", "a restart is needed"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	for name, want := range map[string]float64{
		`httpowerd_config_reloads_total failure`: 2, `httpowerd_config_reloads_total success`: 2, "httpowerd_config_last_reload_successful": 1,
		"httpowerd_config_info " + h.Load().Hash: 1,
	} {
		if got := gathered(t, h.reg)[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if n := len(gathered(t, h.reg)); n != 4 {
		t.Errorf("%d series: an old hash stays", n)
	}
}

// Every setting either acts from the reload on, or is named as one that takes a restart.
func TestRestartKeysAreComplete(t *testing.T) {
	live := []string{"admin.token", "admin.metrics_auth", "drain", "log.level", "tracing", "notify", "destinations", "tenants"}
	base := defaultSettings()
	var walk func(v reflect.Value, path []string, index []int)
	walk = func(v reflect.Value, path []string, index []int) {
		name := strings.Join(path, ".")
		if slices.Contains(live, name) {
			return
		}
		if v.Kind() == reflect.Struct && len(fieldsOf(v.Type())) > 0 {
			for _, f := range fieldsOf(v.Type()) {
				walk(v.FieldByIndex(f.index), append(slices.Clone(path), f.key), append(slices.Clone(index), f.index...))
			}
			return
		}
		now := defaultSettings()
		differ(t, reflect.ValueOf(&now).Elem().FieldByIndex(index))
		keys := restartKeys(&base, &now)
		if len(keys) != 1 || name != keys[0] && !strings.HasPrefix(name, keys[0]+".") {
			t.Errorf("a change of %s is said to need a restart of %v", name, keys)
		}
	}
	walk(reflect.ValueOf(&base).Elem(), nil, nil)
}

// differ gives v another value.
func differ(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Struct:
		if s, ok := v.Addr().Interface().(*redact.Secret); ok {
			*s = redact.NewSecret("another")
			return
		}
		differ(t, v.Field(0))
	default:
		t.Fatalf("a setting of type %s", v.Type())
	}
}

func TestCloseOfTheHolder(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\nhosts: {a.example.com: {access: deny}}\n")
	k := &keeping{}
	with := rooms(&ends{})
	with.Ends = k
	h := NewHolder(testSource(path), with, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	h.Close() // before anything was loaded
	if err := h.Reload(t.Context(), "start"); err == nil || h.Load() != nil {
		t.Errorf("a closed holder was filled: %v", err)
	}
	h = NewHolder(testSource(path), with, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err := h.Reload(t.Context(), "start"); err != nil {
		t.Fatal(err)
	}
	snapshot := h.Load()
	h.Close()
	h.Close()
	slices.Sort(k.closed)
	if !slices.Equal(k.closed, []string{"", "a.example.com"}) {
		t.Errorf("closed %q, want both policies once", k.closed)
	}
	write(t, path, "version: 1\n")
	h.reloadChanged("file")
	if err := h.Reload(t.Context(), "signal"); err == nil || h.Load() != snapshot {
		t.Errorf("a reload after the end: %v", err)
	}
	if h.Load().Host(authority(t, "a.example.com")).Base.Access != Deny {
		t.Error("the snapshot is gone")
	}
}

// Servers disagree on /a/../b; whichever of the two paths is served, no access opens that the served path does not have.
func TestRoutesOfPathsWithDots(t *testing.T) {
	f := loadText(t, `version: 1
hosts:
  open.example.com:
    tls: intercept
    routes:
      - {name: admin, match: {path: /admin/**}, access: deny}
      - {name: slow, match: {path: /slow/**}, timeout: {connect: 1s}}
  closed.example.com:
    tls: intercept
    access: deny
    routes:
      - {name: public, match: {path: /public/**}, access: allow}
      - {name: hooks, match: {when: "request.path.startsWith('/hooks/')"}, access: report}
`)
	s, err := Compile(f, rooms(&ends{}), &state.Keeper{})
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"open.example.com/x/../admin/1": "open.example.com#admin", "open.example.com/x/%2e%2e/admin": "open.example.com#admin",
		"open.example.com/admin/../x": "open.example.com#admin", "open.example.com//admin/1": "open.example.com#admin",
		"open.example.com/slow/../admin": "open.example.com#admin", "open.example.com/x/..%2fadmin/1": "open.example.com#admin",
		"open.example.com/x/../slow/": "open.example.com#slow", "open.example.com/slow/../x": "open.example.com#slow",
		"open.example.com/x/../y": "open.example.com", "open.example.com/%61dmin/": "open.example.com#admin",
		"closed.example.com/public/../admin": "closed.example.com", "closed.example.com/x/../public/": "closed.example.com",
		"closed.example.com/public/../public/x": "closed.example.com#public", "closed.example.com/public//x": "closed.example.com#public",
		"closed.example.com/public/..;/x": "closed.example.com", "closed.example.com/public/../hooks/1": "closed.example.com#hooks",
		"closed.example.com/public/a%2Fb": "closed.example.com#public",
	} {
		r, err := http.NewRequest("GET", "http://"+url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := s.Host(authority(t, r.URL.Host)).Policy(r); p.Name != want {
			t.Errorf("%s: policy %q, want %q", url, p.Name, want)
		}
		if x := explained(t, f, "http://"+url); x.Policy != want {
			t.Errorf("%s: explain says %q, want %q", url, x.Policy, want)
		}
	}
}

// gathered is every series' value by name and label values.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// A listener that runs is open as long as it runs, whatever a changed file says.
func TestReloadKeepsTheGuardOfAnOpenListener(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\nproxy: {listen: \"0.0.0.0:3128\", open: private}\n")
	h := hold(t, path)
	if err := h.Reload(t.Context(), "start"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "version: 1\n")
	if err := h.Reload(t.Context(), "signal"); err != nil {
		t.Fatal(err)
	}
	if err := h.Load().Rules.CheckHost(authority(t, "10.0.0.1:443")); err == nil {
		t.Error("private addresses are open to the network")
	}
}

// What a listener that runs was opened for has to stay, or it would serve those whom nobody asks who they are.
func TestReloadKeepsTheTenantsOfAnOpenListener(t *testing.T) {
	const tenants, open = "version: 1\ntenants: {a: {auth: [{basic: {password: \"a password\"}}]}}\n", "proxy: {listen: \"0.0.0.0:3128\"}\n"
	for name, row := range map[string]struct {
		before, after string
		loads         bool
	}{
		"on loopback from the next start on":     {tenants + open, "version: 1\n", false},
		"for private networks from then on":      {tenants + open, "version: 1\nproxy: {listen: \"0.0.0.0:3128\", open: private}\n", false},
		"for everybody":                          {tenants + open, "version: 1\nproxy: {listen: \"0.0.0.0:3128\", open: true}\n", true},
		"for private networks all the time":      {tenants + "proxy: {listen: \"0.0.0.0:3128\", open: private}\n", "version: 1\n", true},
		"on loopback all the time":               {tenants, "version: 1\n", true},
		"never any tenant":                       {"version: 1\n", "version: 1\n", true},
		"another tenant":                         {tenants + open, strings.ReplaceAll(tenants, "{a:", "{b:") + open, true},
		"another tenant, on loopback afterwards": {tenants + open, strings.ReplaceAll(tenants, "{a:", "{b:"), true},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "c.yaml"), row.before)
			h := hold(t, path)
			if err := h.Reload(t.Context(), "start"); err != nil {
				t.Fatal(err)
			}
			before := h.Load()
			write(t, path, row.after)
			err := h.Reload(t.Context(), "signal")
			var faults Faults
			switch {
			case row.loads && (err != nil || h.Load() == before):
				t.Errorf("it did not load: %v", err)
			case !row.loads && (!errors.As(err, &faults) || h.Load() != before || faults[0].Path != "tenants"):
				t.Errorf("it loaded, or does not say why not: %v", err)
			}
		})
	}
}

func watching(t *testing.T, h held) {
	t.Helper()
	if err := h.Reload(t.Context(), "start"); err != nil {
		t.Fatal(err)
	}
	h.next(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Watch(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

const denyA, allowA = "version: 1\nhosts: {a.example.com: {access: deny}}\n", "version: 1\nhosts: {a.example.com: {access: allow}}\n"

func accessOfA(t *testing.T, r reloaded) Access {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.snapshot.Host(authority(t, "a.example.com")).Base.Access
}

func TestWatchSeesWritesAndReplacements(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), denyA)
	h := hold(t, path)
	watching(t, h)
	write(t, path, allowA)
	if a := accessOfA(t, h.loaded(t)); a != Allow {
		t.Errorf("after a write: %s", a)
	}
	fresh := write(t, path+".new", denyA)
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
	if a := accessOfA(t, h.loaded(t)); a != Deny {
		t.Errorf("after a rename: %s", a)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r := h.next(t); r.err == nil {
		t.Error("a missing file was loaded")
	}
	write(t, path, allowA)
	if a := accessOfA(t, h.loaded(t)); a != Allow {
		t.Errorf("after it came back: %s", a)
	}
}

func TestWatchSeesKubernetesSwaps(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..one/c.yaml"), denyA)
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..one", "..data")
	link("..data/c.yaml", "c.yaml")
	h := hold(t, filepath.Join(dir, "c.yaml"))
	watching(t, h)
	for i, text := range []string{allowA, denyA} {
		folder := []string{"..two", "..three"}[i]
		write(t, filepath.Join(dir, folder, "c.yaml"), text)
		link(folder, "..data_tmp")
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if a := accessOfA(t, h.loaded(t)); a != []Access{Allow, Deny}[i] {
			t.Errorf("after swap %d: %s", i, a)
		}
	}
}

// TestWatchTriesAgain: a file that could not be read is read when it can be, though it did not change.
func TestWatchTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := write(t, filepath.Join(t.TempDir(), "c.yaml"), denyA)
		h := hold(t, path)
		if err := h.Reload(t.Context(), "start"); err != nil {
			t.Fatal(err)
		}
		h.next(t)
		write(t, path, allowA)
		move := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		move(path, path+".away")
		w := &watcher{holder: h.Holder, folders: map[string]bool{}}
		w.look("a file changed")
		if r := h.next(t); r.err == nil {
			t.Fatal("a missing file was loaded")
		}
		move(path+".away", path)
		w.seen = w.fingerprint() // as it was all the time for who only looks at its size and date
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx, &fsnotify.Watcher{}) }()
		time.Sleep(2 * poll)
		cancel()
		<-done
		select {
		case r := <-h.told:
			if a := accessOfA(t, r); a != Allow {
				t.Errorf("it is %s", a)
			}
		default:
			t.Error("it was not read again")
		}
	})
}

// TestWatchMakesAgain: what could not be put in use for a reason outside of the files is tried again, and told about once.
func TestWatchMakesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := write(t, filepath.Join(t.TempDir(), "c.yaml"), denyA)
		h := hold(t, path)
		if err := h.Reload(t.Context(), "start"); err != nil {
			t.Fatal(err)
		}
		h.next(t)
		w := &watcher{holder: h.Holder, folders: map[string]bool{}}
		w.follow()
		h.ends.fail = errors.New("no file descriptor is left")
		write(t, path, allowA)
		w.look("a file changed")
		if r := h.next(t); r.err == nil {
			t.Fatal("it was loaded")
		}
		run := func() { // for a few polls
			ctx, cancel := context.WithTimeout(t.Context(), 3*poll+poll/2)
			defer cancel()
			w.run(ctx, &fsnotify.Watcher{})
		}
		run()
		if len(h.told) > 0 || len(h.ends.made) < 3 {
			t.Errorf("%d reloads were told of, after %v were made", len(h.told), h.ends.made)
		}
		h.ends.fail = nil
		run()
		if a := accessOfA(t, h.next(t)); a != Allow || len(h.told) > 0 {
			t.Errorf("it is %s, and %d more reloads were told of", a, len(h.told))
		}
	})
}

// A folder that another one has taken the place of is watched as before: a change that neither size nor time of the file show is seen.
func TestWatchSeesReplacedFolders(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	file := func(folder, host string) string {
		path := write(t, filepath.Join(dir, folder, "c.yaml"), "version: 1\nhosts: {"+host+".example.com: {access: deny}}\n")
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	move := func(from, to string) {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	h := hold(t, file("conf", "w"))
	watching(t, h)
	file("conf", "x")
	h.loaded(t) // from here on it is watched
	file("next", "y")
	move("conf", "old")
	move("next", "conf")
	h.loaded(t)
	file("next", "a")
	move("next/c.yaml", "conf/c.yaml")
	if a := accessOfA(t, h.loaded(t)); a != Deny {
		t.Errorf("after a change in the new folder: %s", a)
	}
}

func TestWatchFollowsNamedFilesAndIgnoresOthers(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret/token"), "one-"+"token")
	h := hold(t, write(t, filepath.Join(dir, "c.yaml"),
		"version: 1\ninclude: [conf.d/*.yaml]\nadmin: {token: \"${file:secret/token}\"}\n"))
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	watching(t, h)
	write(t, filepath.Join(dir, "audit.jsonl"), "{}\n") // somebody else's file
	write(t, filepath.Join(dir, "conf.d/README"), "nothing")
	write(t, filepath.Join(dir, "secret/token"), "two-"+"token")
	for r := h.next(t); r.err != nil || !r.snapshot.Settings.Admin.Token.Equal(redact.NewSecret("two-"+"token")); r = h.next(t) {
		t.Logf("the file was read while it was written: %v", r.err)
	}
	write(t, filepath.Join(dir, "conf.d/a.yaml"), "hosts: {a.example.com: {access: deny}}\n")
	if a := accessOfA(t, h.loaded(t)); a != Deny {
		t.Errorf("after a new include: %s", a)
	}
	select {
	case r := <-h.told:
		t.Errorf("a reload without a change: %+v", r)
	default:
	}
}

// TestWatchRestsFromOthers: a file of somebody else that is written all the time wakes the watcher now and then, and a change behind it is seen.
func TestWatchRestsFromOthers(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "c.yaml"), denyA)
	h := hold(t, path)
	if err := h.Reload(t.Context(), "start"); err != nil {
		t.Fatal(err)
	}
	h.next(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan fsnotify.Event), make(chan struct{})
	w := &watcher{holder: h.Holder, folders: map[string]bool{}}
	w.follow()
	w.seen = w.fingerprint()
	go func() { defer close(done); w.run(ctx, &fsnotify.Watcher{Events: events}) }()
	taken := 0
	for end := time.After(10 * rest); end != nil; {
		select {
		case events <- fsnotify.Event{Name: filepath.Join(dir, "audit.jsonl"), Op: fsnotify.Write}:
			taken++
		case <-end:
			end = nil
		}
	}
	if taken > 12 {
		t.Errorf("%d events of another file were taken", taken)
	}
	write(t, path, allowA)
	events <- fsnotify.Event{Name: path, Op: fsnotify.Write}
	if a := accessOfA(t, h.loaded(t)); a != Allow {
		t.Errorf("after a change: %s", a)
	}
	cancel()
	<-done
}
