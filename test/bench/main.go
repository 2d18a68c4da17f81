// Command bench measures proxies side by side: httpowerd with its default policy, a bare httputil.ReverseProxy, and squid where it is installed. Each
// is a process of its own on loopback, and what counts is its CPU time for each request: that holds on a busy machine, where rates and latencies do
// not. Rounds are interleaved, so that whatever disturbs this machine disturbs all of them.
//
// With -growth it measures httpowerd alone, and what its requests cost as connections, host blocks and bodies grow.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan says what is measured, how long and how hard.
type plan struct {
	httpowerd     string
	duration      time.Duration
	rounds        int
	clients, size int
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 4 && args[0] == bareCommand {
		return serveBare(args[1], args[2], args[3])
	}
	var p plan
	var growth bool
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&p.httpowerd, "httpowerd", "bin/httpowerd", "the daemon's binary")
	flags.DurationVar(&p.duration, "duration", time.Second, "of each measurement")
	flags.IntVar(&p.rounds, "rounds", 3, "how often each is repeated")
	flags.IntVar(&p.clients, "clients", 16, "requests in flight")
	flags.IntVar(&p.size, "size", 1024, "bytes of an answer's body")
	flags.BoolVar(&growth, "growth", false, "measure how httpowerd's costs grow, instead of beside others; -duration holds, the rest does not")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if growth {
		return p.growth(out).run(ctx)
	}
	return p.run(ctx, out)
}

// scenario is a way through a proxy.
type scenario struct {
	name              string
	secure, intercept bool
	h2                bool
}

var scenarios = []scenario{
	{name: "plain"},
	{name: "tunnel", secure: true},
	{name: "intercepted", secure: true, intercept: true},
	{name: "intercepted h2", secure: true, intercept: true, h2: true},
}

// cell collects what the rounds gave for one proxy in one scenario.
type cell struct {
	cpu  []float64 // µs for each request
	rate []float64 // requests per second
}

func (p plan) run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "httpowerd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // squid gives up root and must still read its files
		return err
	}
	lab, err := newLab(dir, p.size)
	if err != nil {
		return err
	}
	defer lab.close()
	peers, err := p.start(ctx, lab)
	defer func() {
		for _, peer := range peers {
			peer.stop()
		}
	}()
	if err != nil {
		return err
	}
	cells := map[*peer][]cell{}
	for _, peer := range peers {
		cells[peer] = make([]cell, len(scenarios))
	}
	for round := range p.rounds {
		for i, s := range scenarios {
			for j := range peers {
				peer := peers[(j+round)%len(peers)]
				if s.h2 && !peer.kind.h2 {
					continue
				}
				if err := p.measure(ctx, lab, peer, s, &cells[peer][i]); err != nil {
					return fmt.Errorf("%s, %s: %w", peer.kind.name, s.name, err)
				}
			}
		}
	}
	return p.print(out, peers, cells)
}

func (p plan) measure(ctx context.Context, l *lab, peer *peer, s scenario, c *cell) error {
	client, err := l.client(peer, s, p.clients)
	if err != nil {
		return err
	}
	defer client.close()
	if _, err := client.load(ctx, p.duration/5); err != nil { // warms up
		return err
	}
	process := peer.process(s)
	before, start := process.cpu(), time.Now()
	n, err := client.load(ctx, p.duration)
	if err != nil {
		return err
	}
	c.rate = append(c.rate, float64(n)/time.Since(start).Seconds())
	c.cpu = append(c.cpu, float64((process.cpu()-before).Nanoseconds())/1000/float64(n))
	return nil
}

func (p plan) print(out io.Writer, peers []*peer, cells map[*peer][]cell) error {
	fmt.Fprintf(out, "CPU µs/request, median (lowest – highest) of %d rounds; then requests/s with %d in flight, answers of %d bytes\n\n", p.rounds, p.clients, p.size)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "proxy")
	for _, s := range scenarios {
		fmt.Fprint(table, "\t"+s.name)
	}
	fmt.Fprintln(table)
	for _, peer := range peers {
		fmt.Fprint(table, peer.kind.name)
		for _, c := range cells[peer] {
			fmt.Fprint(table, "\t"+c.String())
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

func (c cell) String() string {
	if len(c.cpu) == 0 {
		return "–"
	}
	slices.Sort(c.cpu)
	slices.Sort(c.rate)
	middle := len(c.cpu) / 2
	return fmt.Sprintf("%.1f (%.1f – %.1f), %.0f/s", c.cpu[middle], c.cpu[0], c.cpu[len(c.cpu)-1], c.rate[middle])
}
