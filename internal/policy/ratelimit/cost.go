package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/expr"
)

// Cost is a number of tokens, or a CEL expression that says how many. Its zero value is no tokens.
type Cost struct {
	tokens int
	text   string // of the expression; "": tokens
	after  bool   // the expression names response
}

// Tokens is a fixed cost.
func Tokens(n int) Cost { return Cost{tokens: n} }

// Expression is a cost by a CEL expression. The error says what is wrong with it.
func Expression(text string) (Cost, error) {
	_, after, err := compileCost(text)
	return Cost{text: text, after: after}, err
}

func (c Cost) isExpression() bool { return c.text != "" }

var errCost = errors.New("must be a whole number or a CEL expression")

// DecodeSetting takes a whole number or an expression.
func (c *Cost) DecodeSetting(v any) error {
	switch v := v.(type) {
	case int64:
		if v > maxRequests || v < -maxRequests {
			return fmt.Errorf("must be a number up to %d", maxRequests)
		}
		*c = Tokens(int(v))
		return nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return c.DecodeSetting(n)
		}
		e, err := Expression(v)
		if err == nil {
			*c = e
		}
		return err
	}
	return errCost
}

// SettingKind describes what may be written.
func (Cost) SettingKind() string { return "a whole number or a CEL expression" }

// String is the number or the expression.
func (c Cost) String() string {
	if c.isExpression() {
		return c.text
	}
	return strconv.Itoa(c.tokens)
}

// MarshalText is String.
func (c Cost) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// compileCost compiles an expression over request, or where it needs one over response too: then after is true.
func compileCost(text string) (program *expr.Program, after bool, err error) {
	variables := []expr.Variable{
		{Name: "request.method", Type: expr.Text}, {Name: "request.scheme", Type: expr.Text}, {Name: "request.host", Type: expr.Text},
		{Name: "request.port", Type: expr.Int}, {Name: "request.path", Type: expr.Text}, {Name: "request.query", Type: expr.Lists},
		{Name: "request.headers", Type: expr.Texts}, {Name: "request.content_length", Type: expr.Int}, {Name: "request.body", Type: expr.Text},
		{Name: "request.json", Type: expr.Any},
	}
	if program, err = compileNumber(text, variables); err == nil {
		return program, false, nil
	}
	program, err = compileNumber(text, append(variables,
		expr.Variable{Name: "response.status", Type: expr.Int}, expr.Variable{Name: "response.headers", Type: expr.Texts},
		expr.Variable{Name: "response.content_length", Type: expr.Int}, expr.Variable{Name: "response.body", Type: expr.Text},
		expr.Variable{Name: "response.json", Type: expr.Any}))
	return program, true, err
}

func compileNumber(text string, variables []expr.Variable) (*expr.Program, error) {
	env, err := expr.New(variables...)
	if err != nil {
		return nil, err
	}
	if _, err = env.Compile(text, expr.Int); err != nil {
		if _, other := env.Compile(text, expr.Float); other != nil {
			return nil, errors.New(strings.Replace(err.Error(), "must be a whole number", "must be a number", 1))
		}
	}
	return env.Compile(text, expr.Any) // numbers of JSON have no type before they are there
}

// price is a compiled cost.
type price struct {
	fixed  float64       // what is taken before the answer, where before is nil
	before *expr.Program // says what is taken before the answer
	after  *expr.Program // says what it was in the end; nil: that is known before

	wantsRequest  bool // after may need the request's body, which is gone by then
	wantsResponse bool // after may need the answer's body
}

func newPrice(c Config) (p price, err error) {
	first := c.Cost
	if first.after {
		if p.after, _, err = compileCost(first.text); err != nil {
			return p, err
		}
		bare := strings.Join(strings.Fields(first.text), "")
		p.wantsRequest = strings.Contains(bare, "request.body") || strings.Contains(bare, "request.json")
		p.wantsResponse = strings.Contains(bare, "response.body") || strings.Contains(bare, "response.json")
		first = c.Estimate
	}
	p.fixed = float64(first.tokens)
	if first.isExpression() {
		p.before, _, err = compileCost(first.text)
	}
	return p, err
}

// ordinary tells whether a token is a request.
func (p *price) ordinary() bool { return p.before == nil && p.after == nil && p.fixed == 1 }

// What may be wrong with a cost, as metrics name it.
const (
	costFailed  = "failed"  // the expression did, or is no number
	costClamped = "clamped" // below 0 or beyond reason
	costUnseen  = "unseen"  // the answer was not read to its end, or is encoded or too large
)

// tokensOf is the number that an expression gave, within reason.
func tokensOf(v any) (n float64, fault string) {
	switch v := v.(type) {
	case int64:
		n = float64(v)
	case uint64:
		n = float64(v)
	case float64:
		n = v
	default:
		return 1, costFailed
	}
	switch {
	case math.IsNaN(n):
		return 1, costFailed
	case n < 0:
		return 0, costClamped
	case n > maxRequests:
		return maxRequests, costClamped
	}
	return n, ""
}

// evaluate runs an expression. why says what went wrong, without anything that was in a message.
func evaluate(p *expr.Program, v expr.Values) (n float64, fault, why string) {
	out, err := p.Eval(v)
	if err != nil {
		why = "it cannot be evaluated"
		if text := err.Error(); strings.HasPrefix(text, "no such key: ") && len(text) < 100 {
			why = text // a name out of the expression
		}
		return 1, costFailed, why
	}
	n, fault = tokensOf(out)
	switch fault {
	case costFailed:
		why = "the result is no number"
	case costClamped:
		why = "the result is below 0 or beyond reason"
	}
	return n, fault, why
}

// costValues makes of a request and its answer what an expression asks for, and nothing else.
type costValues struct {
	passage *passage
	request *http.Request
	answer  *answer // nil: there is none yet
}

// Value is the variable of that name.
func (v costValues) Value(name string) (any, bool) {
	part, field, _ := strings.Cut(name, ".")
	if part == "response" {
		return v.response(field)
	}
	r := v.request
	switch field {
	case "method":
		return r.Method, true
	case "scheme":
		return r.URL.Scheme, true
	case "host":
		return v.passage.x.Target.Host, true
	case "port":
		return int64(v.passage.x.Target.Port), true
	case "path":
		return r.URL.Path, true
	case "query":
		return map[string][]string(r.URL.Query()), true
	case "headers":
		return joined(r.Header), true
	case "content_length":
		return r.ContentLength, true
	case "body":
		text, _ := v.passage.requestBody()
		return string(text), true
	case "json":
		text, whole := v.passage.requestBody()
		return parsed(text, whole && encodedAs(r.Header) == "")
	}
	return nil, false
}

func (v costValues) response(field string) (any, bool) {
	if v.answer == nil {
		return nil, false
	}
	switch field {
	case "status":
		return int64(v.answer.status), true
	case "headers":
		return joined(v.answer.header), true
	case "content_length":
		return v.answer.length, true
	case "body":
		return v.answer.text(), true
	case "json":
		return v.answer.json()
	}
	return nil, false
}

// joined is the fields by lower-case name, the values of one name as one line.
func joined(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, lines := range h {
		separator := ", "
		if name == "Cookie" {
			separator = "; "
		}
		out[strings.ToLower(name)] = strings.Join(lines, separator)
	}
	return out
}

// tokensBefore is what an attempt takes before it is sent, and the factor of its upstream's rate.
func (p *passage) tokensBefore(l *limit) (n, factor float64) {
	n, factor = l.price.fixed, 1
	if l.price.before != nil {
		var fault, why string
		if n, fault, why = evaluate(l.price.before, costValues{passage: p, request: p.request}); fault != "" {
			p.costFault(l, fault, why)
		}
	}
	if p.stage.factor != nil {
		factor = sane(p.stage.factor(p.x))
	}
	if l.price.wantsRequest {
		p.requestBody()
	}
	return n, factor
}

// least is the smallest factor: however ill an upstream is, its limit never closes.
const least = 0.05

func sane(factor float64) float64 {
	if !(factor >= least) {
		return least
	}
	return min(1, factor)
}

// costFault counts what is wrong with a cost, and says so now and then.
func (p *passage) costFault(l *limit, fault, why string) {
	p.stage.room.metrics.costFaults.WithLabelValues(p.x.Label(), fault).Inc()
	p.stage.room.sometimes.warn(p.stage.room.log, "the cost of a request is not known; the log says so once a minute at most, the metric counts all",
		"level", l.level, "host", p.x.Label(), "fault", fault, "why", why)
}

// retried tells whether an attempt was made already.
func retried(x *exchange.Exchange) (yes bool) {
	x.Read(func(s *exchange.Story) { yes = len(s.Attempts) > 0 })
	return yes
}
