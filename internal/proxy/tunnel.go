package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"httpowerd/internal/exchange"
)

// tunnel is what the requests inside a CONNECT tunnel inherit from it.
type tunnel struct {
	authority exchange.Authority
	scheme    string // https where the tunnel was decrypted, http where plaintext was inside
	mode      exchange.Mode
	client    string
	tenant    string
	hosts     [2]string                                 // how an honest request inside spells the authority
	context   func(ctx context.Context) context.Context // offers the connection that CONNECT dialled to a request; nil: there is none
	offered   net.Conn                                  // that connection
	leave     func()                                    // gives back what the tenant's limits count
	unused    atomic.Pointer[link]                      // its CONNECT, of which no request has been made; nil: one has
}

func (l *link) newTunnel(scheme string, mode exchange.Mode) *tunnel {
	v := l.v
	return &tunnel{authority: v.Target, scheme: scheme, mode: mode, client: v.Client, tenant: v.Tenant,
		hosts: [2]string{v.Target.ForScheme(scheme), v.Target.String()}, leave: l.leave}
}

// wasted stands for a CONNECT that was recorded, as its connection ended without a request.
var wasted = &link{}

// begins is called by each request inside. It is false where the connection has ended before, and stands in a record as that.
func (t *tunnel) begins() bool {
	l := t.unused.Load()
	return l == nil || l != wasted && (t.unused.CompareAndSwap(l, nil) || t.unused.Load() == nil)
}

// end is called when the client's connection is closed.
func (t *tunnel) end() {
	if t.offered != nil {
		_ = t.offered.Close()
	}
	t.leave()
	if l := t.unused.Load(); l != nil && l != wasted && t.unused.CompareAndSwap(l, wasted) {
		l.waste()
	}
}

// admit checks that a request inside names the authority of its CONNECT and nothing else. path becomes the target's path and query.
func (t *tunnel) admit(r *http.Request, path *string) error {
	if r.Method == http.MethodConnect {
		return &exchange.Refusal{Code: exchange.Unsupported, Detail: "there are no tunnels inside tunnels", Close: true}
	}
	if !r.URL.IsAbs() {
		if r.Host == t.hosts[0] || r.Host == t.hosts[1] || r.Host == "" && r.ProtoMajor == 1 && r.ProtoMinor == 0 {
			return nil
		}
		return t.same(exchange.ParseAuthority(r.Host, t.port()))
	}
	scheme, a, rest, err := splitAbsolute(r)
	if err == nil && scheme != t.scheme {
		return exchange.Refuse(exchange.AuthorityMismatch, "the URL's scheme is not the tunnel's")
	}
	*path = rest
	return t.same(a, err)
}

func (t *tunnel) port() uint16 {
	if t.scheme == "https" {
		return 443
	}
	return 80
}

func (t *tunnel) same(a exchange.Authority, err error) error {
	if err == nil && a != t.authority {
		err = exchange.Refuse(exchange.AuthorityMismatch, "the request names another host or port than its CONNECT")
	}
	return err
}

// tunnels are the connections that were taken over from the HTTP server: relayed, upgraded, or on their way to the inner server.
type tunnels struct {
	mu    sync.Mutex
	open  map[cutter]struct{}
	empty chan struct{} // closed when open runs empty; nil while nobody waits
}

// cutter is a connection that can be ended from outside.
type cutter interface {
	cut(why exchange.Code, detail string)
}

// enter counts l in; false at the ceiling.
func (t *tunnels) enter(l cutter, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) >= limit {
		return false
	}
	if t.open == nil {
		t.open = map[cutter]struct{}{}
	}
	t.open[l] = struct{}{}
	return true
}

func (t *tunnels) leave(l cutter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, l)
	if len(t.open) == 0 && t.empty != nil {
		close(t.empty)
		t.empty = nil
	}
}

var errCut = errors.New("connections that were still open have been cut")

// drain waits for all to end and cuts those that are left when ctx does.
func (t *tunnels) drain(ctx context.Context) error {
	for {
		t.mu.Lock()
		if len(t.open) == 0 {
			t.mu.Unlock()
			return nil
		}
		if t.empty == nil {
			t.empty = make(chan struct{})
		}
		empty := t.empty
		t.mu.Unlock()
		select {
		case <-empty:
		case <-ctx.Done():
			t.cut()
			<-empty
			return errCut
		}
	}
}

func (t *tunnels) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.open {
		l.cut(exchange.Draining, cutDetail)
	}
}
