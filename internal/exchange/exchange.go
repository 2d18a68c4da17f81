// Package exchange is the word that all rooms share: one request of a client and everything done to answer it.
package exchange

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a record is about.
type Kind string

// The kinds of exchanges.
const (
	KindRequest Kind = "request"
	KindTunnel  Kind = "tunnel"
)

// Mode is how the client's bytes reach the proxy.
type Mode string

// The modes: http:// in the clear, CONNECT relayed blindly, CONNECT decrypted, http:// from the app and https:// upstream.
const (
	ModePlain     Mode = "plain"
	ModeTunnel    Mode = "tunnel"
	ModeIntercept Mode = "intercept"
	ModeUpgrade   Mode = "upgrade"
)

// Exchange is one request (or tunnel) and its story. The fields above the line are set by the door and the front before the chain runs
// and only read by rooms; the story below it is written through methods, which are safe for concurrent use.
type Exchange struct {
	ID      string
	Kind    Kind
	Mode    Mode
	Start   time.Time
	Client  string // the client's address and port
	Tenant  string // "": none
	Method  string // as the client sent it
	URL     string // absolute, as the client meant it; not redacted
	Scheme  string // spoken upstream: http, https; "" for tunnels
	Target  Authority
	Policy  string // the pattern that matched, "#" and the route's name where one did, "@" and the tenant's where that has its own; "": nothing but defaults
	Host    string // metrics label as it was when the request matched; see Label
	TraceID string
	Trace   Trace
	Door    any // the door's own handle; rooms leave it alone

	// Informational passes a 1xx answer of the upstream to the client; nil when the client cannot take one.
	Informational Informer

	// Repeats tells whoever sends the request that a stage above sends it again where that is safe, and keeps account of it. Set before the first attempt.
	Repeats bool

	OwnID bool // the ID was made here, so it holds nothing of the client's

	verdict Verdict // see Judge; mu guards it, and it stands here because here is room

	lanes atomic.Bool            // attempts may overlap
	label atomic.Pointer[string] // nil: Host holds

	mu     sync.Mutex
	story  Story
	joined *Exchange // whom this one's story was added to
	next   struct {  // what is known of the coming attempt before it begins
		reason string
		wait   time.Duration
	}
	first [1]Attempt // room for the first one
	spare [2]any     // see Lend

	running int           // attempts that have begun and not ended
	upTo    time.Duration // Upstream is counted up to here after origin; 0: no attempt has begun, and nothing was waited for
}

// Informer passes a 1xx answer on. It may be called from another goroutine than the exchange's. One that has a method Owes is asked by the exchange's.
type Informer interface {
	Inform(status int, header http.Header)
}

// Story is what the stages noted. The audit record, the outcome counter, the status page and the tests all read it.
type Story struct {
	Status     int    // of the answer that went to the client; 0: none
	StatusBy   string // upstream, proxy, cache, mock
	Outcome    Code   // "" while the exchange runs
	Detail     string // a refusal's detail, for the record
	Attempts   []Attempt
	LimitWait  time.Duration // waiting for own limits
	Backoff    time.Duration // waiting between attempts
	Upstream   time.Duration // waiting for the upstream, all attempts; time that several of them share counts once
	Overhead   time.Duration // time to the response head that is none of the three above
	Breaker    string        // its state when it was last asked
	Dedup      string        // the role in a shared exchange: leader, follower, replayed, conflict, or bypass with its reason; "": none
	Sanitized  []Sanitized   // what was found in the traffic itself
	Observed   []string      // what observe mode would have done
	Unapplied  []string      // settings that could not act: on a tunnel, or an expression on an answer
	BytesIn    int64         // of the request's body, or from the client in a tunnel
	BytesOut   int64         // of the answer's body, or to the client in a tunnel
	Waits      []Wait        // what LimitWait is made of, the first of them; only where the exchange is traced
	NotRetried string        // why a failed exchange was not tried again: method, budget, body, deadline, attempts, retry_after, breaker, gate
}

// Attempt is one sending of a request to the upstream.
type Attempt struct {
	N        int
	Status   int           // 0: no answer
	Error    Code          // "": none
	Reason   string        // why this attempt was made after another: a retry reason; "" for the first
	Wait     time.Duration // slept before it; of a hedge: how long the upstream was given before it
	Duration time.Duration // to the response head
	Address  string        // the address that was connected to; for records, never for clients
	Reused   bool          // on a kept-alive connection
	HTTP2    bool          // spoken on it
	ended    bool
	Span     [8]byte // in a trace; zero: none
	begin    time.Time
}

type contextKey struct{}

// NewContext returns a context that carries x. A Root that carries none yet is that context itself.
func NewContext(ctx context.Context, x *Exchange) context.Context {
	if r, ok := ctx.(*Root); ok && r.x == nil {
		r.x = x
		return r
	}
	return context.WithValue(ctx, contextKey{}, x)
}

// From is the exchange that ctx carries. It panics where there is none: every request below the door has one.
func From(ctx context.Context) *Exchange {
	return ctx.Value(contextKey{}).(*Exchange)
}

// Pattern is the configured pattern that the host matched; "": none did.
func (x *Exchange) Pattern() string { return PatternOf(x.Policy) }

// PatternOf is the host pattern in a policy's name.
func PatternOf(policy string) string {
	pattern, _, _ := strings.Cut(policy, "#")
	pattern, _, _ = strings.Cut(pattern, "@")
	return pattern
}

// Update changes the story under its lock; f must be short and must not call other methods of x.
func (x *Exchange) Update(f func(*Story)) {
	x.mu.Lock()
	f(&x.story)
	x.mu.Unlock()
}

// Story is a copy of the story so far. The copy's slices must not be written to.
func (x *Exchange) Story() Story {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.story
	if x.lanes.Load() { // an attempt that lost may still write to its own
		s.Attempts = slices.Clone(s.Attempts)
	}
	return s
}

// Read calls f with the story under its lock, for readers that need no copy.
func (x *Exchange) Read(f func(*Story)) { x.Update(f) }

// NextAttempt says why and after which wait the next attempt is made.
func (x *Exchange) NextAttempt(reason string, wait time.Duration) {
	x.mu.Lock()
	x.next.reason, x.next.wait = reason, wait
	x.story.Backoff += wait
	x.mu.Unlock()
}

// BeginAttempt opens the next attempt and returns its index for EndAttempt.
func (x *Exchange) BeginAttempt(now time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := Attempt{Reason: x.next.reason, Wait: x.next.wait}
	x.next.reason, x.next.wait = "", 0
	return x.begin(a, now)
}

// begin opens an attempt. x.mu is held.
func (x *Exchange) begin(a Attempt, now time.Time) int {
	if x.story.Attempts == nil {
		x.story.Attempts = x.first[:0]
	}
	if x.running++; x.running == 1 {
		x.upTo = now.Sub(origin)
	}
	a.N, a.begin = len(x.story.Attempts)+1, now
	a.Span = x.Trace.spanOf(a.N)
	x.story.Attempts = append(x.story.Attempts, a)
	return a.N - 1
}

// EndAttempt closes the attempt of that index and returns how long it took: status is 0 and code set where no answer came. One that EndOpen has
// closed stays as it is.
func (x *Exchange) EndAttempt(index int, now time.Time, status int, code Code) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := &x.story.Attempts[index]
	if a.ended {
		return now.Sub(a.begin)
	}
	x.count(now)
	x.running--
	a.ended, a.Status, a.Error, a.Duration = true, status, code, now.Sub(a.begin)
	return a.Duration
}

// count adds to Upstream what has passed since it was last counted: clocks that were read before the lock was had may be a little behind it.
// x.mu is held, and an attempt runs.
func (x *Exchange) count(now time.Time) {
	if at := now.Sub(origin); at > x.upTo {
		x.story.Upstream += at - x.upTo
		x.upTo = at
	}
}

// Connected notes the address that the attempt of that index uses.
func (x *Exchange) Connected(index int, address string, reused bool) {
	x.mu.Lock()
	a := &x.story.Attempts[index]
	if !a.ended {
		a.Address, a.Reused = address, reused
	}
	x.mu.Unlock()
}

// Label is the metrics label of the host, bounded, as of now: a name that matches no host block has one of its own only once it was reached.
func (x *Exchange) Label() string {
	if label := x.label.Load(); label != nil {
		return *label
	}
	return x.Host
}

// Relabel changes the label.
func (x *Exchange) Relabel(label string) { x.label.Store(&label) }

// Waited adds a wait for one of the proxy's own limits.
func (x *Exchange) Waited(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	d = x.alone(d)
	x.story.LimitWait += d
	if x.Trace.Sampled && d > 0 && len(x.story.Waits) < maxWaits {
		x.story.Waits = append(x.story.Waits, Wait{time.Now(), d})
	}
}

// Awaited adds a wait for the body of an answer whose head is held back until then.
func (x *Exchange) Awaited(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.story.Upstream += x.alone(d)
}

// Paused adds a wait between attempts that no attempt followed.
func (x *Exchange) Paused(d time.Duration) { x.Update(func(s *Story) { s.Backoff += d }) }

// Owes tells whether the client is waited for: it has not sent all of its request, and what was asked for of it did not come.
func (x *Exchange) Owes() bool {
	client, ok := x.Informational.(interface{ Owes() bool })
	return ok && client.Owes()
}

// CutShort tells whether f ended an attempt because the time of all attempts together was over, of which it had not had all: the exchange waited for limits, or
// made other attempts before. That says little about the upstream.
func (x *Exchange) CutShort(f *Failure) bool {
	if !f.Overall {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.story.LimitWait+x.story.Backoff > 0 || len(x.story.Attempts) > 1
}

// Observe notes what a block in observe mode would have done, such as "rate_limited".
func (x *Exchange) Observe(what string) {
	x.mu.Lock()
	x.story.Observed = append(x.story.Observed, what)
	x.mu.Unlock()
}

type writtenKey struct{}

// Writer hears that all of a request was written, once for each connection that it is written to.
type Writer interface{ Written() }

// WrittenContext is a context under which whoever sends the request tells a Writer, by Written.
type WrittenContext struct {
	Branch
	writer Writer
}

// Within makes c a branch of ctx that tells w.
func (c *WrittenContext) Within(ctx context.Context, w Writer) {
	c.From(ctx)
	c.writer = w
}

// Value implements context.Context.
func (c *WrittenContext) Value(key any) any {
	if key == (writtenKey{}) {
		return c
	}
	return c.Branch.Value(key)
}

// Written tells the Writer of each WrittenContext that ctx is, or descends from.
func Written(ctx context.Context) {
	for {
		c, ok := ctx.Value(writtenKey{}).(*WrittenContext)
		if !ok {
			return
		}
		c.writer.Written()
		ctx = c.parent
	}
}
