package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// maxInformational bounds the 1xx answers before a final one.
const maxInformational = 32

// attempt is one sending of a request, as the transport's hooks see it.
type attempt struct {
	pool      *pool
	transport *http.Transport
	x         *exchange.Exchange
	index     int
	trace     httptrace.ClientTrace

	method string
	cancel context.CancelCauseFunc // nil: the transport sends nothing again by itself
	conn   *conn
	reads  *answers   // nil: HTTP/2
	two    *objecting // nil: HTTP/1.1
	found  int64      // objections of two before this attempt
	heard  int64      // reads of two before this attempt
	taken  int64      // writes of two before this attempt
	before int64      // written on conn before this attempt
	again  bool       // this is the second sending
	resent bool       // one more sending was prevented
	unseen bool       // what it would have repeated had not been looked at

	begun atomic.Bool // the request's fields were encoded, so that they may have been written

	informational informational
	in            requestBody
	out           answerBody
}

// informational is what an attempt's 1xx answers need.
type informational struct {
	mu   sync.Mutex
	n    int
	size int           // of all heads together
	last chan struct{} // closed when the client has the last one; nil: none came
}

var (
	errResend  = errors.New("the transport was about to send the request again")
	errGivenUp = errors.New("the upstream gave the request up")
)

// roundTrip sends the request once. Where the transport finds a kept connection dead it may, for safe methods alone, send it again, once; that is noted as
// an attempt of its own where bytes had been written.
func (p *pool) roundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	x := exchange.From(ctx)
	if err := p.admit(ctx, x, r); err != nil {
		closeBody(r)
		return nil, err
	}
	if p.lanes != nil {
		return p.send(ctx, r, x)
	}
	index := x.BeginAttemptIn(ctx, x.Now())
	t, err := p.choose(p.dialContext(ctx, r), r, x)
	if err != nil {
		closeBody(r)
		p.ended(x, index, 0, err)
		return nil, err
	}
	return p.standard(ctx, r, x, index, t)
}

// standard is roundTrip by net/http, for the attempt of that index.
func (p *pool) standard(ctx context.Context, r *http.Request, x *exchange.Exchange, index int, t *http.Transport) (*http.Response, error) {
	a := &attempt{pool: p, transport: t, x: x, index: index, method: r.Method}
	a.trace = httptrace.ClientTrace{GetConn: a.getConn, GotConn: a.gotConn, Got1xxResponse: a.got1xx}
	a.trace.WroteHeaderField = func(string, []string) { a.begun.Store(true) } // net/http calls it before it writes
	a.trace.GotFirstResponseByte = func() { a.in.awaited.Store(false) }
	a.trace.WroteRequest = func(info httptrace.WroteRequestInfo) {
		if info.Err == nil {
			exchange.Written(ctx)
		}
	}
	out := a.request(p.dialContext(ctx, r), carrying(x, index, r))
	if t == p.absolute {
		absoluteForm(out)
	}
	if out.Header["Te"] != nil && !t.Protocols.HTTP2() {
		out.Header = maps.Clone(out.Header)
		out.Header.Add("Connection", "TE") // RFC 9110 section 10.1.4
	}
	resp, err := t.RoundTrip(out)
	for n := 0; err != nil && n < mostLeftOut && a.leftOut() && out.Context().Err() == nil; n++ { // net/http goes on itself where there is no body
		resp, err = t.RoundTrip(out)
	}
	if err == nil {
		a.informed(ctx)
		err = a.head(resp)
	}
	if err != nil {
		if !a.begun.Load() {
			closeBody(r)
		}
		err = a.explain(ctx, err)
		if f := own[*exchange.Failure](err); f != nil && f.Code == exchange.UpstreamTimeout && a.stuck() {
			p.retire(t)
		}
		a.release()
		p.ended(x, a.index, 0, err)
		return nil, err
	}
	p.ended(x, a.index, resp.StatusCode, nil)
	resp.Request = r
	if resp.StatusCode != http.StatusSwitchingProtocols { // whose body must stay writable
		a.out.ReadCloser, a.out.attempt, a.out.ctx = resp.Body, a, ctx
		resp.Body = &a.out
	}
	return resp, nil
}

// stuck tells whether nothing at all has come by an HTTP/2 connection during the attempt, or nothing gone, not even the request's head.
func (a *attempt) stuck() bool {
	return a.two != nil && (a.two.reads.Load() == a.heard || a.two.writes.Load() == a.taken)
}

// head looks at what the transport made of an answer's head.
func (a *attempt) head(resp *http.Response) error {
	if a.reads == nil {
		err := headHTTP2(resp)
		if err != nil {
			a.quit()
			_ = resp.Body.Close()
		}
		return err
	}
	if lines := a.reads.connection(); lines != nil {
		resp.Header["Connection"] = lines // the front must see what they name
	}
	return nil
}

// headHTTP2 judges what net/http passes on as it came, because frames tell where an answer ends: another version's client goes by it.
func headHTTP2(resp *http.Response) error {
	if status, _, _ := strings.Cut(resp.Status, " "); len(status) != 3 || resp.StatusCode < 200 {
		return malformed("the status of the upstream's answer is none")
	}
	lines := resp.Header["Content-Length"]
	f := framing{length: -1}
	for _, line := range lines {
		if err := f.contentLength([]byte(line)); err != nil {
			return err
		}
		if line != lines[0] { // 2 and 02 are not the same to everybody
			return malformed("the upstream's answer has two different lengths")
		}
	}
	if len(lines) > 1 {
		resp.Header["Content-Length"], resp.ContentLength = lines[:1], f.length
	}
	if (resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified) && resp.ContentLength != 0 {
		resp.Body, resp.ContentLength = contentless{resp.Body}, -1
	}
	return nil
}

// contentless is the body of an answer that has none by its status, whatever length it announces, as a 304 may (RFC 9110 section 8.6), and whatever follows it. net/http
// takes such an answer for one that broke off.
type contentless struct{ io.ReadCloser }

// Read waits for the stream's end.
func (c contentless) Read([]byte) (int, error) {
	var b [1]byte
	_, _ = c.ReadCloser.Read(b[:])
	return 0, io.EOF
}

// admit asks the rules what can be asked before a connection is needed: kept ones and those of a parent proxy never meet the dialer's checks.
func (p *pool) admit(ctx context.Context, x *exchange.Exchange, r *http.Request) error {
	if p.parent == nil || p.absolute == nil || r.URL.Scheme != "http" {
		return nil
	}
	_, err := p.askable(ctx, x.Target)
	return err
}

// ended closes an attempt in the story and the metrics.
func (p *pool) ended(x *exchange.Exchange, index, status int, err error) {
	code := codeOf(err)
	took := x.EndAttempt(index, x.Now(), status, code)
	label := p.label(x)
	if label != x.Host { // the name was reached for the first time
		x.Relabel(label)
	}
	p.metrics.host(label).attempt(x, status, code, took)
}

func codeOf(err error) exchange.Code {
	if err == nil {
		return ""
	}
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	switch {
	case own[*brokenOff](err) != nil:
		return exchange.ClientGone
	case errors.As(err, &refusal):
		return refusal.Code
	case errors.As(err, &failure):
		return failure.Code
	case errors.Is(err, exchange.ErrSuperseded):
		return exchange.Superseded
	case errors.Is(err, context.Canceled):
		return exchange.ClientGone
	}
	return exchange.Internal
}

// request is r as the transport gets it: with hooks, without leave to send anything twice, and no field that nobody wrote.
func (a *attempt) request(ctx context.Context, r *http.Request) *http.Request {
	safe := exchange.SafeMethod(r.Method)
	if safe || a.pool.upstream.HTTP2 {
		ctx, a.cancel = context.WithCancelCause(ctx)
	}
	out := r.WithContext(httptrace.WithClientTrace(ctx, &a.trace))
	out.GetBody, out.Close, out.RequestURI = nil, false, ""
	noAgent := r.Header["User-Agent"] == nil
	keyed := !safe && (r.Header["Idempotency-Key"] != nil || r.Header["X-Idempotency-Key"] != nil)
	if noAgent || keyed {
		out.Header = header(r.Header, noAgent, keyed)
	}
	if out.Body != nil && out.Body != http.NoBody && !inMemory(out.Body) {
		a.in.ReadCloser, a.in.cancel, a.in.begun = out.Body, a.cancel, &a.begun
		out.Body = &a.in
	}
	return out
}

// absoluteForm makes the request's target absolute for a parent proxy, path and query byte for byte as they are (RFC 9112 section 3.2.2).
func absoluteForm(r *http.Request) {
	u := *r.URL
	path := u.Opaque
	switch path {
	case "*":
		path = ""
	case "":
		path = u.EscapedPath()
	}
	if path == "" && r.Method != http.MethodOptions {
		path = "/"
	}
	u.Opaque = "//" + r.Host + path
	r.URL = &u
}

// header copies h. A User-Agent that is present and empty keeps net/http from adding its own; an idempotency key under its lower-case name is not
// taken by it for leave to send a request again that the retry block has not judged.
func header(h http.Header, noAgent, keyed bool) http.Header {
	c := make(http.Header, len(h)+1)
	for name, values := range h {
		if keyed && (name == "Idempotency-Key" || name == "X-Idempotency-Key") {
			name = strings.ToLower(name)
		}
		c[name] = values
	}
	if noAgent {
		c["User-Agent"] = []string{""}
	}
	return c
}

var withWriterTo = reflect.TypeOf(io.NopCloser(strings.NewReader("")))

// inMemory tells whether the body is one that net/http sends with the head in one write; wrapping it would cost a second one.
func inMemory(body io.ReadCloser) bool {
	if reflect.TypeOf(body) != withWriterTo {
		return false
	}
	switch reflect.ValueOf(body).Field(0).Interface().(type) {
	case *bytes.Reader, *bytes.Buffer, *strings.Reader:
		return true
	}
	return false
}

// getConn runs before the transport looks for a connection: for the second time where it gave the first one up.
func (a *attempt) getConn(string) {
	if a.conn == nil {
		return
	}
	switch {
	case !a.sent():
	case a.leftOut():
		a.two = nil
	case (a.again || a.x.Repeats || a.doubtful()) && a.cancel != nil: // a stage above sends it again, or two kept connections were dead: the transport would go on through all of them
		a.prevent()
	default:
		a.pool.ended(a.x, a.index, 0, &exchange.Failure{Code: exchange.UpstreamReset})
		first := a.index
		a.index = a.x.BeginAgain(exchange.ReasonReset, a.x.Now())
		a.x.SwapSpans(first, a.index)
		a.again = true
	}
	a.conn = nil
}

// prevent ends the attempt before the request is sent again. What else than an objection has HTTP/2 do that, REFUSED_STREAM and GOAWAY, says that nothing was done.
func (a *attempt) prevent() {
	a.resent, a.unseen = true, a.two != nil && a.two.objections.Load() == a.found
	a.cancel(errResend)
}

// mostLeftOut is how many connections a request with a body may find full.
const mostLeftOut = 100

// leftOut tells whether the transport has only found that its HTTP/2 connection has no room for the request.
func (a *attempt) leftOut() bool { return a.two != nil && !a.begun.Load() }

// doubtful tells whether the upstream may have done what the request asks for before it gave it up. Where several requests share the connection it need not have been this one.
func (a *attempt) doubtful() bool {
	return a.two != nil && !exchange.SafeMethod(a.method) && a.two.objections.Load() != a.found
}

func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	again := a.conn != nil
	a.conn = tracked(info.Conn) // every connection of the pool was tracked when it was dialled
	if a.conn == nil {
		return
	}
	if again && !a.leftOut() && !exchange.SafeMethod(a.method) { // HTTP/2 looks for another connection without asking getConn
		a.prevent()
	}
	a.before = a.conn.written.Load()
	a.begun.Store(false)
	if a.reads, _ = info.Conn.(*answers); a.reads != nil {
		if a.resent {
			a.reads.spend()
			return
		}
		a.reads.expect(a.method)
	}
	if a.two, _ = info.Conn.(*objecting); a.two != nil {
		a.found, a.heard, a.taken = a.two.objections.Load(), a.two.reads.Load(), a.two.writes.Load()
	}
	a.in.awaited.Store(a.two != nil)
	a.x.Connected(a.index, a.conn.address, info.Reused)
	if a.conn.http2 {
		a.x.SpeaksHTTP2(a.index)
	}
}

var errInformational = errors.New("too many informational answers")

func (a *attempt) got1xx(status int, header textproto.MIMEHeader) error {
	if status == http.StatusSwitchingProtocols { // by HTTP/2, which has none (RFC 9113 section 8.6): one by HTTP/1.1 is final
		return malformed("the upstream switched to another protocol within HTTP/2")
	}
	i := &a.informational
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n++
	for name, values := range header {
		for _, value := range values {
			i.size += len(name) + len(value)
		}
	}
	if i.n > maxInformational || i.size > maxHead {
		return errInformational
	}
	if pass := a.x.Informational; pass != nil && status != http.StatusContinue {
		before, done := i.last, make(chan struct{})
		i.last = done
		go func() { // others' answers come by the same connection: they do not wait for this client
			defer close(done)
			if before != nil {
				<-before
			}
			pass.Inform(status, http.Header(header))
		}()
	}
	return nil
}

// informed waits until the client has what came before the final answer.
func (a *attempt) informed(ctx context.Context) {
	a.informational.mu.Lock()
	last := a.informational.last
	a.informational.mu.Unlock()
	if last == nil {
		return
	}
	select {
	case <-last:
	case <-ctx.Done():
	}
}

// sent is false only when it is certain that nothing of the request was written.
func (a *attempt) sent() bool {
	return a.conn != nil && (a.conn.http2 || a.conn.written.Load() > a.before)
}

// requestBody remembers why the client's body could not be read. Over HTTP/2 an attempt that the upstream gives up before it answers ends for net/http when the read that
// runs does, however long a client takes that has nothing to say: Close ends it.
type requestBody struct {
	io.ReadCloser
	cancel  context.CancelCauseFunc // of the attempt
	begun   *atomic.Bool            // the attempt's
	awaited atomic.Bool             // by HTTP/2, and nothing of an answer is here: behind one, a body is closed that is not wanted any more
	mu      sync.Mutex
	err     error
	reading bool
	closed  bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.reading = !b.closed
	b.mu.Unlock()
	if !b.reading {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	if err != nil && err != io.EOF && !b.closed {
		b.err = err
	}
	return n, err
}

func (b *requestBody) Close() error {
	if !b.begun.Load() { // it may still be sent by another connection; else standard closes it
		return nil
	}
	b.mu.Lock()
	b.closed = true
	ends := b.reading && b.awaited.Load()
	b.mu.Unlock()
	if ends {
		time.AfterFunc(readingOn, b.giveUp)
	}
	return b.ReadCloser.Close()
}

// readingOn is how long the read that runs has to end by itself: by then the transport waits for nothing else, and says why the attempt ends.
const readingOn = 50 * time.Millisecond

func (b *requestBody) giveUp() {
	b.mu.Lock()
	reading := b.reading
	b.mu.Unlock()
	if reading {
		b.cancel(errGivenUp)
	}
}

func (b *requestBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// answerBody says what a broken body means.
type answerBody struct {
	io.ReadCloser
	attempt *attempt
	ctx     context.Context
	once    sync.Once
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.attempt.explain(b.ctx, err)
	}
	return n, err
}

// Close ends the attempt. net/http's body over HTTP/2 gives what is unread back to the connection's window each time it is closed.
func (b *answerBody) Close() (err error) {
	b.once.Do(func() {
		b.attempt.quit()
		err = b.ReadCloser.Close()
		b.attempt.release()
	})
	return err
}

// quit comes before the answer's body is closed, which waits by HTTP/2 for whoever reads the request's: an upload that was answered early may stand still until
// its client has the answer's end.
func (a *attempt) quit() {
	if a.two != nil && a.in.ReadCloser != nil && a.cancel != nil {
		a.cancel(nil)
	}
}

// release gives back what the attempt holds besides the body.
func (a *attempt) release() {
	if a.cancel != nil {
		a.cancel(nil)
	}
	if p := a.pool; p.closed.Load() || a.two != nil && p.http2.Load() != a.transport { // of HTTP/2 the library keeps a connection that was in use then
		time.AfterFunc(time.Second, a.transport.CloseIdleConnections) // the stream may still be about to end
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}
