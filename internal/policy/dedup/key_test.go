package dedup

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"httpowerd/internal/exchange"
)

// wish is all that matters of a request.
type wish struct {
	method, scheme, urlHost, host, opaque, path, rawPath, query, tenant, target, policy string
	port                                                                                uint16
	force                                                                               bool
	header                                                                              http.Header
}

func (w wish) key(room *Room) (want, string) {
	s := &stage{room: room, policy: w.policy}
	r := &http.Request{Method: w.method, Host: w.host, Header: w.header, URL: &url.URL{Scheme: w.scheme, Host: w.urlHost, Opaque: w.opaque, Path: w.path,
		RawPath: w.rawPath, RawQuery: w.query, ForceQuery: w.force}}
	return s.wantOf(r, &exchange.Exchange{Tenant: w.tenant, Target: exchange.Authority{Host: w.target, Port: w.port}})
}

func base() wish {
	return wish{method: "GET", scheme: "https", urlHost: "h:443", host: "h", path: "/a b", rawPath: "/a%20b", query: "q=1", tenant: "t", target: "h", policy: "p",
		port: 443, header: http.Header{"Accept": {"a"}, "Authorization": {"x"}}}
}

// TestKeyCoversEverything changes each field by itself; a field that is added to wish and not to the key fails (A61, A63).
func TestKeyCoversEverything(t *testing.T) {
	room := New(nil)
	same, _ := base().key(room)
	if again, _ := base().key(room); !again.equal(&same) {
		t.Fatal("the key of a request changes")
	}
	typ := reflect.TypeFor[wish]()
	for i := range typ.NumField() {
		w := base()
		switch name := typ.Field(i).Name; name {
		case "method":
			w.method = "HEAD"
		case "scheme":
			w.scheme = "http"
		case "urlHost":
			w.urlHost = "h:444"
		case "host":
			w.host = "H"
		case "opaque":
			w.opaque = "/x"
		case "path":
			w.path = "/a b/"
		case "rawPath":
			w.rawPath = "/a%20%62"
		case "query":
			w.query = "q=1&"
		case "tenant":
			w.tenant = ""
		case "target":
			w.target = "g"
		case "policy":
			w.policy = "p#1"
		case "port":
			w.port = 444
		case "force":
			w.force = true
		case "header":
			w.header = http.Header{"Accept": {"a"}}
		default:
			t.Fatalf("%s is not looked at", name)
		}
		if k, _ := w.key(room); k.equal(&same) || k.hash == same.hash {
			t.Errorf("%s is not part of the key", typ.Field(i).Name)
		}
	}
	if other, _ := base().key(New(nil)); other.hash == same.hash {
		t.Error("anybody can tell the hash")
	}
	empty := base()
	empty.method = ""
	if k, _ := empty.key(room); !k.equal(&same) {
		t.Error("a method that is not written is not GET")
	}
}

// TestKeyIgnoresWhatVaries: and nothing else, neither what says who asks nor what an upstream may answer differently to (A61, A62).
func TestKeyIgnoresWhatVaries(t *testing.T) {
	room := New(nil)
	same, _ := base().key(room)
	for _, name := range []string{"Traceparent", "Tracestate", "Baggage", "X-Request-Id", "X-Correlation-Id", "Date", "X-Stainless-Retry-Count", "Via"} {
		w := base()
		w.header[name] = []string{"1"}
		if k, why := w.key(room); !k.equal(&same) || why != "" {
			t.Errorf("%s is part of the key (%s)", name, why)
		}
	}
	for _, name := range []string{"User-Agent", "Accept-Encoding", "Accept-Language", "Cookie", "X-Api-Key", "X-Forwarded-For", "X-Forwarded-Host", "Origin", "Te"} {
		w := base()
		w.header[name] = []string{"1"}
		if k, why := w.key(room); k.equal(&same) || k.hash == same.hash || why != "" {
			t.Errorf("%s is not part of the key (%s)", name, why)
		}
	}
}

// FuzzKey: two requests share a key only where nothing that matters differs, however their parts are cut (A61, A63).
func FuzzKey(f *testing.F) {
	f.Add("/a", "b=1", "t", "p", "X-A", "1", "2", "/a", "b=1", "t", "p", "X-A", "1", "2")
	f.Add("/a", "b", "", "", "X-A", "1", "", "/ab", "", "", "", "X-A", "1", "")
	f.Add("", "", "tp", "", "X-A", "1", "2", "", "", "t", "p", "X-A", "12", "")
	f.Add("", "", "", "", "X-Aa", "b", "", "", "", "", "", "X-A", "ab", "")
	f.Add("\x01", "", "", "", "X-A", "\x00\x01", "", "", "\x01", "", "", "X-A", "\x00", "\x01")
	room := New(nil)
	f.Fuzz(func(t *testing.T, path1, query1, tenant1, policy1, name1, value1, more1, path2, query2, tenant2, policy2, name2, value2, more2 string) {
		wishes := func(path, query, tenant, policy, name, value, more string) wish {
			w := base()
			w.path, w.rawPath, w.query, w.tenant, w.policy = path, "", query, tenant, policy
			w.header = http.Header{name: {value}}
			if more != "" {
				w.header[name] = append(w.header[name], more)
			}
			return w
		}
		a, b := wishes(path1, query1, tenant1, policy1, name1, value1, more1), wishes(path2, query2, tenant2, policy2, name2, value2, more2)
		ka, whyA := a.key(room)
		kb, whyB := b.key(room)
		if whyA != "" || whyB != "" {
			return
		}
		for _, w := range []*wish{&a, &b} {
			for name := range w.header {
				if volatile(name) {
					delete(w.header, name)
				}
			}
		}
		if same := reflect.DeepEqual(a, b); same != ka.equal(&kb) || same && ka.hash != kb.hash {
			t.Errorf("same: %t, equal: %t and %t\n%+v\n%+v", same, ka.equal(&kb), ka.hash == kb.hash, a, b)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"", "a", `"a"`, `"a\"b"`, `"\`, `"a";b`, "\x00", `""`} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, quoted bool) {
		key, err := parseKey([]string{s}, quoted)
		if err == nil && (key == "" || len(key) > maxKey) || err != nil && (key != "" || code(err) != exchange.BadRequest) {
			t.Errorf("%q: %q, %v", s, key, err)
		}
		if err == nil && quoted {
			if again, _ := unquote(quote(key)); printable(key) && again != key {
				t.Errorf("%q became %q", key, again)
			}
		}
	})
}

func quote(s string) string {
	out := `"`
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			out += `\`
		}
		out += s[i : i+1]
	}
	return out + `"`
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func TestDirective(t *testing.T) {
	for _, c := range []struct {
		line, name string
		want       bool
	}{
		{"no-store", "no-store", true}, {" No-Store ,x", "no-store", true}, {"x, no-cache=\"a\"", "no-cache", true}, {"x-no-store", "no-store", false},
		{"", "no-store", false}, {",,", "no-store", false}, {"max-age=0", "no-cache", false},
	} {
		if got := directive([]string{c.line}, c.name); got != c.want {
			t.Errorf("%q has %s: %t", c.line, c.name, got)
		}
	}
	for line, want := range map[string]bool{"max-age=0": true, "private, S-Maxage=0": true, `max-age="0"`: true, "max-age=00": true, "max-age=10": false,
		"max-age": true, "": false, "immutable": false} {
		if got := expired([]string{line}); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}

// TestSameHash: whoever finds another request with the hash of somebody's gets nothing of theirs by it.
func TestSameHash(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Linger = seconds(60) })
	g := r.group()
	mine, _ := base().key(r.room)
	other := base()
	other.header = http.Header{"Accept": {"a"}, "Authorization": {"y"}}
	theirs, _ := other.key(r.room)
	theirs.hash = mine.hash
	f, _, _ := g.join(&mine)
	if second, w, why := g.join(&theirs); second != nil || w != nil || why != whyCrowd {
		t.Errorf("a running answer: %v, %v, %q", second, w, why)
	}
	if g.enter(&theirs) == nil {
		t.Error("in observe mode it would be a follower")
	}
	if _, w, _ := g.join(&mine); w == nil {
		t.Error("an equal request does not follow")
	}
	f.shard.mu.Lock()
	f.keep(&answer{complete: time.Now(), free: func() {}})
	f.shard.mu.Unlock()
	if a := g.lingeringAnswer(&theirs); a != nil {
		t.Error("it got an answer that lingers")
	}
	if a := g.lingeringAnswer(&mine); a == nil {
		t.Error("an equal request gets none")
	} else {
		a.drop()
	}
}

// TestOwnWant: what stays is equal, is accounted for, and refers to nothing of the request, whose head would stay with it.
func TestOwnWant(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Linger = seconds(60) })
	q := base()
	q.header = http.Header{"Accept": {"a", "b"}, "Authorization": {"y"}, "User-Agent": {"z"}}
	w, _ := q.key(r.room)
	w.url.RawQuery = strings.Repeat("q", 10<<10)
	own := w.own()
	if !own.equal(&w) || !w.equal(&own) {
		t.Errorf("%+v is not %+v", own, w)
	}
	if n := own.size(); n < 10<<10 || n > 12<<10 {
		t.Errorf("it is said to take %d bytes", n)
	}
	for name, pair := range map[string][2]string{"method": {w.method, own.method}, "host": {w.host, own.host}, "target": {w.target.Host, own.target.Host},
		"path": {w.url.Path, own.url.Path}, "query": {w.url.RawQuery, own.url.RawQuery}, "field": {w.header["Accept"][0], own.header["Accept"][0]}} {
		if pair[0] != pair[1] || pair[0] != "" && unsafe.StringData(pair[0]) == unsafe.StringData(pair[1]) {
			t.Errorf("%s: %q and %q", name, pair[0], pair[1])
		}
	}
}
