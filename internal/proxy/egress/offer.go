package egress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

type offerKey struct{}

// offer is a connection that somebody dialled already.
type offer struct {
	authority exchange.Authority
	conn      net.Conn
}

// offered is the transport of one offered connection. When that is spent, what is still sent by way of it dials like everything else.
type offered struct {
	transport *http.Transport
	lane      *wire.Transport // in its place, where the project's own wire is used
	taken     atomic.Bool
	conn      *conn
}

// Offer returns a context whose plaintext requests for the authority use c, which was dialled and checked before, as long as it lives. All requests
// of a client's tunnel are offered the same connection, one after the other.
func Offer(ctx context.Context, authority exchange.Authority, c net.Conn) context.Context {
	return context.WithValue(ctx, offerKey{}, &offer{authority, c})
}

// offeredFor is the transport for the connection that ctx offers; nil where there is none or it is spent.
func (p *pool) offeredFor(ctx context.Context, target exchange.Authority) *offered {
	o, _ := ctx.Value(offerKey{}).(*offer)
	if o == nil || o.authority != target {
		return nil
	}
	if !p.mayUse(o.conn) {
		return nil
	}
	if known, ok := p.offers.Load(o.conn); ok {
		return known.(*offered)
	}
	if o.conn.SetDeadline(time.Time{}) != nil { // it was closed, so it has been used
		return nil
	}
	n := &offered{conn: p.track(ctx, o.conn)}
	if p.lanes != nil {
		n.lane = p.lane()
		n.lane.Dial = func(ctx context.Context, addr string) (wire.Dialled, error) {
			if n.taken.CompareAndSwap(false, true) {
				return dialled(n.conn, o.conn), nil
			}
			return p.dialLane(ctx, addr)
		}
	} else {
		n.transport = p.transport(false)
		n.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if n.taken.CompareAndSwap(false, true) {
				return &answers{Conn: n.conn}, nil
			}
			return p.dialPlain(ctx, network, addr)
		}
	}
	n.conn.onClose = func() { p.offers.Delete(o.conn) } // under the transport's lock: nothing of it may be called here
	known, ok := p.offers.LoadOrStore(o.conn, n)
	if ok {
		n.conn.active.Dec() // somebody else was faster
	}
	return known.(*offered)
}

// mayUse asks the rules of today: the connection may have been dialled under others, before a reload. A parent is exempt from them.
func (p *pool) mayUse(c net.Conn) bool {
	if p.parent != nil {
		return true
	}
	remote, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := remote.AddrPort()
	return p.check([]netip.Addr{addr.Addr().Unmap()}, addr.Port()) == nil
}
