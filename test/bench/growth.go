package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// growth measures what a request costs as there is more: of client connections, of host blocks, of bytes in a body. Each row has a daemon of its own, so
// that no row finds the memory of the one before.
type growth struct {
	httpowerd           string
	duration            time.Duration // of each measurement
	connections, blocks []int
	bodies              []int64

	dir    string
	origin *origin
	out    io.Writer
}

const (
	// inFlight bounds the requests that are under way at once, whatever else grows: otherwise a row would show what concurrency costs.
	inFlight = 8
	// fewBlocks are asked for beside all: the difference between one and ten thousand blocks is then that of finding them.
	fewBlocks = 10
	plainBody = 1 << 10
)

func (p plan) growth(out io.Writer) *growth {
	return &growth{httpowerd: p.httpowerd, duration: p.duration, out: out,
		connections: []int{1, 10, 100, 1000, 10_000}, blocks: []int{1, 10, 100, 1000, 10_000},
		bodies: []int64{1 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20, 1 << 30}}
}

func (g *growth) run(ctx context.Context) (err error) {
	// A block that was asked for has a connection to the origin: both ends are somebody's descriptors, and the daemon keeps an eighth for itself.
	most := max(slices.Max(g.connections), slices.Max(g.blocks))
	if err := allowDescriptors(uint64(most + most/4 + 1000)); err != nil {
		return err
	}
	if g.dir, err = os.MkdirTemp("", "httpowerd-growth-"); err != nil {
		return err
	}
	defer os.RemoveAll(g.dir)
	g.origin = newOrigin()
	defer g.origin.Close()
	for _, table := range []func(context.Context) error{g.byConnections, g.byBlocks, g.byBodies} {
		if err := table(ctx); err != nil {
			return err
		}
	}
	return nil
}

// allowDescriptors raises the limit to n, for this process and the daemons that it starts.
func allowDescriptors(n uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur, l.Max = max(l.Cur, n), max(l.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("%d file descriptors are needed; raise ulimit -Hn: %w", n, err)
	}
	return nil
}

func (g *growth) byConnections(ctx context.Context) error {
	g.head("connections", "in flight", "requests", "CPU µs/request", "of the first with as many in flight", "RSS MiB", "KiB/connection beyond the first")
	var first, full cost // full is the first with all that may be in flight: a request that is alone pays for every wake-up
	for i, n := range g.connections {
		c, err := g.measure(ctx, "", n, []request{get(g.origin.address, plainBody)})
		if err != nil {
			return fmt.Errorf("%d connections: %w", n, err)
		}
		if i == 0 {
			first = c
		}
		if full.cpu == 0 && n >= inFlight {
			full = c
		}
		g.row(count(n), count(min(n, inFlight)), count(c.requests), decimal(c.cpu), ratio(c.cpu, full.cpu), decimal(mib(c.resident)),
			each(c.resident-first.resident, n-g.connections[0]))
	}
	return nil
}

func (g *growth) byBlocks(ctx context.Context) error {
	g.head("host blocks", "ms until ready", "CPU ms until ready", "RSS MiB when ready", "KiB/block beyond the first", "CPU µs/request to ten of them", "of the first",
		"CPU µs/request to all in turn", "of the first", "RSS MiB then")
	var first, firstFew cost
	for i, n := range g.blocks {
		hosts, requests := blocks(n, g.origin.address)
		few := make([]request, min(n, fewBlocks))
		for j := range few {
			few[j] = requests[j*n/len(few)]
		}
		toFew, err := g.measure(ctx, hosts, inFlight, few)
		if err != nil {
			return fmt.Errorf("%d host blocks: %w", n, err)
		}
		toAll := toFew
		if len(few) < n {
			if toAll, err = g.measure(ctx, hosts, inFlight, requests); err != nil {
				return fmt.Errorf("%d host blocks in turn: %w", n, err)
			}
		}
		if i == 0 {
			firstFew, first = toFew, toAll
		}
		g.row(count(n), count(min(toFew.ready, toAll.ready).Milliseconds()), count(min(toFew.cpuReady, toAll.cpuReady).Milliseconds()), decimal(mib(toAll.residentReady)),
			each(toAll.residentReady-first.residentReady, n-g.blocks[0]), decimal(toFew.cpu), ratio(toFew.cpu, firstFew.cpu),
			decimal(toAll.cpu), ratio(toAll.cpu, first.cpu), decimal(mib(toAll.resident)))
	}
	return nil
}

// blocks writes n host blocks, and a request to a name of each. Half are plain names, a quarter wildcards, a quarter names with settings of their own. Each
// resolves its own name: one list of all names in defaults would be a part of every block.
func blocks(n int, address string) (hosts string, requests []request) {
	var b strings.Builder
	b.WriteString("hosts:\n")
	for i := range n {
		name := fmt.Sprintf("api.x%d.example.com", i)
		pattern, more := name, ""
		switch i % 4 {
		case 1:
			pattern = fmt.Sprintf("*.x%d.example.com", i)
		case 3:
			more = fmt.Sprintf(", timeout: {attempt: %ds}, redact: {headers: [X-Api-Key-%d]}", 30+i%60, i)
		}
		fmt.Fprintf(&b, "  %q: {upstream: {resolve: {%s: %q}}%s}\n", pattern, name, address, more)
		requests = append(requests, get(name, plainBody))
	}
	return b.String(), requests
}

func (g *growth) byBodies(ctx context.Context) error {
	for _, way := range []struct {
		name string
		make func(host string, size int64) request
	}{{"answers", get}, {"uploads", post}} {
		g.head(way.name, "requests", "CPU µs/request", "of the first", "CPU µs/MiB", "peak RSS MiB")
		var first float64
		for i, size := range g.bodies {
			c, err := g.measure(ctx, "", 1, []request{way.make(g.origin.address, size)})
			if err != nil {
				return fmt.Errorf("%s of %s: %w", way.name, bytesOf(size), err)
			}
			if i == 0 {
				first = c.cpu
			}
			g.row(bytesOf(size), count(c.requests), decimal(c.cpu), ratio(c.cpu, first), decimal(c.cpu/mib(size)), decimal(mib(c.peak)))
		}
	}
	return nil
}

// cost is what one row of a table is made of.
type cost struct {
	ready, cpuReady               time.Duration // from the start to the first good /readyz
	requests                      int64
	cpu                           float64 // µs for each request, the median of five parts of the time
	residentReady, resident, peak int64   // bytes
}

// measure sends requests in turn, by connections that take turns, through a daemon of its own. All of both are used before anything counts.
func (g *growth) measure(ctx context.Context, hosts string, connections int, requests []request) (c cost, err error) {
	start := time.Now()
	var admin string
	d, err := launch(ctx, kind{name: "httpowerd", command: func(l *lab, dir, address string, _ bool) (cmd *exec.Cmd, err error) {
		if admin, err = freeAddress(); err != nil {
			return nil, err
		}
		file := filepath.Join(dir, "httpowerd.yaml")
		text := fmt.Sprintf(growthConfig, admin, address, connections+100, filepath.Join(dir, "state"), filepath.Join(dir, "audit.jsonl"), hosts)
		start = time.Now()
		return exec.Command(g.httpowerd, "serve", "--config", file), os.WriteFile(file, []byte(text), 0o600)
	}}, &lab{dir: g.dir}, false)
	if err != nil {
		return c, err
	}
	defer d.stop()
	if err := awaitReady(ctx, admin); err != nil {
		return c, err
	}
	c.ready, c.cpuReady, c.residentReady = time.Since(start), d.cpu(), d.memory("VmRSS")
	r, err := newRing(d.address, connections, requests)
	if err != nil {
		return c, err
	}
	defer r.close()
	if _, err := r.send(ctx, g.duration/5, max(connections, len(requests))); err != nil { // warms up
		return c, err
	}
	var parts []float64
	for until := time.Now().Add(g.duration); len(parts) == 0 || len(parts) < 5 && time.Now().Before(until); {
		before := d.cpu()
		n, err := r.send(ctx, g.duration/5, 1)
		if err != nil {
			return c, err
		}
		c.requests += n
		parts = append(parts, float64((d.cpu()-before).Nanoseconds())/1000/float64(n))
	}
	slices.Sort(parts)
	c.cpu = parts[len(parts)/2]
	c.resident, c.peak = d.memory("VmRSS"), d.memory("VmHWM")
	return c, nil
}

const growthConfig = `version: 1
admin: {listen: %q}
proxy: {listen: %q, limits: {connections: %d}}
state: {dir: %q}
audit: {output: %q}
log: {level: error}
%s`

// awaitReady asks until the daemon says that it is ready.
func awaitReady(ctx context.Context, admin string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return errors.Join(errors.New("it was not ready in time"), ctx.Err())
}

// head and row print a table of Markdown as its rows come.
func (g *growth) head(columns ...string) {
	fmt.Fprintf(g.out, "\n| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --: |", len(columns)))
}

func (g *growth) row(cells ...string) { fmt.Fprintf(g.out, "| %s |\n", strings.Join(cells, " | ")) }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func count[N int | int64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// decimal has a digit behind the point only where it says something.
func decimal(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return count(int64(v + 0.5))
}

func ratio(v, first float64) string {
	if first == 0 { // less CPU than a clock tick
		return "–"
	}
	if v/first < 10 {
		return fmt.Sprintf("%.2f", v/first)
	}
	return decimal(v / first)
}

// each is a share in KiB, where there are enough to divide by: what little garbage lies about is more than a few hold.
func each(bytes int64, n int) string {
	if n < 500 {
		return "–"
	}
	return decimal(float64(bytes) / 1024 / float64(n))
}

func bytesOf(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size {
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
