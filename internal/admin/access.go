package admin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
	"httpowerd/internal/state"
)

// admit says whether the request may be answered at all. open pages need no token.
func (h *Handler) admit(c *call, open bool) *problem {
	r := c.r
	if r.URL.Host != "" || r.URL.Scheme != "" {
		return refuse(codeBadRequest, "this listener is no proxy: ask for a path alone")
	}
	if !h.own(r.Host) {
		return refuse(codeDenied, "the Host field names another listener: use an address, localhost, or the name in admin.listen")
	}
	if foreign(r) {
		return refuse(codeDenied, "pages of other origins may not use this listener")
	}
	snapshot := h.Policies.Load()
	if snapshot == nil {
		if open {
			return nil
		}
		return notReady()
	}
	s := snapshot.Settings.Admin
	if open && !(s.MetricsAuth && r.URL.Path == "/metrics") {
		return nil
	}
	if s.Token.IsZero() {
		if h.loopback && !s.MetricsAuth {
			return nil
		}
		return refuse(codeDenied, "without admin.token this listener shows nothing but health, metrics and the CA certificate beyond this machine")
	}
	return h.authorize(c, s.Token)
}

// own tells whether a Host field means this listener. A name that somebody else could point here is refused, or a web page could reach the
// listener by a name of its own (DNS rebinding). Names without a dot are nobody's but the local network's: containers and services are
// called so.
func (h *Handler) own(host string) bool {
	if host == "" {
		return true // HTTP/1.0; no browser sends this
	}
	a, err := exchange.ParseAuthority(host, 80)
	if err != nil {
		return false
	}
	if _, literal := a.Addr(); literal {
		return true
	}
	return a.Host == "localhost" || slices.Contains(h.names, a.Host) || !h.loopback && !strings.Contains(a.Host, ".")
}

// foreign tells whether a browser sends the request for a page of another origin.
func foreign(r *http.Request) bool {
	for _, origin := range r.Header["Origin"] {
		scheme, host, ok := strings.Cut(origin, "://")
		if !ok || scheme != "http" && scheme != "https" || !strings.EqualFold(host, r.Host) {
			return true
		}
	}
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return true
		}
	}
	return false
}

// authorize checks the token. A client that guesses has only so many guesses.
func (h *Handler) authorize(c *call, token redact.Secret) *problem {
	sent, ok := bearer(c.r.Header)
	if !ok {
		p := refuse(codeUnauthorized, "send what admin.token holds in the field Authorization, behind the word Bearer")
		p.authenticate = `Bearer realm="httpowerd"`
		return p
	}
	right := token.Equal(redact.NewSecret(sent)) // in constant time
	wait := h.guesses.Get(guesser(c.client)).judge(time.Now(), right)
	switch {
	case wait > 0:
		p := refuse(codeRateLimited, "too many wrong tokens came from this address")
		p.retryAfter = wait
		return p
	case !right:
		h.Log.Warn("a wrong token on the admin listener", "client", c.client.String(), "id", c.id)
		p := refuse(codeUnauthorized, "the token is wrong")
		p.authenticate = `Bearer realm="httpowerd", error="invalid_token"`
		return p
	}
	return nil
}

// bearer is the token that was sent, "" where the field says something else.
func bearer(h http.Header) (token string, ok bool) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", false
	}
	if len(values) > 1 {
		return "", true
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.Trim(token, " "), true
}

// How many wrong tokens one client may send: so many at once, and so many in a minute.
const (
	maxGuesses  = 10
	guessEvery  = time.Minute / maxGuesses
	maxGuessers = 4096
)

// guesses is what one client has left. Right tokens cost nothing, but are not looked at either while nothing is left.
type guesses struct {
	mu   sync.Mutex
	full time.Time // when all of them are there again
}

func newGuesses() *state.Table[*guesses] {
	return state.NewTable(maxGuessers, func(state.Key) *guesses { return &guesses{} })
}

// guesser is whoever can be told apart by an address: with IPv6 everybody has at least a /64.
func guesser(client netip.Addr) state.Key {
	name := client.String()
	if client.Is6() {
		prefix, _ := client.Prefix(64) // 64 fits
		name = prefix.String()
	}
	return state.Key{Authority: exchange.Authority{Host: name}}
}

// judge counts a wrong token. It returns how long the client must wait, 0 where the token may be believed to be what it is.
func (g *guesses) judge(now time.Time, right bool) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if spent := g.full.Sub(now); spent > (maxGuesses-1)*guessEvery {
		return spent - (maxGuesses-1)*guessEvery
	}
	if !right {
		if g.full.Before(now) {
			g.full = now
		}
		g.full = g.full.Add(guessEvery)
	}
	return 0
}

// loopback tells whether nobody beyond this machine can reach a listener.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// unescape decodes one part of a path.
func unescape(part string) (string, error) { return url.PathUnescape(part) }

// Changes may come in a burst, then at a pace: a script that has gone wild must neither keep the daemon reloading nor fill the audit trail. Whoever may make
// none has a pace of its own, or it could keep the operator from making one.
const (
	changesBurst = 60
	changesEvery = time.Second
)

// paced holds a change to its pace, and tells whether it is recorded. p is why it may not be made, so far.
func (h *Handler) paced(c *call, p **problem) (recorded bool) {
	if *p != nil {
		return h.refused.wait(time.Now()) == 0
	}
	wait := h.changes.wait(time.Now())
	if wait > 0 {
		*p = refuse(codeRateLimited, "too many changes: there may be 60 at once, then one a second")
		(*p).retryAfter = wait
	}
	return wait == 0
}

// pace is when the next change is due, by the virtual scheduling of a GCRA.
type pace struct {
	mu  sync.Mutex
	due time.Time
}

// wait takes a change; 0: it may be made, else it may after that time.
func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due.Before(now) {
		p.due = now
	}
	if late := p.due.Sub(now) - (changesBurst-1)*changesEvery; late > 0 {
		return late
	}
	p.due = p.due.Add(changesEvery)
	return 0
}
