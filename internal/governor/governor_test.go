package governor

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		before Level
		part   float64
		want   Level
	}{
		{Ample, 0.5, Ample}, {Ample, 0.70, Caches}, {Ample, 0.95, Refusal}, {Caches, 0.66, Caches}, {Caches, 0.64, Ample},
		{Refusal, 0.86, Refusal}, {Refusal, 0.84, Bodies}, {Refusal, 0.3, Ample}, {Bodies, 1.2, Refusal},
	} {
		if got := next(c.before, c.part); got != c.want {
			t.Errorf("from %s at %v: %s, want %s", c.before, c.part, got, c.want)
		}
	}
}

func TestLook(t *testing.T) {
	g := New(100<<20, prometheus.NewPedanticRegistry(), slog.New(slog.DiscardHandler))
	defer g.Close()
	if debug.SetMemoryLimit(-1) != 100<<20 {
		t.Error("the garbage collector was not told")
	}
	used, shed := int64(0), 0
	g.read = func() int64 { return used }
	g.Shed(func() { shed++ })
	for _, c := range []struct {
		used int64
		at   Level
		shed int
	}{{10, Ample, 0}, {75, Caches, 1}, {76, Caches, 1}, {92, Refusal, 2}, {83, Bodies, 2}, {10, Ample, 2}} {
		used = c.used << 20
		g.look()
		if !g.At(c.at) || c.at < Refusal && g.At(c.at+1) || shed != c.shed {
			t.Errorf("at %d MiB: level %d, shed %d times", c.used, g.level.Load(), shed)
		}
	}
	g.Close()
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Error("the limit is not lifted")
	}
}

func TestNone(t *testing.T) {
	g := New(0, nil, nil)
	g.Shed(func() {})
	g.Run(t.Context())
	g.Close()
	if g.At(Caches) {
		t.Error("without a limit memory is never short")
	}
	if n := inUse()(); n <= 0 {
		t.Errorf("%d bytes are in use", n)
	}
}

func TestCgroups(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"none":      {nil, 0},
		"two":       {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "2000000\n", "sys/fs/cgroup/a/memory.high": "1000000\n"}, 1_000_000},
		"container": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "3000000\n"}, 3_000_000},
		"one":       {map[string]string{"proc/self/cgroup": "5:cpu:/\n4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4000000\n"}, 4_000_000},
		"unlimited": {map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		root := t.TempDir()
		for path, text := range c.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := cgroupLimit(root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestLimit(t *testing.T) {
	for v, want := range map[any]string{"auto": "auto", "off": "off", false: "off", "512MiB": "512MiB", int64(64 << 20): "64MiB", "1MiB": "", "x": "", true: ""} {
		var l Limit
		err := l.DecodeSetting(v)
		if (err != nil) != (want == "") || err == nil && l.String() != want {
			t.Errorf("%v: %s %v, want %s", v, l, err, want)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	debug.SetMemoryLimit(1 << 30)
	defer debug.SetMemoryLimit(math.MaxInt64)
	if got := (Limit{Auto: true}).Resolve(); got != 1<<30 {
		t.Errorf("with GOMEMLIMIT: %d", got)
	}
}

// TestRest: what a burst has left is given back when nothing is allocated any more, and not before.
func TestRest(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	var h heap
	h.read()
	const burst = 64 << 20
	for range burst >> 20 {
		garbage = make([]byte, 1<<20)
	}
	garbage = nil
	h.look()
	if h.loose() < burst {
		t.Errorf("%d bytes were left in the middle of it", h.loose())
	}
	h.look()
	if h.loose() > restWorth {
		t.Errorf("%d bytes are left", h.loose())
	}
}

var garbage []byte
