package retry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/expr"
	"httpowerd/internal/setting"
)

// predicate is failure_when.
type predicate struct {
	program *expr.Program
	reads   bool // it mentions the body
}

// compile checks an expression over response.
func compile(text string) (*predicate, error) {
	heads := []expr.Variable{
		{Name: "response.status", Type: expr.Int},
		{Name: "response.headers", Type: expr.Texts},
		{Name: "request.method", Type: expr.Text},
		{Name: "request.path", Type: expr.Text},
	}
	env, err := expr.New(append(heads, expr.Variable{Name: "response.body", Type: expr.Text}, expr.Variable{Name: "response.json", Type: expr.Any})...)
	if err != nil {
		return nil, err
	}
	p := &predicate{}
	if p.program, err = env.Compile(text, expr.Bool); err != nil {
		return nil, err
	}
	if env, err = expr.New(heads...); err != nil {
		return nil, err
	}
	_, err = env.Compile(text, expr.Bool)
	p.reads = err != nil // it mentions what is not there
	return p, nil
}

// Fails is failure_when for whoever has several answers to one request, and takes one of them: it tells whether an answer is a failure, as far as can be
// told, and may read its body for that; the answer that it returns is to be used in the place of the one that it got. nil: nothing is one.
func Fails(c Config) func(*http.Request, *http.Response) (*http.Response, bool) {
	if c.FailureWhen == "" || c.Mode == setting.Observe {
		return nil
	}
	c.Signal = http.CanonicalHeaderKey(c.Signal)
	p := plan{config: c}
	p.when, _ = compile(c.FailureWhen) // Validate has tried
	return func(r *http.Request, resp *http.Response) (*http.Response, bool) {
		if !p.examines(resp) {
			return resp, false
		}
		e := evidence{request: r, resp: resp}
		result, err := p.when.program.Eval(&e)
		return e.resp, e.broken != nil || err == nil && result == true
	}
}

// examines tells whether an answer may be a failure although its status is none.
func (p *plan) examines(resp *http.Response) bool {
	return resp.StatusCode != http.StatusSwitchingProtocols && p.signal(resp.Header) != exchange.Final
}

// examine is the reason for which an answer is a failure although its status is none; "" where it is not. The answer that it returns is to be used in the
// place of the one that it got.
func (c *course) examine(resp *http.Response) (*http.Response, string) {
	if !c.examines(resp) {
		return resp, ""
	}
	e := evidence{request: c.request, resp: resp}
	result, err := c.when.program.Eval(&e)
	switch {
	case e.broken != nil:
		return e.resp, c.brokeOff(e.broken)
	case err != nil && e.unread:
		c.unjudge(unjudgedBody)
	case err != nil:
		c.unjudge(unjudgedError)
	case result == true:
		return e.resp, exchange.ReasonPredicate
	}
	return e.resp, ""
}

// brokeOff is the reason where the body ended in an error: nothing of the answer has gone to the client yet.
func (c *course) brokeOff(err error) string {
	c.unjudge(unjudgedBroken)
	var failure *exchange.Failure
	switch {
	case context.Cause(c.request.Context()) != nil:
		return ""
	case errors.As(err, &failure):
		return failure.Reason()
	}
	return exchange.ReasonReset
}

// unjudge counts an answer that the expression could not judge, and notes it once in the exchange's record.
func (c *course) unjudge(why string) {
	c.metrics.unjudged.inc(c.x.Label(), why)
	if !c.unjudged {
		c.unjudged = true
		c.x.Update(func(s *exchange.Story) { s.Unapplied = append(slices.Clip(s.Unapplied), "retry.failure_when") })
	}
}

// evidence makes of an answer what an expression asks for, and nothing else: the body is read only when an evaluation comes to it.
type evidence struct {
	request *http.Request
	resp    *http.Response
	seen    bool
	body    []byte
	unread  bool  // the body cannot be had
	broken  error // it broke off
}

// Value is the variable of that name.
func (e *evidence) Value(name string) (any, bool) {
	switch name {
	case "response.status":
		return int64(e.resp.StatusCode), true
	case "response.headers":
		return joined(e.resp.Header), true
	case "request.method":
		return e.request.Method, true
	case "request.path":
		return e.request.URL.Path, true
	case "response.body":
		if e.look() {
			return strings.ToValidUTF8(string(e.body), "\uFFFD"), true
		}
	case "response.json":
		if e.look() {
			var v any
			if json.Unmarshal(e.body, &v) != nil {
				return nil, true // no JSON: null
			}
			return v, true
		}
	}
	return nil, false
}

// look has the body read, once.
func (e *evidence) look() bool {
	if !e.seen {
		e.seen = true
		begin, ctx := time.Now(), e.request.Context()
		e.resp, e.body, e.unread, e.broken = glimpse(ctx, e.request.Method, e.resp) //nolint:bodyclose // whoever gets the answer closes it
		exchange.From(ctx).Awaited(time.Since(begin))
	}
	return !e.unread && e.broken == nil
}

// joined is the fields by lower-case name, the values of one name as one line (RFC 9110 section 5.3).
func joined(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, lines := range h {
		out[strings.ToLower(name)] = strings.Join(lines, ", ")
	}
	return out
}
