package match

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/expr"
)

// Route tells whether a request belongs to it. It is safe for concurrent use.
type Route struct {
	methods []string
	path    pathGlob // nil: every path
	headers []headerGlob
	when    *expr.Program // nil: always
}

type headerGlob struct {
	name  string // canonical
	value textGlob
}

// Match tells whether every condition holds for the request as it was sent. Ask it about Resolved too where the answer matters.
func (rt *Route) Match(r *http.Request) bool {
	if len(rt.methods) > 0 && !slices.Contains(rt.methods, r.Method) {
		return false
	}
	if rt.path != nil && !rt.path.match(pathOf(r.URL)) {
		return false
	}
	for i := range rt.headers {
		if !rt.headers[i].match(r.Header) {
			return false
		}
	}
	return rt.when == nil || rt.when.Holds(requestValues{r})
}

func (g headerGlob) match(h http.Header) bool {
	for _, line := range h[g.name] {
		if g.value.match(textproto.TrimString(line)) {
			return true
		}
	}
	return false
}

// compileWhen compiles a condition over request.
func compileWhen(text string) (*expr.Program, error) {
	env, err := expr.New(
		expr.Variable{Name: "request.method", Type: expr.Text},
		expr.Variable{Name: "request.scheme", Type: expr.Text},
		expr.Variable{Name: "request.host", Type: expr.Text},
		expr.Variable{Name: "request.port", Type: expr.Int},
		expr.Variable{Name: "request.path", Type: expr.Text},
		expr.Variable{Name: "request.query", Type: expr.Lists},
		expr.Variable{Name: "request.headers", Type: expr.Texts},
		expr.Variable{Name: "request.content_length", Type: expr.Int},
	)
	if err != nil {
		return nil, err
	}
	return env.Compile(text, expr.Bool)
}

// requestValues makes of a request what an expression asks for, and nothing else.
type requestValues struct{ r *http.Request }

// Value is the variable of that name.
func (v requestValues) Value(name string) (any, bool) {
	switch name {
	case "request.method":
		return v.r.Method, true
	case "request.scheme":
		return v.r.URL.Scheme, true
	case "request.host":
		return v.authority().Host, true
	case "request.port":
		return int64(v.authority().Port), true
	case "request.path":
		return pathOf(v.r.URL).normal(), true
	case "request.query":
		return map[string][]string(v.r.URL.Query()), true
	case "request.headers":
		return joined(v.r.Header), true
	case "request.content_length":
		return v.r.ContentLength, true
	}
	return nil, false
}

func (v requestValues) authority() exchange.Authority {
	port := uint16(80)
	if v.r.URL.Scheme == "https" {
		port = 443
	}
	a, err := exchange.ParseAuthority(v.r.URL.Host, port)
	if err != nil {
		return exchange.Authority{}
	}
	return a
}

// joined is the fields by lower-case name, the values of one name as one line (RFC 9110 section 5.3; cookies by RFC 9113 section 8.2.3).
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
