package match

import (
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

func request(t testing.TB, method, rawURL string, header ...string) *http.Request {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{}, ContentLength: -1}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func route(t testing.TB, c RouteConfig) *Route {
	t.Helper()
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	rt, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func TestMethods(t *testing.T) {
	rt := route(t, RouteConfig{Methods: []string{"GET", "purge"}})
	for method, want := range map[string]bool{"GET": true, "get": false, "purge": true, "PURGE": false, "HEAD": false, "POST": false} {
		if rt.Match(request(t, method, "http://example.com/")) != want {
			t.Errorf("%s: not %v", method, want)
		}
	}
	if !route(t, RouteConfig{}).Match(request(t, "ANY", "http://example.com/x")) {
		t.Error("no conditions, no match")
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		glob    string
		yes, no []string
	}{
		{"/", []string{"/", ""}, []string{"/a", "//"}},
		{"/v1/charges", []string{"/v1/charges", "/v1/charges?x=1", "/%761/ch%61rges"}, []string{"/v1/charges/", "/V1/charges", "/v1//charges", "/v1%2Fcharges", "/v1/charges%3Fx"}},
		{"/v1/*", []string{"/v1/a", "/v1/", "/v1/a%2Fb", "/v1/%C3%A9"}, []string{"/v1", "/v1/a/b", "/v12/a"}},
		{"/v1/*/b", []string{"/v1/a/b", "/v1//b"}, []string{"/v1/b", "/v1/a/a/b"}},
		{"/v1/**", []string{"/v1", "/v1/", "/v1/a", "/v1/a/b/", "/v1//a"}, []string{"/", "/v12", "/v1%2Fa", "/v2/a"}},
		{"/**", []string{"/", "", "/a", "/a/b/c"}, nil},
		{"/**/b", []string{"/b", "/a/b", "/a/b/c/b"}, []string{"/", "/ab", "/a/b/c"}},
		{"/a/**/b/**/c", []string{"/a/b/c", "/a/x/b/y/z/c", "/a/b/b/c/c"}, []string{"/a/c", "/a/c/b", "/a/b/cc"}},
		{"/a*c*e", []string{"/ace", "/abcde", "/acceee"}, []string{"/ac", "/a/ce", "/aec"}},
		{"/files/*.json", []string{"/files/a.json", "/files/.json", "/files/a.json.json"}, []string{"/files/a.jsonx", "/files/a/b.json"}},
		{"/items:batch", []string{"/items:batch"}, []string{"/items%3Abatch"}},
		{"/a%3ab", []string{"/a%3Ab", "/a%3ab"}, []string{"/a:b"}},
		{"/a%2Fb", []string{"/a%2fb"}, []string{"/a/b"}},
		{"/%61", []string{"/a", "/%61"}, []string{"/A"}},
		{"/caf\u00e9 x", []string{"/caf%C3%A9%20x", "/caf\u00e9%20x"}, []string{"/cafe%20x"}},
		{"/%2a", []string{"/%2A"}, []string{"/a"}},
		{"/100%25", []string{"/100%25"}, []string{"/100"}},
		{"/.well-known/*", []string{"/.well-known/a", "/%2Ewell-known/a"}, []string{"/well-known/a"}},
	} {
		rt := route(t, RouteConfig{Path: c.glob})
		for _, s := range c.yes {
			if !rt.Match(request(t, "GET", "http://example.com"+s)) {
				t.Errorf("%s does not match %s", c.glob, s)
			}
		}
		for _, s := range c.no {
			if rt.Match(request(t, "GET", "http://example.com"+s)) {
				t.Errorf("%s matches %s", c.glob, s)
			}
		}
	}
}

// The door keeps spellings in Opaque that url.URL cannot; OPTIONS * has no path.
func TestPathsInOpaque(t *testing.T) {
	r := request(t, "GET", "http://example.com/a")
	r.URL.Opaque, r.URL.RawPath, r.URL.Path = "/a^%62", "/a^%62", "/a^b"
	for glob, want := range map[string]bool{"/a^b": true, "/a%5Eb": true, "/a%5eb": true, "/ab": false} {
		if route(t, RouteConfig{Path: glob}).Match(r) != want {
			t.Errorf("%s: not %v", glob, want)
		}
	}
	r.URL.Opaque, r.URL.Path = "*", ""
	if route(t, RouteConfig{Path: "/**"}).Match(r) {
		t.Error("OPTIONS * has a path")
	}
	if _, ok := Resolved(r); ok {
		t.Error("OPTIONS * was resolved")
	}
}

func TestResolved(t *testing.T) {
	for in, want := range map[string]string{
		"/": "", "": "", "/a/b": "", "/a/b/": "", "/a.b/..c/...": "", "/a%2Fb": "", "/a/b.": "", "/.well-known": "", "/a;b": "",
		"/a/../b": "/b", "/a/%2e%2E/b": "/b", "/a/.%2e/b": "/b", "/a/./b": "/a/b", "/a/..": "/", "/a/b/..": "/a/", "/a/.": "/a/", "/..": "/", "/../../a": "/a",
		"/a//b": "/a/b", "//a": "/a", "/a//": "/a/", "/a/..;x=1/b": "/b", "/a/.;/b": "/a/b", "/a/..%3bx/b": "/b", "/a/..%2fb": "/b", "/a%2f..%2Fb": "/b",
		`/a/..\b`: "/b", "/a/..%5cb": "/b", "/a/../b%20c": "/b%20c", "/a/../%62": "/b", "/a/../b%2Fc/d": "/b/c/d", "/x/../a/": "/a/",
	} {
		r := request(t, "GET", "http://example.com"+in+"?q=/../x")
		other, ok := Resolved(r)
		switch {
		case ok != (want != ""):
			t.Errorf("%s: resolved %v", in, ok)
		case ok && pathOf(other.URL).normal() != want:
			t.Errorf("%s: %s, want %s", in, pathOf(other.URL).normal(), want)
		case ok && (other.URL == r.URL || other.URL.RawQuery != r.URL.RawQuery || other.Method != "GET"):
			t.Errorf("%s: %v", in, other.URL)
		}
	}
}

func TestHeaders(t *testing.T) {
	r := request(t, "GET", "http://example.com/", "X-Kind", "a", "X-Kind", " batch-7 ", "X-Empty", "", "Accept", "text/html, application/json")
	for _, c := range []struct {
		headers map[string]string
		want    bool
	}{
		{map[string]string{"X-Kind": "*"}, true}, {map[string]string{"x-kind": "a"}, true}, {map[string]string{"x-kind": "batch-*"}, true},
		{map[string]string{"X-Kind": "batch-7"}, true}, {map[string]string{"X-Kind": "A"}, false}, {map[string]string{"X-Kind": "b"}, false},
		{map[string]string{"X-Empty": "*"}, true}, {map[string]string{"X-None": "*"}, false}, {map[string]string{"X-Empty": "x*"}, false},
		{map[string]string{"X-Kind": "a", "X-None": "*"}, false}, {map[string]string{"X-Kind": "a", "Accept": "*json*"}, true},
		{map[string]string{"Accept": "*/*, *son"}, true}, {map[string]string{"Accept": "*/*,*xml"}, false}, {map[string]string{}, true},
	} {
		if route(t, RouteConfig{Headers: c.headers}).Match(r) != c.want {
			t.Errorf("%v: not %v", c.headers, c.want)
		}
	}
}

func TestWhen(t *testing.T) {
	r := request(t, "POST", "https://API.example.com:8443/v1/%61%2f?limit=10&limit=20&x", "X-Kind", "a", "X-Kind", "b", "Cookie", "a=1", "Cookie", "b=2")
	r.ContentLength = 7
	for when, want := range map[string]bool{
		`request.method == 'POST' && request.scheme == 'https'`:                          true,
		`request.host == 'api.example.com' && request.port == 8443`:                      true,
		`request.path == '/v1/a%2F'`:                                                     true,
		`request.query['limit'] == ['10', '20'] && 'x' in request.query`:                 true,
		`request.headers['x-kind'] == 'a, b' && request.headers['cookie'] == 'a=1; b=2'`: true,
		`request.content_length > 6`:                                                     true,
		`request.headers['x-none'] == 'a'`:                                               false,
		`request.headers['x-none'] != 'a'`:                                               false,
		`!('x-none' in request.headers)`:                                                 true,
		`request.method == 'GET'`:                                                        false,
	} {
		if route(t, RouteConfig{When: when}).Match(r) != want {
			t.Errorf("%s: not %v", when, want)
		}
	}
	if route(t, RouteConfig{Methods: []string{"GET"}, When: "true"}).Match(r) {
		t.Error("one condition of two was enough")
	}
	plain := request(t, "GET", "http://example.com/")
	if !route(t, RouteConfig{When: "request.port == 80 && request.content_length < 0"}).Match(plain) {
		t.Error("the scheme's port is not there")
	}
	plain.URL.Host = "127.1"
	if !route(t, RouteConfig{When: "request.host == ''"}).Match(plain) {
		t.Error("an impossible host has a name")
	}
}

func TestConfigFaults(t *testing.T) {
	long := strings.Repeat("x", 1100)
	for _, c := range []struct {
		config RouteConfig
		want   string
	}{
		{RouteConfig{Methods: []string{}}, "methods: is an empty list, which no request could match: leave the key out for every method"},
		{RouteConfig{Methods: []string{"GET", ""}}, `methods[1]: "" is no method: write one such as GET`},
		{RouteConfig{Methods: []string{"GET POST"}}, `methods[0]: "GET POST" is no method`},
		{RouteConfig{Methods: []string{"*"}}, "methods[0]: is no method: leave methods out"},
		{RouteConfig{Methods: []string{"CONNECT"}}, "methods[0]: never reaches a route"},
		{RouteConfig{Path: "v1"}, "path: must begin with a slash: write /v1"},
		{RouteConfig{Path: "/" + long}, "path: must not be longer than 1024 bytes, has 1101"},
		{RouteConfig{Path: strings.Repeat("/a", 70)}, "path: must not have more than 64 segments"},
		{RouteConfig{Path: "/a?x=1"}, "path: has a ?"},
		{RouteConfig{Path: "/a#x"}, "path: has a #"},
		{RouteConfig{Path: "/v1/{id}"}, "path: has braces: write * for one segment"},
		{RouteConfig{Path: "/v1**"}, "path: has ** as a part of a segment"},
		{RouteConfig{Path: "/***"}, "path: has ** as a part of a segment"},
		{RouteConfig{Path: "/a/../b"}, "path: has a segment of dots"},
		{RouteConfig{Path: "/a/%2e"}, "path: has a segment of dots"},
		{RouteConfig{Path: "/100%"}, "path: has a % without two hex digits"},
		{RouteConfig{Path: "/%zz"}, "path: has a % without two hex digits"},
		{RouteConfig{Path: "/a\x00"}, "path: has a control character"},
		{RouteConfig{Headers: map[string]string{"bad name": "x"}}, `headers["bad name"]: is no field name`},
		{RouteConfig{Headers: map[string]string{"": "x"}}, `headers[""]: is no field name`},
		{RouteConfig{Headers: map[string]string{"X-A": "1", "x-a": "2"}}, `headers["x-a"]: is the same field as X-A`},
		{RouteConfig{Headers: map[string]string{"host": "a"}}, `headers["host"]: is matched by the host's own pattern`},
		{RouteConfig{Headers: map[string]string{"Proxy-Authorization": "*"}}, `headers["Proxy-Authorization"]: is for the connection`},
		{RouteConfig{Headers: map[string]string{"transfer-encoding": "*"}}, `headers["transfer-encoding"]: is for the connection`},
		{RouteConfig{Headers: map[string]string{"X-A": ""}}, `headers["X-A"]: is empty: write "*"`},
		{RouteConfig{Headers: map[string]string{"X-A": " a"}}, `headers["X-A"]: begins or ends with a space`},
		{RouteConfig{Headers: map[string]string{"X-A": "a\nb"}}, `headers["X-A"]: has a control character`},
		{RouteConfig{Headers: map[string]string{"X-A": long}}, `headers["X-A"]: must not be longer than 1024 bytes`},
		{RouteConfig{When: "request.metod == 'GET'"}, "when: column 8: undeclared reference to 'request.metod' (did you mean 'request.method'?)"},
		{RouteConfig{When: "request.method"}, "when: must be a boolean, is string: compare it"},
	} {
		faults := c.config.Validate()
		if len(faults) != 1 || !strings.HasPrefix(faults[0].Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.config, faults, c.want)
		}
		if rt, err := Compile(c.config); err == nil {
			t.Errorf("%+v was compiled to %v", c.config, rt)
		}
	}
	if faults := (RouteConfig{Methods: []string{"a b"}, Path: "x", Headers: map[string]string{"": "", "(": ""}, When: "("}).Validate(); len(faults) != 5 {
		t.Errorf("%v", faults)
	}
}

// asRegexp says a path pattern in another language, over the path in its one spelling.
func asRegexp(glob string) *regexp.Regexp {
	var b strings.Builder
	for s := range strings.SplitSeq(glob[1:], "/") {
		if s == "**" {
			b.WriteString("(/[^/]*)*")
			continue
		}
		b.WriteByte('/')
		for i, part := range strings.Split(s, "*") {
			if i > 0 {
				b.WriteString("(?:%[0-9A-F]{2}|[^/%])*") // whole characters: "/*0" is not "/%20"
			}
			b.WriteString(regexp.QuoteMeta(reading{text: part}.normal()))
		}
	}
	return regexp.MustCompile("^" + b.String() + "$")
}

func FuzzPath(f *testing.F) {
	for _, s := range [][2]string{{"/v1/**", "/v1/a"}, {"/**/b", "/a/b"}, {"/a*b*c", "/a%62c"}, {"/%2f", "/%2F"}, {"/a/**/b/**", "/a/b"}, {"/", "//"},
		{"/admin/**", "/x/..%2fadmin/%2e"}, {"/*", "/a b\u00e9!"}, {"/a%20b", "/a b"}, {"/**", "/;/..;a/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, glob, text string) {
		if !strings.HasPrefix(text, "/") || strings.ContainsAny(text, "?#") {
			return
		}
		u, err := url.Parse("http://example.com" + text)
		if err != nil {
			return
		}
		sent := reading{text: text}.normal()
		if got := pathOf(u).normal(); got != sent {
			t.Fatalf("%q was read as %q, want %q", text, got, sent)
		}
		r := &http.Request{Method: "GET", URL: u}
		if other, ok := Resolved(r); ok {
			p := pathOf(other.URL)
			if again, ok := Resolved(other); ok {
				t.Fatalf("%q resolved to %q, and then to %q", text, p.text, again.URL.Opaque)
			}
			if cleaned := path.Clean(p.text); cleaned != strings.TrimSuffix(p.text, "/") && p.text != "/" {
				t.Fatalf("%q resolved to %q, which is not clean", text, p.text)
			}
		}
		c := RouteConfig{Path: glob}
		if glob == "" || len(c.Validate()) > 0 {
			return
		}
		rt, err := Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := rt.Match(r), asRegexp(glob).MatchString(sent); got != want {
			t.Errorf("%q matches %q: %v, want %v", glob, text, got, want)
		}
	})
}

func TestMatchDoesNotAllocate(t *testing.T) {
	rt := route(t, RouteConfig{Methods: []string{"GET"}, Path: "/v1/**/charges/*", Headers: map[string]string{"X-Kind": "*batch*"}})
	for _, s := range []string{"/v1/a/b/charges/7", "/v1/a%20b/charges/%61", "/v1/a!b/charges/7%2f"} {
		r := request(t, "GET", "http://example.com"+s, "X-Kind", "a batch")
		if n := testing.AllocsPerRun(100, func() {
			if _, ok := Resolved(r); ok || !rt.Match(r) {
				t.Error(s)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for name, c := range map[string]RouteConfig{
		"path":    {Methods: []string{"GET"}, Path: "/v1/**"},
		"headers": {Headers: map[string]string{"X-Kind": "batch*"}},
		"when":    {When: "request.headers['x-kind'] == 'batch-7' && request.path.startsWith('/v1/')"},
	} {
		b.Run(name, func(b *testing.B) {
			rt := route(b, c)
			r := request(b, "GET", "http://example.com/v1/charges/ch_7/refunds", "X-Kind", "batch-7", "Accept", "*/*", "User-Agent", "bench")
			b.ReportAllocs()
			for b.Loop() {
				if !rt.Match(r) {
					b.Fatal("no match")
				}
			}
		})
	}
	b.Run("hostile", func(b *testing.B) {
		rt := route(b, RouteConfig{Path: "/**/a*a*a*a*a*a*b/**/a*a*b/**/z"})
		r := request(b, "GET", "http://example.com/"+strings.Repeat("a", 30000)+strings.Repeat("/aab", 8000))
		for b.Loop() {
			if rt.Match(r) {
				b.Fatal("matches")
			}
		}
	})
}
