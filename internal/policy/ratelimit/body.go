package ratelimit

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"httpowerd/internal/coding"
	"httpowerd/internal/setting"
)

// maxSeen is how much of a body an expression sees.
const maxSeen = 64 << 10

// Of a stream of events the begin and the end are kept: what a stream says of itself stands there.
const (
	streamBegin = 16 << 10
	streamEnd   = maxSeen - streamBegin
)

// requestBody is the begin of the request's body, and whether that is all of it. It is read once, and then sent as if nobody had looked.
func (p *passage) requestBody() (text []byte, whole bool) {
	if p.looked {
		return p.body, p.whole
	}
	p.looked = true
	r := p.request
	if r.Body == nil || r.Body == http.NoBody || r.Method == http.MethodConnect {
		p.whole = true
		return nil, true
	}
	read, err := io.ReadAll(io.LimitReader(r.Body, maxSeen+1))
	rest := io.Reader(r.Body)
	if err != nil {
		rest = failing{err}
	}
	clone := *r // the caller's is not ours to change
	clone.Body = &restored{io.MultiReader(bytes.NewReader(read), rest), r.Body}
	p.request = &clone
	p.body, p.whole = read[:min(len(read), maxSeen)], err == nil && len(read) <= maxSeen
	return p.body, p.whole
}

// restored is a body of which a part was read already.
type restored struct {
	io.Reader
	io.Closer
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// parsed is a JSON text as a value; there is none where it is cut short, or is no JSON.
func parsed(text []byte, whole bool) (v any, ok bool) {
	if !whole || json.Unmarshal(text, &v) != nil {
		return nil, false
	}
	return v, true
}

// encodedAs is the coding of a body, "" for none.
func encodedAs(h http.Header) string {
	if c := strings.ToLower(strings.Join(h["Content-Encoding"], ",")); c != "identity" {
		return c
	}
	return ""
}

// answer is what is remembered of an answer until its cost is known.
type answer struct {
	status int
	header http.Header
	length int64
	stream bool // of events

	begin, end []byte
	cut        bool // something is missing between begin and end, or after begin
}

func newAnswer(resp *http.Response) *answer {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return &answer{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, stream: kind == "text/event-stream"}
}

// see takes in what went to the client.
func (a *answer) see(p []byte) {
	most := maxSeen
	if a.stream {
		most = streamBegin
	}
	n := min(len(p), most-len(a.begin))
	a.begin, p = append(a.begin, p[:n]...), p[n:]
	if len(p) == 0 {
		return
	}
	if !a.stream {
		a.cut = true
		return
	}
	if len(p) > streamEnd {
		p, a.cut = p[len(p)-streamEnd:], true
	}
	if len(a.end)+len(p) > 2*streamEnd { // moved now and then, not with every event
		a.end, a.cut = append(a.end[:0], a.end[len(a.end)-streamEnd:]...), true
	}
	a.end = append(a.end, p...)
}

// decode takes the content coding off, and tells whether the answer can be read. A stream is kept in parts, which cannot be decoded.
func (a *answer) decode() bool {
	encoding := encodedAs(a.header)
	switch {
	case a.stream:
		return encoding == ""
	case a.cut:
		return false
	case encoding == "":
		return true
	}
	plain, whole, err := coding.Decode(encoding, a.begin, maxSeen+1)
	a.begin = plain
	return whole && err == nil
}

// last is the end of a stream, as much of it as is kept.
func (a *answer) last() []byte { return a.end[max(0, len(a.end)-streamEnd):] }

func (a *answer) text() string { return string(a.begin) + string(a.last()) }

func (a *answer) json() (any, bool) {
	if !a.stream {
		return parsed(a.begin, true)
	}
	merged := map[string]any{}
	if a.cut || len(a.last()) < len(a.end) {
		a.events(merged, a.begin)
		a.events(merged, a.last())
	} else {
		a.events(merged, append(bytes.Clone(a.begin), a.end...))
	}
	return merged, len(merged) > 0
}

// events lays the JSON objects of a stream on each other. What was cut in two is no JSON, and is left out.
func (a *answer) events(into map[string]any, text []byte) {
	for line := range bytes.Lines(text) {
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		var object map[string]any
		if ok && json.Unmarshal(data, &object) == nil {
			overlay(into, object)
		}
	}
}

// overlay lays one object on another. null takes nothing away.
func overlay(lower, upper map[string]any) {
	for key, value := range upper {
		object, ok := value.(map[string]any)
		if below, both := lower[key].(map[string]any); ok && both {
			overlay(below, object)
		} else if _, there := lower[key]; value != nil || !there {
			lower[key] = value
		}
	}
}

// settle charges what an answer turns out to cost, as soon as that is known.
func (p *passage) settle(resp *http.Response) {
	var bills []bill
	seen := false
	for i := range p.billed {
		t := &p.billed[i]
		if t.limit.price.after != nil {
			bills = append(bills, bill{*t})
			seen = seen || t.limit.price.wantsResponse
		}
	}
	if bills == nil {
		return
	}
	kept := *p // the attempt ends before its answer's body does
	kept.taken, kept.billed = nil, nil
	c := &cashier{passage: &kept, bills: bills, answer: newAnswer(resp)}
	_, duplex := resp.Body.(io.Writer)
	switch {
	case !seen || resp.Body == nil || resp.Body == http.NoBody || p.request.Method == http.MethodHead:
		c.charge()
	case duplex:
		c.unseen("it became a connection")
	default:
		c.body = resp.Body
		resp.Body = c
	}
}

// bill is an estimate that an answer corrects.
type bill struct{ taken }

// cashier is an answer's body that charges when it ends.
type cashier struct {
	passage *passage
	bills   []bill
	answer  *answer
	body    io.ReadCloser

	mu   sync.Mutex // a body may be closed while it is read
	done bool
}

// Read reads the body, and remembers some of it.
func (c *cashier) Read(b []byte) (int, error) {
	n, err := c.body.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return n, err
	}
	c.answer.see(b[:n])
	switch {
	case err == io.EOF:
		c.charge()
	case err != nil:
		c.unseen("it was cut off")
	}
	return n, err
}

// Close closes the body. What was not read to the end stays as it was estimated.
func (c *cashier) Close() error {
	c.mu.Lock()
	switch {
	case c.done:
	case c.answer.length >= 0 && int64(len(c.answer.begin)) == c.answer.length:
		c.charge() // all of it was read, but not the end
	default:
		c.unseen("it was not read to its end")
	}
	c.mu.Unlock()
	return c.body.Close()
}

func (c *cashier) charge() {
	c.done = true
	readable := c.body == nil || c.answer.decode()
	values := costValues{passage: c.passage, request: c.passage.request, answer: c.answer}
	for i := range c.bills {
		b := &c.bills[i]
		if b.limit.price.wantsResponse && !readable {
			c.passage.costFault(b.limit, costUnseen, "it is encoded or too large")
			continue
		}
		n, fault, why := evaluate(b.limit.price.after, values)
		if fault != "" {
			c.passage.costFault(b.limit, fault, why)
		}
		if fault == costFailed {
			continue // the estimate stands
		}
		if more := (n - b.estimate) / b.factor; b.limit.config.Mode == setting.Observe {
			b.limiter.Reckon(more) // what only watches takes nothing from other daemons
		} else if more != 0 {
			b.limiter.Charge(more)
		}
	}
	c.answer = nil
}

func (c *cashier) unseen(why string) {
	c.done = true
	for i := range c.bills {
		c.passage.costFault(c.bills[i].limit, costUnseen, why)
	}
}
