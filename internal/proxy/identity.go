package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/tenant"
)

// identify tells whose the request is, from what the client shows of itself (contract: the front's stage before clean). Requests inside a tunnel belong to whom the
// CONNECT did.
func (v *visit) identify(header http.Header) error {
	set := v.snapshot.Tenants
	t := v.conn.tunnel
	if t != nil {
		v.Tenant = t.tenant
		if set != nil && set.Signs() { // it proves nothing here, and would be as good as new to whoever is behind
			tenant.TakeSignature(header)
		}
	}
	switch {
	case set == nil:
		v.Tenant = ""
		return nil
	case t != nil:
		if !set.Has(t.tenant) { // a reload took it away, or brought tenants
			return &exchange.Refusal{Code: exchange.AuthRequired, Detail: "the tunnel is of no tenant that may use this proxy", Close: true}
		}
		return nil
	}
	e := tenant.Evidence{Authorization: header["Proxy-Authorization"], Certificate: peerCertificate(v.conn), Now: v.Start}
	if set.Signs() {
		e.Signature = tenant.TakeSignature(header)
	}
	if e.Signature != nil || len(e.Authorization) > 0 {
		e.Request = v.signable(header)
	}
	if addr, err := netip.ParseAddrPort(v.Client); err == nil {
		e.Address = addr.Addr()
	}
	if e.Signature != nil || len(e.Authorization) > 0 {
		if wait, spent := v.server.failures.Spent(&e); spent {
			return &exchange.Refusal{Code: exchange.RateLimited, Detail: "too many wrong proxy credentials came from this address", RetryAfter: wait}
		}
	}
	name, verdict := set.Identify(&e)
	switch verdict {
	case tenant.Known:
		v.Tenant, v.digest = name, e.Digest
		return v.emptyBody()
	case tenant.Busy:
		return &exchange.Refusal{Code: exchange.RateLimited, Detail: e.Why.Error(), RetryAfter: time.Second}
	case tenant.Unproven: // it is no guess: an issuer that is away must not use up the address's budget
		return &exchange.Refusal{Code: exchange.AuthRequired, Detail: e.Why.Error(), RetryAfter: tenant.UnprovenFor}
	case tenant.Wrong:
		v.server.failures.Add(&e)
		if e.Why != nil {
			return exchange.Refuse(exchange.AuthRequired, "%v", e.Why)
		}
		return exchange.Refuse(exchange.AuthRequired, "the proxy credentials are not right")
	}
	return exchange.Refuse(exchange.AuthRequired, "this proxy wants to know who asks")
}

// signable is what signatures of the request are over.
func (v *visit) signable(header http.Header) tenant.Request {
	r := tenant.Request{Header: header, Method: v.raw.Method, Scheme: v.Scheme, Target: v.Target}
	if r.Method == http.MethodConnect {
		r.Target, _ = exchange.ParseAuthority(v.raw.RequestURI, 0) // what is none is refused for that
		return r
	}
	if _, rest, ok := strings.Cut(v.raw.RequestURI, "://"); ok {
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			r.Path = rest[i:]
		}
	}
	return r
}

// mayUse asks the tenant's only.
func (v *visit) mayUse() error {
	if set := v.snapshot.Tenants; set != nil && !set.May(v.Tenant, v.Target) {
		return exchange.Refuse(exchange.Denied, "the tenant %s may not use %s", v.Tenant, v.Target.Host)
	}
	return nil
}

// occupy takes one of the tenant's places; leave gives it back.
func (v *visit) occupy(tunnel bool) (leave func(), err error) {
	set := v.snapshot.Tenants
	if set == nil {
		return nobodys, nil
	}
	limits := set.LimitsOf(v.Tenant)
	most, what := int64(limits.Requests), "requests"
	if tunnel {
		most, what = int64(limits.Tunnels), "tunnels"
	}
	if most == 0 {
		return nobodys, nil
	}
	n := v.server.places.of(v.Tenant, tunnel)
	if n.Add(1) > most {
		n.Add(-1)
		return nil, exchange.Refuse(exchange.Overloaded, "the tenant %s has as many %s under way as it may have", v.Tenant, what)
	}
	return sync.OnceFunc(func() { n.Add(-1) }), nil
}

// nobodys is the leave of what is not counted.
func nobodys() {}

// places counts what tenants have under way. Names come from the configuration, so they are few.
type places struct{ m sync.Map }

type placeKey struct {
	tenant string
	tunnel bool
}

func (p *places) of(name string, tunnel bool) *atomic.Int64 {
	key := placeKey{name, tunnel}
	if n, ok := p.m.Load(key); ok {
		return n.(*atomic.Int64)
	}
	n, _ := p.m.LoadOrStore(key, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// peerCertificate is the verified certificate that the client of an HTTPS listener showed; nil: none.
func peerCertificate(c *conn) *x509.Certificate {
	inner := c.Conn
	if c.secure != nil {
		inner = c.secure
	}
	for {
		switch t := inner.(type) {
		case *tls.Conn:
			if chains := t.ConnectionState().VerifiedChains; len(chains) > 0 {
				return chains[0][0]
			}
			return nil
		case *prefixed:
			inner = t.Conn
		case *conn:
			inner = t.Conn
		default:
			return nil
		}
	}
}

// challenge says how a client may show who it is.
func (v *visit) challenge() []string {
	if v.snapshot != nil && v.snapshot.Tenants != nil {
		return v.snapshot.Tenants.Challenges()
	}
	return []string{`Basic realm="httpowerd"`}
}
