package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/egress"
	"httpowerd/internal/proxy/wire"
)

// link is one client connection taken over from the HTTP server, from CONNECT to its end or until the inner server has it.
type link struct {
	v      *visit
	client net.Conn
	leave  func()        // gives back what the tenant's limits count
	root   exchange.Root // the context of all that comes before a tunnel

	up       net.Conn       // to the upstream
	tunnel   *egress.Tunnel // the same, as the chain's end made it
	granted  io.Closer      // closes up and gives back what the chain holds for it; nil: there is nothing
	use      use
	pumps    [2]*pump           // up, down
	looked   bool               // at the client's first bytes
	active   interface{ Dec() } // its place in the metrics
	idle     *time.Timer        // cuts the tunnel where nothing moves
	sides    atomic.Int32       // that have not ended
	handed   bool               // the inner server has the client's connection
	answered bool               // the client knows what became of its CONNECT
	lingers  bool               // and has to be given time to see it

	left  atomic.Bool // the client has ended its side
	ended sync.Once   // one direction has
	late  *time.Timer // cuts what is left then

	mu      sync.Mutex
	done    bool
	why     exchange.Code // why it was cut; "": it was not
	detail  string
	rests   [2]resting
	running int // directions that have a goroutine
}

// use is what a tunnel turned out to be: whoever speaks first settles it.
type use struct{ atomic.Uint32 }

const (
	unsettled uint32 = iota
	relayed
	governed
)

// settle claims the tunnel for one use; false: it is settled otherwise.
func (u *use) settle(as uint32) bool {
	return u.CompareAndSwap(unsettled, as) || u.Load() == as
}

// connect takes a CONNECT over. The HTTP server's goroutine and buffers are given back at once.
func (v *visit) connect(client net.Conn) {
	s := v.server
	v.Kind, v.Mode, v.URL = exchange.KindTunnel, exchange.ModeTunnel, v.raw.RequestURI
	l := &link{v: v, client: client}
	l.root.From(context.Background())
	ctx := exchange.NewContext(&l.root, &v.Exchange)
	v.seenBefore = ownVia(v.raw.Header, s.pseudonym)
	header := v.raw.Header
	v.unknown = v.identify(header)
	stripHopByHop(header)
	addVia(header, v.via[:1], v.raw.ProtoMajor, v.raw.ProtoMinor, s)
	v.request = *(&http.Request{Method: http.MethodConnect, RequestURI: v.raw.RequestURI, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: http.NoBody}).WithContext(ctx)
	v.raw = &v.request
	v.w.ResponseWriter = nil
	if !s.tunnels.enter(l, s.limits.tunnels) {
		l.refuse(exchange.Refuse(exchange.Overloaded, "this proxy has as many tunnels as it may have"))
		v.record()
		l.root.Cancel(nil)
		l.linger()
		_ = client.Close()
		return
	}
	go l.run()
}

// run is the way of a CONNECT.
func (l *link) run() {
	v := l.v
	relays := false
	defer func() {
		if p := recover(); !relays {
			l.end(p)
		}
	}()
	if err := l.admit(); err != nil {
		l.refuse(err)
		return
	}
	if v.policy.Intercept {
		l.intercept()
		return
	}
	if err := l.dial(); err != nil {
		l.refuse(err)
		return
	}
	l.relay()
	relays = true
	l.side(0)
}

// end closes what is not in other hands and writes the record. panicked is what somebody panicked with.
func (l *link) end(panicked any) {
	v := l.v
	if panicked != nil {
		v.server.log.Error("a tunnel panicked", "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()), "id", v.ID)
		v.Update(func(s *exchange.Story) { s.Outcome = exchange.Internal })
		if !l.answered {
			l.refuse(errLogged)
		}
	}
	l.mu.Lock()
	l.done = !l.lingers
	why, detail := l.why, l.detail
	l.mu.Unlock()
	if !l.handed {
		l.count(why, detail)
		if l.lingers {
			v.record() // what follows is no part of it
			l.linger()
		}
		_ = l.client.Close()
		if l.granted != nil {
			_ = l.granted.Close()
		}
		if !l.lingers {
			v.record()
		}
	}
	l.root.Cancel(nil)
	v.server.tunnels.leave(l)
	if l.leave != nil && !l.handed {
		l.leave()
	}
}

// count closes the tunnel's part of the story.
func (l *link) count(why exchange.Code, detail string) {
	v := l.v
	v.Update(func(s *exchange.Story) {
		if s.Outcome == "" && why != "" {
			s.Outcome, s.Detail = why, detail
		}
		if l.pumps[0] != nil {
			s.BytesIn, s.BytesOut = l.pumps[0].moved.Load(), l.pumps[1].moved.Load()
		}
	})
}

// bound gives the client that long, unless the link was cut.
func (l *link) bound(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == "" {
		_ = l.client.SetDeadline(t)
	}
}

// cut ends the link from outside, or when one of its sides broke. Only the first reason counts.
func (l *link) cut(why exchange.Code, detail string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || l.why != "" {
		return
	}
	l.why, l.detail = why, detail
	var cause error // none: as where the client has left
	if why == exchange.Draining {
		cause = errCutOff
	}
	l.root.Cancel(cause)
	past := time.Unix(1, 0)
	_ = l.client.SetDeadline(past)
	if l.up != nil {
		_ = l.up.SetDeadline(past)
	}
	l.wake(0)
	l.wake(1)
}

// upstream makes the connection known to cut.
func (l *link) upstream(t *egress.Tunnel, granted io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.tunnel, l.granted = t.Conn, t, granted
	return l.why == ""
}

// admit is the front for tunnels: target, loops, drain, match, access.
func (l *link) admit() error {
	v := l.v
	target, err := exchange.ParseAuthority(v.raw.RequestURI, 0)
	if err != nil {
		return err
	}
	v.Target = target
	host := target.String()
	v.raw.URL, v.raw.Host = &url.URL{Host: host}, host
	switch {
	case v.unknown != nil:
		return v.unknown
	case v.seenBefore:
		return exchange.Refuse(exchange.Loop, "the request carries this proxy's own Via")
	case v.server.draining.Load():
		return exchange.Refuse(exchange.Draining, "this proxy is shutting down")
	}
	if err := v.memory(); err != nil {
		return err
	}
	if err := v.matchTunnel(); err != nil {
		return err
	}
	leave, err := v.occupy(true)
	l.leave = leave
	return err
}

// dial connects to the upstream by way of the policy's chain, then tells the client.
func (l *link) dial() error {
	v := l.v
	resp, err := v.policy.Tunnels.RoundTrip(v.raw)
	if err != nil {
		return err
	}
	if resp == nil || resp.Body == nil {
		return errNoAnswer
	}
	t := egress.TunnelOf(resp)
	if t == nil {
		_ = resp.Body.Close()
		return fmt.Errorf("the tunnel's chain answered %d without a connection", resp.StatusCode)
	}
	if !l.upstream(t, resp.Body) {
		return exchange.Refuse(exchange.Draining, "this proxy is shutting down")
	}
	l.established("upstream")
	return nil
}

// established answers a CONNECT. A client that left is noticed by the relay.
func (l *link) established(by string) {
	v := l.v
	l.answered = true
	v.headDone(nil)
	v.Update(func(s *exchange.Story) { s.Status, s.StatusBy = http.StatusOK, by })
	if s, ok := l.client.(*stream); ok {
		s.established(v.ID)
		return
	}
	const head = "HTTP/1.1 200 Connection established\r\nHttpowerd-Request-Id: "
	b := make([]byte, 0, len(head)+len(v.ID)+4)
	b = append(append(append(b, head...), v.ID...), "\r\n\r\n"...)
	_, _ = wire.Raw(l.client).Write(b)
}

// refuse answers a CONNECT that gets no tunnel.
func (l *link) refuse(err error) {
	v := l.v
	l.answered = true
	d := v.decide(err)
	if d.code == exchange.ClientGone {
		return
	}
	v.headDone(nil)
	_ = l.client.SetWriteDeadline(time.Now().Add(time.Second))
	if s, ok := l.client.(*stream); ok {
		s.refuse(v, d)
		_ = s.CloseWrite()
		return
	}
	v.writeRaw(l.client, d)
	_ = closeWrite(l.client)
	l.lingers = true
}

// relay begins to move bytes both ways, which ends when both sides have ended or one broke. The client's first bytes are looked at before they go anywhere.
func (l *link) relay() {
	v := l.v
	l.root.Cancel(nil) // a tunnel has no context: what was tied to it on the way here is not needed any more, nor is what only the chain looked at
	if v.content == nil {
		v.raw.Header = nil
	}
	v.Update(func(s *exchange.Story) { s.Unapplied = v.policy.Unapplied })
	active := v.server.metrics.tunnelActive.WithLabelValues(v.server.labels.For(&v.Exchange))
	active.Inc()
	l.active = active
	l.pumps = [2]*pump{newPump(l.up, l.client), newPump(l.client, l.up)}
	l.idle = cutIdle(l, v.server.limits.tunnelIdle, &l.pumps[0].moved, &l.pumps[1].moved)
	l.mayRest(0, true)
	l.mayRest(1, true)
	l.sides.Store(2)
	l.running = 2
	v.server.wakeful.add(l)
	go l.side(1)
}

// side runs one direction until it ends or rests. When it breaks the other is cut too.
func (l *link) side(i int) {
	run := l.upward
	if i == 1 {
		run = l.downward
	}
	why, rests := l.guarded(run)
	if rests {
		return
	}
	if why != "" {
		l.cut(why, sideDetail[why])
	}
	l.ended.Do(func() { // what is left of a tunnel that one side has closed may not rest as long
		limits := l.v.server.limits
		l.late = cutIdle(l, min(limits.tunnelIdle, limits.halfOpen), &l.pumps[0].moved, &l.pumps[1].moved)
	})
	l.mu.Lock()
	l.rests[i].may = false
	l.stopped()
	l.mu.Unlock()
	if l.sides.Add(-1) == 0 {
		l.close()
	}
}

// guarded runs a direction, and cuts the link where it panics.
func (l *link) guarded(run func() (exchange.Code, bool)) (why exchange.Code, rests bool) {
	defer func() {
		if p := recover(); p != nil {
			l.v.server.log.Error("a tunnel panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "id", l.v.ID)
			why = exchange.Internal
		}
	}()
	return run()
}

// close ends a tunnel that has been relayed.
func (l *link) close() {
	defer func() { l.end(recover()) }()
	l.active.Dec()
	l.idle.Stop()
	l.late.Stop()
	if l.use.Load() == governed {
		l.govern()
	}
}

var sideDetail = map[exchange.Code]string{
	exchange.ClientGone:    "the client broke the tunnel off",
	exchange.UpstreamReset: "the upstream broke the tunnel off",
	exchange.SNIMismatch:   "the ClientHello does not name the CONNECT host",
}

// downward relays what the upstream sends, unless the client's bytes settled before that this is no tunnel.
func (l *link) downward() (_ exchange.Code, rests bool) {
	p := l.pumps[1]
	b, err := p.next()
	if l.nudged(1, err) {
		return l.pause(1, l.downward)
	}
	if !l.use.settle(relayed) {
		if len(b) > 0 {
			l.mu.Lock() // cut may look
			l.up = &prefixed{Conn: l.up, ahead: append([]byte(nil), b...)}
			l.mu.Unlock()
			p.release()
		}
		return "", false
	}
	failed := sourceSide
	if err == nil {
		if err = p.pass(b); err != nil {
			failed = sinkSide
		} else if failed, err = p.run(); l.nudged(1, err) {
			return l.pause(1, l.downward)
		}
	}
	return l.down(failed, err), false
}

// pause rests, or goes on where that cannot be.
func (l *link) pause(i int, run func() (exchange.Code, bool)) (exchange.Code, bool) {
	if l.rest(i) {
		return "", true
	}
	return run()
}

// down is what the end of the upstream's direction means.
func (l *link) down(failed pumpSide, err error) exchange.Code {
	p := l.pumps[1]
	switch {
	case err == nil || err == io.EOF:
		if !l.left.Load() { // else the whole is closed at once
			_ = closeWrite(l.client)
		}
		return ""
	case failed == sinkSide && p.moved.Load() > 0 && p.unsent <= farewellBytes:
		return "" // the client left without waiting for the upstream's goodbye
	case failed == sinkSide:
		return exchange.ClientGone
	case errors.Is(err, syscall.ECONNRESET) && (l.left.Load() || l.pumps[0].bye.Load()) && p.moved.Load() > 0:
		_ = closeWrite(l.client) // an upstream that closes with its client's goodbye unread resets the connection; that is its usual end
		return ""
	}
	return exchange.UpstreamReset
}

// farewellBytes is what a protocol may still say to a client that has all it wanted: TLS's close_notify, HTTP/2's GOAWAY.
const farewellBytes = 256

// upward relays what the client sends, after a look at its first bytes.
func (l *link) upward() (_ exchange.Code, rests bool) {
	p := l.pumps[0]
	if !l.looked {
		b, err := p.next()
		if l.nudged(0, err) {
			return l.pause(0, l.upward)
		}
		l.mayRest(0, false)
		head, what, why := l.look(p, b, err)
		if why != "" {
			return why, false
		}
		l.looked = true
		if what == plainHTTP && l.use.settle(governed) {
			l.mu.Lock()
			l.client = &prefixed{Conn: l.client, ahead: head}
			l.mu.Unlock()
			l.interrupt()
			return "", false
		}
		l.use.settle(relayed)
		if len(head) > 0 {
			if err := p.pass(head); err != nil {
				return exchange.UpstreamReset, false
			}
		}
		if what == undecided { // the client ended before it said enough
			return l.half(), false
		}
		l.mayRest(0, true)
	}
	failed, err := p.run()
	switch {
	case err == nil:
	case failed == sinkSide && p.bye.Load(): // the upstream left without waiting for the client's goodbye
	case failed == sinkSide:
		return exchange.UpstreamReset, false
	case l.nudged(0, err):
		return l.pause(0, l.upward)
	case !errors.Is(err, syscall.ECONNRESET) || l.pumps[1].moved.Load() == 0:
		return exchange.ClientGone, false
	} // a client that closes with a goodbye still unread resets the connection; that is its usual end
	return l.half(), false
}

// half closes the upstream's side behind the client's end.
func (l *link) half() exchange.Code {
	l.left.Store(true)
	_ = closeWrite(l.up)
	return ""
}

// interrupt wakes downward.
func (l *link) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.up.SetReadDeadline(time.Unix(1, 0))
	l.wake(1)
}

// hesitation is how long the beginning of what may be an HTTP request is held back before it counts as something else.
const hesitation = time.Second

// look collects the client's first bytes, of which it is given what came first, until they say what this is.
func (l *link) look(p *pump, b []byte, err error) (head []byte, what protocol, why exchange.Code) {
	var s sniffer
	for ; ; b, err = p.next() {
		head = append(head, b...)
		p.release()
		switch {
		case err == io.EOF:
			return head, undecided, l.checkName(undecided, hello{}, len(head) > 0)
		case os.IsTimeout(err) && len(head) > 0:
			l.hesitate(0)
			return head, opaque, l.checkName(opaque, hello{}, true)
		case err != nil:
			return nil, undecided, exchange.ClientGone
		}
		what, said := s.sniff(head)
		if what != undecided {
			l.hesitate(0)
			return head, what, l.checkName(what, said, true)
		}
		if len(head) >= sniffLimit {
			return nil, undecided, exchange.SNIMismatch
		}
		if !beginsTLS(head[0]) { // whose hello must not pass for having been slow
			l.hesitate(hesitation)
		}
	}
}

// hesitate bounds the wait for the client's next bytes; 0 lifts the bound, unless the link is being cut.
func (l *link) hesitate(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != "" {
		return
	}
	until := noDeadline
	if d > 0 {
		until = time.Now().Add(d)
	}
	_ = l.client.SetReadDeadline(until)
}

// checkName compares a ClientHello's server name with the CONNECT host. Where the hello may hold another one that is encrypted, the record says so.
func (l *link) checkName(what protocol, said hello, spoke bool) exchange.Code {
	require := l.v.policy.SNI == policy.SNIRequire
	switch {
	case what == plainHTTP || !spoke:
		return ""
	case what != tlsHello || said.serverName == "":
		if require {
			return exchange.SNIMismatch
		}
		return ""
	}
	if said.encrypted {
		l.v.Update(func(s *exchange.Story) { s.Unapplied = append(slices.Clip(s.Unapplied), "sni.encrypted_client_hello") })
	}
	if _, literal := l.v.Target.Addr(); literal && !require {
		return ""
	}
	if strings.EqualFold(strings.TrimSuffix(said.serverName, "."), l.v.Target.Host) {
		return ""
	}
	return exchange.SNIMismatch
}

// cutIdle cuts the link when neither direction moved a byte for that long, give or take an eighth.
func cutIdle(l cutter, limit time.Duration, up, down *atomic.Int64) *time.Timer {
	const steps = 8
	var seen int64
	quiet := 0
	step := max(limit/steps, time.Millisecond)
	var timer *time.Timer
	var mu sync.Mutex // the timer may fire before it is assigned
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(step, func() {
		mu.Lock()
		defer mu.Unlock()
		if now := up.Load() + down.Load(); now != seen {
			seen, quiet = now, 0
		} else if quiet++; quiet >= steps {
			l.cut(exchange.OK, "nothing moved for the idle time")
			return
		}
		timer.Reset(step)
	})
	return timer
}
