// Package admin is what an operator sees of the daemon and can change in it: metrics, health, the CA certificate, the status page and the API.
//
// It knows the other parts by what Options hands it. access.go says who may ask what; every change, done or refused, leaves an audit record.
package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/state"
)

// Policies is the configuration in use; *policy.Holder is one.
type Policies interface {
	Load() *policy.Snapshot
	File() *policy.File
	RestartNeeded() []string
}

// Breakers are the circuit breakers; *breaker.Room is one.
type Breakers interface {
	Status() []breaker.Status
	Force(authority, to string) error
}

// Level is the level of the daemon's own log. A forced one holds through reloads until it is released.
type Level interface {
	Level() (now slog.Level, forced bool)
	Force(slog.Level)
	Release()
}

// Options are the parts of the daemon that the admin listener shows and changes. All of them are needed.
type Options struct {
	Version string
	Listen  string   // the address that the listener is bound to
	Names   []string // what the listener is called besides localhost and its addresses
	Started time.Time

	Policies Policies
	OnReload func(func(*policy.Snapshot, error, []string)) // registers a hook that hears of every reload
	Reload   func(ctx context.Context, why string) error
	Breakers Breakers
	Limits   func(func(ratelimit.LimitStatus))
	Places   func(func(concurrency.Status))
	Budgets  func(func(retry.BudgetStatus))
	State    func() StateStatus
	Metrics  prometheus.Gatherer
	Traffic  func(context.Context) <-chan []byte // audit records as lines, until the context ends
	Event    func(kind string, attrs ...slog.Attr)
	CA       func() ([]byte, error)
	Leaving  <-chan struct{} // closed when draining begins
	Level    Level
	Log      *slog.Logger
}

// Handler answers on the admin listener.
type Handler struct {
	Options
	loopback bool
	names    []string
	routes   map[string]route
	metrics  http.Handler
	page     *page
	last     atomic.Pointer[reloaded]
	guesses  *state.Table[*guesses]
	changes  pace // that may be made
	refused  pace // that may not, as far as they are recorded

	// What may be in work at once, so that those whom everybody may ask cannot take the places of the operator.
	open, guarded, viewers chan struct{}
}

// How many requests may be in work at once, and how many may watch the traffic.
const (
	maxOpen    = 8
	maxGuarded = 16
	maxViewers = 16
)

// New makes the handler.
func New(o Options) *Handler {
	h := &Handler{Options: o, loopback: loopback(o.Listen), page: newPage(), guesses: newGuesses(),
		open: make(chan struct{}, maxOpen), guarded: make(chan struct{}, maxGuarded), viewers: make(chan struct{}, maxViewers)}
	for _, name := range o.Names {
		if canonical, err := exchange.CanonicalHost(name); err == nil {
			h.names = append(h.names, canonical)
		}
	}
	h.metrics = h.newMetrics()
	h.routes = routes()
	o.OnReload(h.hear)
	return h
}

// route is one path.
type route struct {
	open    bool // to whoever reaches the listener
	free    bool // takes no place among those in work: it is cheap, or counts its own
	methods map[string]endpoint
}

// endpoint is one method of a path. event names a change in the audit trail.
type endpoint struct {
	event string
	serve func(*Handler, *call) *problem
}

// routes are the paths there are. What ends in a slash is followed by one name.
func routes() map[string]route {
	get := func(serve func(*Handler, *call) *problem) map[string]endpoint {
		return map[string]endpoint{http.MethodGet: {serve: serve}}
	}
	return map[string]route{
		"/":                 {methods: get((*Handler).status)},
		"/metrics":          {open: true, methods: get((*Handler).scrape)},
		"/healthz":          {open: true, free: true, methods: get((*Handler).healthz)},
		"/readyz":           {open: true, free: true, methods: get((*Handler).readyz)},
		"/ca.pem":           {open: true, methods: get((*Handler).ca)},
		"/api/v1/config":    {methods: get((*Handler).config)},
		"/api/v1/reload":    {methods: map[string]endpoint{http.MethodPost: {"reload", (*Handler).reload}}},
		"/api/v1/hosts":     {methods: get((*Handler).hosts)},
		"/api/v1/hosts/":    {methods: get((*Handler).host)},
		"/api/v1/breakers":  {methods: get((*Handler).breakers)},
		"/api/v1/breakers/": {methods: map[string]endpoint{http.MethodPost: {"breaker", (*Handler).force}}},
		"/api/v1/limits":    {methods: get((*Handler).limits)},
		"/api/v1/state":     {methods: get((*Handler).state)},
		"/api/v1/traffic":   {free: true, methods: get((*Handler).traffic)},
		"/api/v1/explain":   {methods: get((*Handler).explain)},
		"/api/v1/log-level": {methods: map[string]endpoint{http.MethodGet: {serve: (*Handler).level}, http.MethodPut: {"log_level", (*Handler).setLevel}}},
	}
}

// find is the route of a path as it was sent, with the name that ends it. No path has a second spelling.
func (h *Handler) find(r *http.Request) (found route, arg string, ok bool) {
	path := r.URL.EscapedPath()
	if found, ok = h.routes[path]; ok && (path == "/" || !strings.HasSuffix(path, "/")) {
		return found, "", true
	}
	i := strings.LastIndexByte(path, '/') + 1
	if i <= 1 || i == len(path) {
		return route{}, "", false
	}
	arg, err := unescape(path[i:])
	found, ok = h.routes[path[:i]]
	return found, arg, ok && err == nil
}

// call is one request in work.
type call struct {
	w      *answer
	r      *http.Request
	id     string
	client netip.Addr
	arg    string      // the name that ends the path
	what   []slog.Attr // of a change, for its record
}

// answer knows whether its head was written.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write writes the body.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{w: &answer{ResponseWriter: w}, r: r, id: newID(), client: clientOf(r)}
	header := c.w.Header()
	for _, f := range fixed {
		header[f[0]] = []string{f[1]}
	}
	header["Httpowerd-Request-Id"] = []string{c.id}
	defer h.rescue(c)
	found, arg, ok := h.find(r)
	c.arg = arg
	action, known := found.methods[r.Method]
	if r.Method == http.MethodHead {
		action, known = found.methods[http.MethodGet]
	}
	p := h.admit(c, found.open)
	if action.event != "" && h.paced(c, &p) {
		defer h.record(c, action.event)
	}
	switch {
	case p != nil:
	case !ok:
		p = refuse(codeNotFound, "there is no such page")
	case !known:
		p = refuse(codeMethod, "this page does not know that method")
		p.allow = allowed(found.methods)
	default:
		p = h.work(c, found, action)
	}
	if p != nil {
		c.write(p)
	}
}

// work serves a call that was admitted, when there is a place.
func (h *Handler) work(c *call, found route, action endpoint) *problem {
	places := h.guarded
	if found.open {
		places = h.open
	}
	if !found.free {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			return tooMany()
		}
	}
	return action.serve(h, c)
}

func tooMany() *problem {
	p := refuse(codeOverloaded, "too many requests are in work here")
	p.retryAfter = time.Second
	return p
}

// fixed stand in every answer. A page with a style of its own replaces the content policy.
var fixed = [...][2]string{
	{"Cache-Control", "no-store"},
	{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Referrer-Policy", "no-referrer"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
}

// rescue turns a defect into an answer: the daemon lives on.
func (h *Handler) rescue(c *call) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	h.Log.Error("the admin listener panicked", "id", c.id, "path", c.r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if c.w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	c.write(refuse(codeInternal, "an internal error was logged under this request's id"))
}

// record is the audit record of a change, or of the attempt.
func (h *Handler) record(c *call, event string) {
	attrs := []slog.Attr{slog.String("id", c.id), slog.String("event", event), slog.String("client", c.client.String()),
		slog.String("method", c.r.Method)}
	if c.arg != "" {
		attrs = append(attrs, slog.String("authority", c.arg))
	}
	attrs = append(attrs, c.what...)
	result := c.w.Header().Get(errorField)
	if result == "" {
		result = string(exchange.OK)
	}
	if c.w.status == 0 { // it panicked, or there is nobody to answer
		result = codeInternal
	}
	h.Event("admin", append(attrs, slog.String("result", result), slog.Int("status", c.w.status))...)
}

// newID names a request for the log, the audit trail and whoever asked.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// clientOf is the address of whoever connected. What a field of the request claims does not matter.
func clientOf(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap().WithZone("")
}
