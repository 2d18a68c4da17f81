package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/tenant"
	"httpowerd/internal/proxy/egress"
)

// visit is the door's side of an exchange: the client's connection and writer, and what the record will need.
type visit struct {
	exchange.Exchange
	server   *Server
	conn     *conn
	snapshot *policy.Snapshot
	policy   *policy.Policy // nil while nothing matched yet
	raw      *http.Request  // as the server read it
	request  http.Request   // as it goes into the chain
	w        writer
	in       requestBody
	out      responseBody

	leave   func()         // gives back what the tenant's limits count; nil: nothing is counted
	unknown error          // why the client of a CONNECT is no tenant
	digest  *tenant.Digest // what a signature says of the body; nil: nothing
	content *content       // what the record shows of the messages themselves; nil: nothing

	seenBefore bool // the request carries our own Via
	websocket  bool // the client asks for exactly that upgrade
	drained    bool // what was left of an unwanted body has been read
	unrecorded bool // the audit trail takes no records, and the policy lets nothing through without

	informational sync.Mutex // held while a 1xx answer is written; see Inform
	answered      bool

	// Room for the values that are added to headers: Via of the request and of the answer, and the answer's Httpowerd-Request-Id.
	via [2]string
	id  [1]string
}

func (s *Server) newVisit(w http.ResponseWriter, r *http.Request) *visit {
	v := allocate(r.Method) // field by field: a literal is made on the stack first, and is large
	v.server, v.conn, v.raw, v.snapshot = s, connOf(r.Context()), r, s.policies.Load()
	v.w.ResponseWriter, v.w.v = w, v
	if v.ID = clientID(r.Header); v.ID == "" {
		v.ID, v.OwnID = newID(), true
	}
	v.Kind, v.Mode, v.Start = exchange.KindRequest, exchange.ModePlain, time.Now()
	v.Client, v.Method, v.Host, v.Door = r.RemoteAddr, r.Method, otherHost, v
	if t := v.conn.tunnel; t != nil {
		if !t.begins() {
			panic(http.ErrAbortHandler)
		}
		v.Mode, v.Client = t.mode, t.client
	}
	s.tracer.Begin(&v.Exchange, r.Header)
	return v
}

// allocate makes a visit together with the memory that stages need for nearly every request.
func allocate(method string) *visit {
	if method == http.MethodConnect {
		return &visit{}
	}
	m := &struct {
		visit   visit
		sending egress.Spare
		report  breaker.Spare
	}{}
	m.visit.Lend(&m.sending, &m.report)
	return &m.visit
}

// visitOf is the visit that an exchange belongs to.
func visitOf(x *exchange.Exchange) *visit { return x.Door.(*visit) }

// clientID is the client's own X-Request-Id where it is plausible, else "".
func clientID(h http.Header) string {
	if ids := h["X-Request-Id"]; len(ids) == 1 && plausibleID(ids[0]) {
		return ids[0]
	}
	return ""
}

// idSize is how long an ID is, and idsAhead how many are made at once.
const (
	idSize   = 32
	idsAhead = 32
)

// idsLeft are IDs that were made ahead, end to end: one allocation for each would be one of the few that a request takes.
type idsLeft struct{ text string }

var ids = sync.Pool{New: func() any { return new(idsLeft) }}

func newID() string {
	left := ids.Get().(*idsLeft)
	defer ids.Put(left)
	if left.text == "" {
		var b [idsAhead * idSize / 2]byte
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], rand.Uint64())
		}
		left.text = hex.EncodeToString(b[:])
	}
	id := left.text[:idSize]
	left.text = left.text[idSize:]
	return id
}

func plausibleID(id string) bool {
	if len(id) < 4 || len(id) > 128 {
		return false
	}
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case c == '-', c == '_', c == '.', c == ':', c == '=', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}

// requestBody counts what the client sent, and keeps its beginning where the policy wants that in the record.
type requestBody struct {
	io.ReadCloser
	v       *visit
	bytes   int64 // read by the transport's goroutine, looked at when the exchange is over
	err     error // what ended it
	bounded bool  // there is a deadline for reading it
	done    bool  // nobody wants more of it
	mu      sync.Mutex
	waits   atomic.Bool // for the client
}

// Owes implements what an exchange asks of its client.
func (v *visit) Owes() bool { return v.in.waits.Load() }

// Close ends the reading. An HTTP/1 server's body would wait for the read that runs, however long its client takes; the server closes that itself.
func (b *requestBody) Close() error {
	b.mu.Lock()
	b.done = true
	b.mu.Unlock()
	if b.v.raw.ProtoMajor == 1 {
		return nil
	}
	return b.ReadCloser.Close()
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	done := b.done
	b.mu.Unlock()
	if done {
		return 0, http.ErrBodyReadAfterClose
	}
	b.waits.Store(true)
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		b.waits.Store(false) // else it is owed for good
	}
	if err == io.EOF {
		stripTrailers(b.v.raw.Trailer)
	}
	if err == io.EOF && b.bounded && b.v.raw.ProtoMajor == 1 {
		b.v.bodyBy(noDeadline) // the server reads on, to notice a client that leaves
	}
	b.mu.Lock()
	b.bytes += int64(n)
	if b.err == nil {
		b.err = err
	}
	if c := b.v.content; c != nil {
		c.in.add(p[:n])
	}
	b.mu.Unlock()
	return n, err
}

// Ready tells whether the rest has come already.
func (b *requestBody) Ready() bool { return exchange.Ready(b.ReadCloser) }

func (b *requestBody) ended() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *requestBody) count() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// content is what a policy records of the messages themselves.
type content struct {
	requestHeader, responseHeader http.Header
	in, out                       *capture // of the bodies
}

// capture keeps the first bytes of a body; nil: it does not.
type capture struct {
	buf       []byte
	max       int
	truncated bool
}

func (c *capture) add(p []byte) {
	if c == nil {
		return
	}
	if room := c.max - len(c.buf); len(p) > room {
		p, c.truncated = p[:room], true
	}
	c.buf = append(c.buf, p...)
}
