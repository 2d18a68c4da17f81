package dedup

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a stage before an upstream that answers as the test says.
type rig struct {
	*testing.T
	room   *Room
	reg    *prometheus.Registry
	keeper state.Keeper
	chain  http.RoundTripper
	next   func(*http.Request) (*http.Response, error)
	sent   atomic.Int32
	open   atomic.Int32 // answers whose body is not closed
}

const api = "api.example.com"

func newRig(t *testing.T, edit func(*Config)) *rig {
	r := &rig{T: t, reg: prometheus.NewPedanticRegistry()}
	r.room = New(r.reg)
	r.next = func(req *http.Request) (*http.Response, error) {
		take(req)
		time.Sleep(time.Second)
		return r.answer(200, "body"), nil
	}
	r.load(edit, Key{})
	t.Cleanup(func() {
		r.keeper.Close()
		for range 100 { // whoever got the last byte may be ahead of the one that gives back
			if r.room.memory.used.Load() == 0 && r.open.Load() == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := r.room.memory.used.Load(); n != 0 {
			t.Errorf("%d bytes of the budget are not given back", n)
		}
		if n := r.open.Load(); n != 0 {
			t.Errorf("%d bodies of the upstream are open", n)
		}
	})
	return r
}

// take reads what a request sends.
func take(req *http.Request) string {
	if req.Body == nil {
		return ""
	}
	body, _ := io.ReadAll(req.Body)
	return string(body)
}

func (r *rig) load(edit func(*Config), k Key) {
	c := Default()
	if edit != nil {
		edit(&c)
	}
	if faults := c.Validate(); len(faults) > 0 {
		r.Fatal(faults)
	}
	g := r.keeper.Begin()
	r.chain = exchange.Chain(exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) {
		r.sent.Add(1)
		return r.next(req)
	}), r.room.Stage(state.Scope{Generation: g, Policy: api}, c, k))
	g.Commit()
}

// answer is one of the upstream's, with its length.
func (r *rig) answer(status int, body string, fields ...string) *http.Response {
	resp := r.stream(status, strings.NewReader(body), fields...)
	resp.ContentLength = int64(len(body))
	return resp
}

// stream is one without.
func (r *rig) stream(status int, body io.Reader, fields ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	r.open.Add(1)
	return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h, ContentLength: -1,
		Body: &upstreamBody{Reader: body, done: sync.OnceFunc(func() { r.open.Add(-1) })}}
}

type upstreamBody struct {
	io.Reader
	done func()
}

func (b *upstreamBody) Close() error {
	b.done()
	if c, ok := b.Reader.(io.Closer); ok {
		_ = c.Close()
	}
	return nil
}

// until reads from the pipe until the request's context ends, as a transport's body does.
func until(ctx context.Context, p *io.PipeReader) io.Reader {
	context.AfterFunc(ctx, func() { _ = p.CloseWithError(context.Cause(ctx)) })
	return p
}

// ask is a client's request; fields are names and values.
func ask(ctx context.Context, method, body string, fields ...string) (*http.Request, *exchange.Exchange) {
	x := &exchange.Exchange{Method: method, Scheme: "https", Target: exchange.Authority{Host: api, Port: 443}, Host: "*.example.com", Policy: api}
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(exchange.NewContext(ctx, x), method, "https://"+api+"/v1/things?a=1", b)
	if err != nil {
		panic(err)
	}
	r.GetBody = nil
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r, x
}

// result is what a client got.
type result struct {
	status int
	body   string
	header http.Header
	resp   *http.Response
	err    error
	dedup  string
	x      *exchange.Exchange
	took   time.Duration
}

// do sends a request and reads its answer to the end.
func (r *rig) do(req *http.Request, x *exchange.Exchange) (out result) {
	begin := time.Now()
	defer func() { out.dedup, out.x, out.took = x.Story().Dedup, x, time.Since(begin) }()
	resp, err := r.chain.RoundTrip(req)
	if err != nil {
		return result{err: err}
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return result{status: resp.StatusCode, body: string(b), header: resp.Header, resp: resp, err: err}
}

func (r *rig) get(fields ...string) result { return r.do(ask(r.Context(), "GET", "", fields...)) }

// crowd sends n requests at once and waits for all.
func (r *rig) crowd(n int, request func(i int) (*http.Request, *exchange.Exchange)) []result {
	out := []result{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			req, x := request(i)
			got := r.safely(func() result { return r.do(req, x) })
			mu.Lock()
			out = append(out, got)
			mu.Unlock()
		})
		synctest.Wait() // so that the first one leads
	}
	all.Wait()
	return out
}

// roles counts what became of requests.
func roles(results []result) map[string]int {
	m := map[string]int{}
	for _, r := range results {
		m[r.dedup]++
	}
	return m
}

func code(err error) exchange.Code {
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	switch {
	case errors.As(err, &refusal):
		return refusal.Code
	case errors.As(err, &failure):
		return failure.Code
	}
	return ""
}

// counted is httpowerd_dedup_requests_total by role.
func (r *rig) counted() map[string]int {
	families, err := r.reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	m := map[string]int{}
	for _, f := range families {
		if f.GetName() != "httpowerd_dedup_requests_total" {
			continue
		}
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				if n := int(metric.GetCounter().GetValue()); l.GetName() == "role" && n > 0 {
					m[l.GetValue()] = n
				}
			}
		}
	}
	return m
}

func seconds(n int) setting.Duration { return setting.Duration(time.Duration(n) * time.Second) }
