package intercept

import (
	"container/list"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// maxLeaves is how many names are remembered; the least recently used goes first, and costs one signature when it comes back.
const maxLeaves = 4096

// Leaf returns a certificate for one host name or IP address (without brackets or port), signed by the CA and followed by it. It is cached and
// shared: do not change it. Whoever asks decides first that the name may be intercepted: every new one costs a signature. The error says that
// the name is none, why there is no CA, or that ctx has ended.
func (a *Authority) Leaf(ctx context.Context, name string) (*tls.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := a.signer()
	if err != nil {
		return nil, err
	}
	return s.leaves.leaf(name)
}

// leafCache holds what hangs on one name: its leaf and its TLS settings. All leaves share one key, because a key for each would cost time and
// would protect nothing: they live in the same memory.
type leafCache struct {
	ca    *material
	chain [][]byte // what follows the leaf
	pool  *x509.CertPool
	key   *ecdsa.PrivateKey
	keyID []byte // the leaves' subject key identifier
	ttl   time.Duration

	mu     sync.Mutex
	byName map[string]*list.Element
	order  *list.List // of *leafEntry, the most recently used first
}

type leafEntry struct {
	name    string
	mu      sync.Mutex // single flight: whoever waits for it finds the leaf made
	leaf    atomic.Pointer[mintedLeaf]
	configs [2]atomic.Pointer[tls.Config] // HTTP/1.1 only, and with HTTP/2
}

// mintedLeaf is good from one moment to another by the clock that clients go by: that may be set, and the monotonic one stands still while the machine sleeps.
type mintedLeaf struct {
	cert        tls.Certificate
	from, renew time.Time
}

func (l *mintedLeaf) good(now time.Time) bool { return !now.Before(l.from) && now.Before(l.renew) }

func newLeafCache(m *material, ttl time.Duration) (*leafCache, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	c := &leafCache{ca: m, key: key, keyID: sum[:20], ttl: ttl, byName: map[string]*list.Element{}, order: list.New()}
	for _, cert := range m.chain {
		c.chain = append(c.chain, cert.Raw)
	}
	if constrained(m.chain[0]) {
		c.pool = x509.NewCertPool()
		c.pool.AddCert(m.chain[0])
	}
	return c, nil
}

func (c *leafCache) leaf(name string) (*tls.Certificate, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	return c.current(e)
}

func (c *leafCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byName)
	c.order.Init()
}

// current is the entry's leaf, minted anew where there is none, its end is near, or the clock went back to before its begin.
func (c *leafCache) current(e *leafEntry) (*tls.Certificate, error) {
	now := time.Now()
	if l := e.leaf.Load(); l != nil && l.good(now) {
		return &l.cert, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.leaf.Load(); l != nil && l.good(now) {
		return &l.cert, nil
	}
	l, err := c.mint(e.name, now)
	if err != nil {
		return nil, err
	}
	e.leaf.Store(l)
	return &l.cert, nil
}

// entry finds or adds the name's entry. Only canonical names are keys, so a hit needs no look at the spelling.
func (c *leafCache) entry(name string) (*leafEntry, error) {
	if e := c.find(name); e != nil {
		return e, nil
	}
	canonical, err := canonicalName(name)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byName[canonical]; el != nil {
		c.order.MoveToFront(el)
		return el.Value.(*leafEntry), nil
	}
	if c.order.Len() >= maxLeaves {
		oldest := c.order.Back()
		delete(c.byName, c.order.Remove(oldest).(*leafEntry).name)
	}
	canonical = strings.Clone(canonical) // it may be a part of a larger buffer, and it stays
	e := &leafEntry{name: canonical}
	c.byName[canonical] = c.order.PushFront(e)
	return e, nil
}

func (c *leafCache) find(name string) *leafEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byName[name]
	if el == nil {
		return nil
	}
	c.order.MoveToFront(el)
	return el.Value.(*leafEntry)
}

func (c *leafCache) mint(name string, now time.Time) (*mintedLeaf, error) {
	ca := c.ca.chain[0]
	now = now.Round(0)
	if now.After(ca.NotAfter) {
		return nil, fmt.Errorf("the interception CA expired on %s", ca.NotAfter.UTC().Format(time.DateOnly))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    later(now.Add(-backdate), ca.NotBefore),
		NotAfter:     earlier(now.Add(c.ttl), ca.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		SubjectKeyId: c.keyID, // the authority's comes from the CA certificate
		// Clients read names from here alone (RFC 9110 section 4.3.4); a common name could not hold more than 64 characters anyway.
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, c.key.Public(), c.ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", name, err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if c.pool != nil {
		if _, err := parsed.Verify(x509.VerifyOptions{Roots: c.pool, CurrentTime: now}); err != nil {
			return nil, fmt.Errorf("the CA's name constraints do not cover %s: %w", name, err)
		}
	}
	l := &mintedLeaf{from: now.Add(-backdate), renew: template.NotAfter.Add(-template.NotAfter.Sub(now) / 3)}
	l.cert = tls.Certificate{Certificate: append([][]byte{der}, c.chain...), PrivateKey: c.key, Leaf: parsed}
	return l, nil
}

// canonicalName is the one spelling of a host name or an address.
func canonicalName(name string) (string, error) {
	if strings.IndexByte(name, ':') < 0 {
		return exchange.CanonicalHost(name)
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return "", exchange.Refuse(exchange.BadRequest, "the target's host is neither a name nor an address")
	}
	return addr.Unmap().String(), nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
