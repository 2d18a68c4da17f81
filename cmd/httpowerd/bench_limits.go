package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"httpowerd/internal/state/memory"
)

// The limit that is measured.
const (
	limitRate    = 200 // a second
	limitBurst   = 50
	limitSeconds = 8
)

var limitPolicy = fmt.Sprintf("rate_limit: {requests: %d, per: 1s, burst: %d, wait: 30s, queue: 1000, learn: false}", limitRate, limitBurst)

// limits is what one daemon's limit lets through, to one client and to several.
func (b *resilienceBench) limits(ctx context.Context) error {
	clients := []int{1, 2, 8}
	host := func(n int) string { return fmt.Sprintf("clients%d-noted-x.example.com", n) }
	config := "hosts:\n"
	for _, n := range clients {
		config += b.host(host(n), limitPolicy)
	}
	child, err := launchBenchChild(ctx, b.dir, benchOptions{}, config)
	if err != nil {
		return err
	}
	defer child.stop()
	var wg sync.WaitGroup
	starts := make([]time.Time, len(clients))
	for i, n := range clients {
		starts[i] = time.Now()
		wg.Go(func() { press(ctx, host(n), n, child) })
	}
	wg.Wait()
	b.limitHead()
	for i, n := range clients {
		b.limitRow(fmt.Sprintf("clients: %d", n), host(n), starts[i])
	}
	return nil
}

func (b *resilienceBench) limitHead() {
	b.row(fmt.Sprintf("Limit of %d/s, burst %d", limitRate, limitBurst), "let through", "at most burst + rate × t", "most beyond that", "rate after the burst")
}

// press asks without a pause, n at once, through daemons by turns.
func press(ctx context.Context, host string, n int, children ...*benchChild) {
	ctx, cancel := context.WithTimeout(ctx, limitSeconds*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			client := clientOf(children[i%len(children)])
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				_ = get(ctx, client, "http://"+host+"/")
			}
		})
	}
	wg.Wait()
}

// limitRow compares what arrived with the bound at every moment. start is before the first request: what arrives late can only look better.
func (b *resilienceBench) limitRow(what, host string, start time.Time) {
	a := b.upstream.of(host)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.times) == 0 {
		b.row(what, 0)
		return
	}
	worst, calm := math.Inf(-1), 0
	for i, t := range a.times {
		worst = max(worst, float64(i+1)-limitBurst-limitRate*t.Sub(start).Seconds())
		if t.Sub(start) < time.Second {
			calm = i
		}
	}
	last := len(a.times) - 1
	rate := float64(last-calm) / a.times[last].Sub(a.times[calm]).Seconds()
	b.row(what, len(a.times), fmt.Sprintf("%.0f", limitBurst+limitRate*a.times[last].Sub(start).Seconds()), fmt.Sprintf("%.1f", worst),
		fmt.Sprintf("%.2f/s (%+.2f %%)", rate, 100*(rate/limitRate-1)))
}

// shared is the same limit in two daemons with one Redis, where there is one.
func (b *resilienceBench) shared(ctx context.Context) error {
	server, err := exec.LookPath("redis-server")
	if err != nil {
		b.row("Two daemons with one Redis: not measured, there is no redis-server here")
		return nil
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(address)
	redis := exec.CommandContext(ctx, server, "--port", port, "--bind", "127.0.0.1", "--dir", b.dir, "--save", "", "--appendonly", "no")
	if err := redis.Start(); err != nil {
		return err
	}
	defer func() {
		_ = redis.Process.Kill()
		_ = redis.Wait()
	}()
	if err := (&benchChild{address: address}).await(ctx); err != nil {
		return err
	}
	const host = "shared-noted-x.example.com"
	var children []*benchChild
	for range 2 {
		state := fmt.Sprintf(", backend: redis, url: \"redis://%s\", secret: the-same-in-all-daemons, timeout: 500ms, share: 2", address)
		child, err := launchBenchChild(ctx, b.dir, benchOptions{state: state}, "hosts:\n"+b.host(host, limitPolicy))
		if err != nil {
			return err
		}
		defer child.stop()
		children = append(children, child)
	}
	start := time.Now()
	press(ctx, host, 8, children...)
	b.limitHead()
	b.limitRow("clients: 8, of two daemons with one Redis", host, start)
	return nil
}

// farOff is more than goroutines that are woken in order overtake each other.
const farOff = 100

// releaseBurst lets a limit make up for timers that ring late.
const releaseBurst = 20

// waiters is what ten thousand requests in one queue cost.
func (b *resilienceBench) waiters(ctx context.Context) error {
	const waiters, batch = 10_000, 100
	const host, open = "queue-noted-x.example.com", "open-noted-x.example.com"
	policy := func(perSecond, burst int) string { // at 3/s the last one would wait for just under an hour, which is the longest that may be written
		return "hosts:\n" + b.host(open, "breaker: off") +
			b.host(host, fmt.Sprintf("timeout: {total: 2h}, rate_limit: {requests: %d, per: 1s, burst: %d, wait: 1h, queue: %d, learn: false}", perSecond, burst, waiters))
	}
	b.row("One queue", "waiting", "heap and stacks before", "then", "each", "served at 2000/s in", "out of order by over 100")
	if err := b.queueAlone(ctx, waiters); err != nil {
		return err
	}
	child, err := launchBenchChild(ctx, b.dir, benchOptions{environment: []string{"GOGC=25"}}, policy(3, 1)) // with little garbage
	if err != nil {
		return err
	}
	defer child.stop()
	// The connections first, so that what they cost is not taken for what waiting costs.
	conns := make([]net.Conn, 0, waiters+1)
	for range waiters + 1 {
		c, err := net.Dial("tcp", child.address)
		if err != nil { // there are not as many files for a process
			b.row(fmt.Sprintf("in a daemon: not measured, %v", err))
			return nil
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for _, c := range conns {
		if err := exchange(c, open, 0); err != nil {
			return err
		}
	}
	before := child.memory(ctx)
	if err := exchange(conns[waiters], host, -1); err != nil { // takes the only token
		return err
	}
	for from := 0; from < waiters; from += batch {
		for i := range batch {
			if _, err := fmt.Fprintf(conns[from+i], "GET http://%s/%d HTTP/1.1\r\nHost: %s\r\n\r\n", host, from+i, host); err != nil {
				return err
			}
		}
		if err := b.awaitWaiting(ctx, child, host, from+batch); err != nil {
			return err
		}
	}
	waiting := child.memory(ctx)
	start := time.Now()
	if err := child.configure(policy(2000, releaseBurst)); err != nil {
		return err
	}
	if err := child.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	for _, c := range conns[:waiters] {
		if err := finishExchange(c); err != nil {
			return err
		}
	}
	took := time.Since(start)
	b.row("in a daemon, with all that a request is", waiters, mebibytes(before), mebibytes(waiting), kibibytes((waiting-before)/waiters),
		fmt.Sprintf("%.1f s", took.Seconds()), "-")
	return nil
}

func kibibytes(n float64) string { return fmt.Sprintf("%.1f KiB", n/(1<<10)) }

func mebibytes(n float64) string { return fmt.Sprintf("%.1f MiB", n/(1<<20)) }

// queueAlone is the queue by itself, in this process: what each that waits costs, its goroutine among it, and whether they are served in the
// order in which they came.
func (b *resilienceBench) queueAlone(ctx context.Context, waiters int) error {
	l := memory.NewLimiter(memory.Rate{Requests: 1, Per: time.Hour, Burst: 1}, memory.Spread)
	bounds := memory.Bounds{Wait: time.Duration(waiters+1) * time.Hour, Queue: waiters}
	if _, err := l.Take(ctx, 1, bounds); err != nil {
		return err
	}
	before := inUse()
	served := make(chan int, waiters)
	for i := range waiters {
		go func() {
			if _, err := l.Take(ctx, 1, bounds); err == nil {
				served <- i
			}
		}()
		for l.Status().Waiting <= i {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			runtime.Gosched()
		}
	}
	waiting := inUse()
	start := time.Now()
	l.SetRate(memory.Rate{Requests: 2000, Per: time.Second, Burst: releaseBurst})
	late := 0
	for i, last := 0, -1; i < waiters; i++ {
		n := <-served
		if last-n > farOff {
			late++
		}
		last = max(last, n)
	}
	b.row("the queue alone", waiters, mebibytes(before), mebibytes(waiting), kibibytes((waiting-before)/float64(waiters)),
		fmt.Sprintf("%.1f s", time.Since(start).Seconds()), late)
	return nil
}

// inUse is this process's heap and stacks without garbage.
func inUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// exchange sends a request on a connection of one's own and reads the answer.
func exchange(c net.Conn, host string, id int) error {
	if _, err := fmt.Fprintf(c, "GET http://%s/%d HTTP/1.1\r\nHost: %s\r\n\r\n", host, id, host); err != nil {
		return err
	}
	return finishExchange(c)
}

// finishExchange reads an answer, which is short.
func finishExchange(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	var answer []byte
	buf := make([]byte, 2048)
	for !strings.Contains(string(answer), "\r\n\r\n") {
		n, err := c.Read(buf)
		answer = append(answer, buf[:n]...)
		if err != nil {
			return err
		}
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		line, _, _ := strings.Cut(string(answer), "\r\n")
		return fmt.Errorf("the answer was %s", line)
	}
	return nil
}

// page gets a page of the child's admin listener.
func (c *benchChild) page(ctx context.Context, path string) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.admin+path, nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

// metric adds up the samples of a family whose labels contain a text.
func (c *benchChild) metric(ctx context.Context, family, label string) (sum float64) {
	for line := range strings.Lines(c.page(ctx, "/metrics")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if bare, labels, _ := strings.Cut(name, "{"); bare == family && strings.Contains(labels, label) {
			v, _ := strconv.ParseFloat(rest, 64)
			sum += v
		}
	}
	return sum
}

// memory is the child's heap and stacks, in bytes, with garbage that was not collected yet.
func (c *benchChild) memory(ctx context.Context) float64 {
	return c.metric(ctx, "go_memstats_heap_inuse_bytes", "") + c.metric(ctx, "go_memstats_stack_inuse_bytes", "")
}

// awaitWaiting waits until so many requests wait for a host's limit, or have passed it.
func (b *resilienceBench) awaitWaiting(ctx context.Context, c *benchChild, host string, n int) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		passed := int(b.upstream.of(host).n.Load()) - 1 // one was there before
		var view struct{ Limits []struct{ Waiting int } }
		_ = json.Unmarshal([]byte(c.page(ctx, "/api/v1/hosts/"+host)), &view)
		waiting := 0
		for _, l := range view.Limits {
			waiting += l.Waiting
		}
		if passed+waiting >= n {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("%d requests wait and %d passed; %d should in all", waiting, passed, n)
		}
	}
}
