package egress

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
	"httpowerd/internal/state"
)

const (
	warming    = 8                // connections that all policies together may be making ahead at a time
	warmPlaces = 64               // upstreams of one policy that are kept warm; who was not used for longest goes first
	warmFor    = 10 * time.Minute // after an upstream's last request, or upstream.idle where that is longer
	warmLook   = time.Second      // how often is looked what is missing
	warmLived  = 30 * time.Second // a connection that nobody used and that ended sooner was closed by its upstream
	coolFirst  = time.Second      // the first wait after a failure, which doubles
	coolMost   = time.Minute
)

// warmer keeps connections ready for requests to come: to upstreams that were reached, and to the one that the configuration names. It dials under the same rules
// as requests do. They are of HTTP/1.1: of HTTP/2 one connection carries all, and the library keeps it.
type warmer struct {
	pool   *pool
	policy string
	want   int
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	places map[warmKey]*warmPlace
	timer  *time.Timer // nil: there is nothing to look after
	began  bool
	closed bool
}

type warmKey struct {
	lane *wire.Transport
	addr string
}

// warmPlace is one upstream.
type warmPlace struct {
	warmKey
	target               exchange.Authority
	scheme, tenant, host string // of whoever used it last, for the breaker and metrics
	always               bool   // the configuration names it
	used, filled         time.Time
	busy                 bool // a goroutine makes connections
	wait                 time.Duration
	until                time.Time // nothing is tried before
}

func newWarmer(p *pool, policy string) *warmer {
	w := &warmer{pool: p, policy: policy, want: p.upstream.Warm, places: map[warmKey]*warmPlace{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// begin makes what the configuration names ready, once it is in use.
func (w *warmer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began || w.closed {
		return
	}
	w.began = true
	u, err := url.Parse(w.pool.upstream.Early)
	if err != nil || u.Host == "" {
		return
	}
	target, err := exchange.ParseAuthority(u.Host, 0)
	if err != nil {
		return
	}
	p := &warmPlace{warmKey: w.pool.warmKey(u.Scheme, target.String()), target: target, scheme: u.Scheme, host: w.policy, always: true, used: time.Now()}
	w.places[p.warmKey] = p
	w.look(p, p.used)
	w.timer = time.AfterFunc(warmLook, w.tick)
}

// warmKey is how the lanes know an upstream.
func (p *pool) warmKey(scheme, addr string) warmKey {
	switch {
	case scheme == "https":
		return warmKey{p.lanes.secure, addr}
	case p.lanes.absolute != nil:
		return warmKey{p.lanes.absolute, parentPlace}
	}
	return warmKey{p.lanes.plain, addr}
}

// reached: a request of x has a connection. The next one should find another.
func (w *warmer) reached(x *exchange.Exchange) {
	key := w.pool.warmKey(x.Scheme, x.Target.String())
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	now := time.Now()
	p := w.places[key]
	if p == nil {
		if len(w.places) >= warmPlaces && !w.forget() {
			return
		}
		key.addr = strings.Clone(key.addr)
		p = &warmPlace{warmKey: key, target: exchange.Authority{Host: strings.Clone(x.Target.Host), Port: x.Target.Port}, scheme: x.Scheme}
		w.places[key] = p
	}
	p.tenant, p.host, p.used = x.Tenant, x.Host, now
	w.look(p, now)
	if w.timer == nil {
		w.timer = time.AfterFunc(warmLook, w.tick)
	}
}

// forget makes room. w.mu is held.
func (w *warmer) forget() bool {
	var oldest *warmPlace
	for _, p := range w.places {
		if !p.always && (oldest == nil || p.used.Before(oldest.used)) {
			oldest = p
		}
	}
	if oldest != nil {
		delete(w.places, oldest.warmKey)
	}
	return oldest != nil
}

func (w *warmer) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = nil
	if w.closed {
		return
	}
	now := time.Now()
	for key, p := range w.places {
		if !p.always && now.Sub(p.used) > max(warmFor, w.pool.upstream.Idle.D()) {
			delete(w.places, key)
			continue
		}
		w.look(p, now)
	}
	if len(w.places) > 0 {
		w.timer = time.AfterFunc(warmLook, w.tick)
	}
}

// look starts to make what is missing. w.mu is held.
func (w *warmer) look(p *warmPlace, now time.Time) {
	if p.busy || now.Before(p.until) || !p.lane.Lacks(p.addr, w.want) {
		return
	}
	if unused := p.used.Before(p.filled); unused && now.Sub(p.filled) < warmLived { // an upstream that wants no idle connections
		p.filled = time.Time{}
		p.cool(now)
		return
	} else if unused {
		p.wait = 0
	}
	p.busy = true
	x := &exchange.Exchange{Kind: exchange.KindRequest, Scheme: p.scheme, Target: p.target, Tenant: p.tenant, Policy: w.policy, Host: p.host}
	w.wg.Go(func() { w.fill(p, x) })
}

// cool puts the next try off.
func (p *warmPlace) cool(now time.Time) {
	p.wait = min(max(2*p.wait, coolFirst), coolMost)
	p.until = now.Add(p.wait/2 + rand.N(p.wait))
}

// fill makes connections until none is missing or one fails.
func (w *warmer) fill(p *warmPlace, x *exchange.Exchange) {
	made, two, err := true, false, error(nil)
	filled := false
	for made && err == nil && w.ctx.Err() == nil {
		if w.pool.held(w.policy, state.KeyOf(x)) {
			break
		}
		if made, two, err = w.one(p, x); made {
			filled = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p.busy = false
	now := time.Now()
	switch {
	case w.ctx.Err() != nil:
	case err != nil:
		p.cool(now)
		w.pool.log.Debug("a connection could not be made ahead", "policy", w.policy, "authority", p.target.String(), "error", err, slog.Duration("wait", p.wait))
	case filled:
		p.filled = now
	case two:
		p.until = now.Add(coolMost)
	default:
		p.until = now.Add(coolFirst) // held, or nothing is kept: not to be asked with each request
	}
}

// one makes one connection, unless the upstream speaks HTTP/2 alone.
func (w *warmer) one(p *warmPlace, x *exchange.Exchange) (made, two bool, err error) {
	select {
	case w.pool.warming <- struct{}{}:
		defer func() { <-w.pool.warming }()
	case <-w.ctx.Done():
		return false, false, w.ctx.Err()
	}
	ctx := exchange.NewContext(w.ctx, x)
	if p.lane == w.pool.lanes.secure && w.pool.upstream.HTTP2 {
		two, asked, err := w.pool.ask(ctx, &w.pool.one, p.addr, true)
		if err != nil || two || asked {
			w.count(x, asked && !two, err)
			return asked && !two, two, err
		}
	}
	made, err = p.lane.Warm(ctx, p.addr, w.want)
	w.count(x, made, err)
	return made, false, err
}

func (w *warmer) count(x *exchange.Exchange, made bool, err error) {
	switch {
	case err != nil && w.ctx.Err() == nil:
		w.pool.metrics.warmed.WithLabelValues(w.pool.label(x), string(codeOf(err))).Inc()
	case made:
		w.pool.metrics.warmed.WithLabelValues(w.pool.label(x), "ok").Inc()
	}
}

// close ends what is being made. The lanes close what is kept.
func (w *warmer) close() {
	w.mu.Lock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// openWarmer gives a pool its warmer, where the configuration wants one.
func (p *pool) openWarmer(policy string) {
	switch {
	case p.upstream.Warm == 0:
	case p.lanes == nil:
		p.log.Warn("upstream.warm does nothing: it needs proxy.wire: own", "policy", policy)
	default:
		p.warmer = newWarmer(p, policy)
	}
}
