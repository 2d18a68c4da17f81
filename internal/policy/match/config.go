package match

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

// RouteConfig is a route's match. Every condition that is written must hold; with none written every request belongs to the route.
type RouteConfig struct {
	// Methods lists the methods, spelt as they are sent: methods are case-sensitive, and GET does not include HEAD.
	Methods []string `yaml:"methods"`
	// Path is a pattern for the path as the client sent it: * is any number of characters within a segment, ** any number of segments, none
	// included. Upper and lower case differ.
	Path string `yaml:"path"`
	// Headers maps names of fields to patterns of values: * is any number of characters, and alone it says that the field must be there. Where a
	// field was sent several times, one fitting value is enough.
	Headers map[string]string `yaml:"headers"`
	// When is a CEL expression over request. An expression that fails while it runs, by asking for a header that is not there, is no match.
	When string `yaml:"when"`
}

// Validate returns every fault of the block.
func (c RouteConfig) Validate() []setting.Fault {
	_, faults := compile(c)
	return faults
}

// Compile makes the Route.
func Compile(c RouteConfig) (*Route, error) {
	rt, faults := compile(c)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	return rt, nil
}

func compile(c RouteConfig) (*Route, []setting.Fault) {
	rt := &Route{methods: slices.Clone(c.Methods)}
	var faults []setting.Fault
	if c.Methods != nil && len(c.Methods) == 0 {
		faults = append(faults, setting.Faultf("methods", "is an empty list, which no request could match: leave the key out for every method"))
	}
	for i, m := range c.Methods {
		key := fmt.Sprintf("methods[%d]", i)
		switch {
		case m == "*":
			faults = append(faults, setting.Faultf(key, "is no method: leave methods out for every method"))
		case m == http.MethodConnect:
			faults = append(faults, setting.Faultf(key, "never reaches a route: what holds for tunnels is written beside routes"))
		case !exchange.IsToken(m):
			faults = append(faults, setting.Faultf(key, "%q is no method: write one such as GET", m))
		}
	}
	if c.Path != "" {
		g, err := parsePath(c.Path)
		if err != nil {
			faults = append(faults, setting.Faultf("path", "%v", err))
		}
		rt.path = g
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		key := fmt.Sprintf("headers[%q]", name)
		if err := checkHeader(name, c.Headers[name], seen); err != nil {
			faults = append(faults, setting.Faultf(key, "%v", err))
			continue
		}
		rt.headers = append(rt.headers, headerGlob{http.CanonicalHeaderKey(name), textGlob(c.Headers[name])})
	}
	if c.When != "" {
		var err error
		if rt.when, err = compileWhen(c.When); err != nil {
			faults = append(faults, setting.Faultf("when", "%v", err))
		}
	}
	return rt, faults
}

// hidden are fields that no route can see: they are for one connection only, and gone before a request is matched.
var hidden = [...]string{"Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Trailer"}

// unseen tells whether no route can see a field of this canonical name.
func unseen(name string) bool {
	return slices.Contains(hidden[:], name) || strings.HasPrefix(name, "Proxy-") && name != "Proxy-Status"
}

// Hide removes what no route can see of a request's header.
func Hide(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if unseen(name) {
			delete(h, name)
		}
	}
}

func checkHeader(name, value string, seen map[string]string) error {
	canonical := http.CanonicalHeaderKey(name)
	other, twice := seen[canonical]
	seen[canonical] = name
	switch {
	case !exchange.IsToken(name):
		return fmt.Errorf("is no field name: write letters, digits and -")
	case twice:
		return fmt.Errorf("is the same field as %s: write one of them", other)
	case canonical == "Host":
		return fmt.Errorf("is matched by the host's own pattern: write the name under hosts")
	case unseen(canonical):
		return fmt.Errorf("is for the connection to the proxy and gone before routes are matched: no request could match")
	case value == "":
		return fmt.Errorf(`is empty: write "*" for a field that must be there, whatever its value`)
	case len(value) > maxGlob:
		return fmt.Errorf("must not be longer than %d bytes, has %d", maxGlob, len(value))
	case value != strings.TrimSpace(value):
		return fmt.Errorf("begins or ends with a space, which values never do: leave it out")
	}
	for i := 0; i < len(value); i++ {
		if value[i] < ' ' && value[i] != '\t' || value[i] == 0x7f {
			return fmt.Errorf("has a control character, which no value may have")
		}
	}
	return nil
}
