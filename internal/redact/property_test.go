package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// place plants a secret somewhere and returns what is recorded of it.
type place struct {
	name  string
	plant func(r *Redactor, secret string) string
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func body(kind, format string, args ...any) func(r *Redactor) string {
	return func(r *Redactor) string { return string(r.Body(kind, fmt.Appendf(nil, format, args...), false, nil)) }
}

// places are where any secret is known by its shape.
func places() []place {
	return []place{
		{"header", func(r *Redactor, s string) string {
			return fmt.Sprint(r.Header(http.Header{"X-Note": {"see " + strings.ReplaceAll(s, "\n", " ")}}, nil))
		}},
		{"query", func(r *Redactor, s string) string {
			return string(r.AppendURL(nil, "https://api.example.com/a?q="+url.QueryEscape(s)+"&b=1", nil))
		}},
		{"nested query", func(r *Redactor, s string) string {
			inner := "https://x.example.com/?q=" + url.QueryEscape("now "+s)
			return string(r.AppendURL(nil, "https://api.example.com/a?next="+url.QueryEscape(inner), nil))
		}},
		{"path", func(r *Redactor, s string) string {
			return string(r.AppendURL(nil, "https://api.example.com/v1/"+url.PathEscape(s)+"/x?y=1", nil))
		}},
		{"fragment", func(r *Redactor, s string) string {
			return string(r.AppendURL(nil, "https://api.example.com/#x="+url.QueryEscape(s), nil))
		}},
		{"json", func(r *Redactor, s string) string {
			return body("application/json", `{"a":[{"b":%s}],"c":1}`, quote(s))(r)
		}},
		{"json in json", func(r *Redactor, s string) string {
			return body("application/json", `{"a":%s}`, quote(`{"b":[`+quote(s)+`]}`))(r)
		}},
		{"json key", func(r *Redactor, s string) string { return body("application/json", `{%s:1}`, quote(s))(r) }},
		{"lines of json", func(r *Redactor, s string) string {
			return body("application/x-ndjson", "{\"a\":1}\n{\"b\":%s}\n", quote(s))(r)
		}},
		{"json said to be text", func(r *Redactor, s string) string { return body("text/plain", `{"b":%s}`, quote(s))(r) }},
		{"text said to be json", func(r *Redactor, s string) string { return body("application/json", "the key is %s, keep it", s)(r) }},
		{"form", func(r *Redactor, s string) string {
			return body("application/x-www-form-urlencoded", "a=1&b=%s", url.QueryEscape(s))(r)
		}},
		{"form said to be json", func(r *Redactor, s string) string { return body("application/json", "a=1&b=%s", url.QueryEscape(s))(r) }},
		{"multipart", func(r *Redactor, s string) string {
			return body("multipart/form-data; boundary=XX", "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n%s\r\n--XX--\r\n", s)(r)
		}},
		{"xml", func(r *Redactor, s string) string {
			return body("text/xml", `<a><b c="1">%s</b></a>`, html.EscapeString(s))(r)
		}},
		{"attribute", func(r *Redactor, s string) string {
			return body("text/xml", `<a><b c="%s"/></a>`, html.EscapeString(s))(r)
		}},
		{"cdata", func(r *Redactor, s string) string { return body("text/xml", `<a><![CDATA[%s]]></a>`, s)(r) }},
		{"events", func(r *Redactor, s string) string {
			return body("text/event-stream", "event: x\ndata: {\"a\":%s}\n\ndata: x\n\n", quote(s))(r)
		}},
		{"text", func(r *Redactor, s string) string { return r.Text("see " + s + " there") }},
		{"utf-16", func(r *Redactor, s string) string {
			wide := []byte{0xff, 0xfe}
			for _, c := range []byte("the key " + s) {
				wide = append(wide, c, 0)
			}
			return string(r.Body("text/plain; charset=utf-16", wide, false, nil))
		}},
		{"latin", func(r *Redactor, s string) string {
			return string(r.Body("text/plain; charset=iso-8859-1", []byte("caf\xe9 "+s), false, nil))
		}},
	}
}

// TestPlanted plants every kind of secret in every place.
func TestPlanted(t *testing.T) {
	m, r := newMaker(2), Default()
	makers := maps.Clone(tokens)
	for _, b := range brands {
		makers[b.name] = func(m maker) string { return m.card(b) }
	}
	for range 20 {
		for _, kind := range slices.Sorted(maps.Keys(makers)) {
			secret := makers[kind](m)
			core := strings.Trim(secret, "-")
			if strings.Contains(secret, "BEGIN") {
				core = strings.Split(secret, "\n")[1]
			}
			for _, p := range places() {
				out := p.plant(r, secret)
				if strings.Contains(out, core) || strings.Contains(out, url.QueryEscape(core)) {
					t.Errorf("%s in %s shows: %s", kind, p.name, out)
				}
				if !utf8.ValidString(out) {
					t.Errorf("%s in %s: invalid UTF-8", kind, p.name)
				}
			}
		}
	}
}

// TestPlantedByName plants values that nothing but their name gives away.
func TestPlantedByName(t *testing.T) {
	m, r := newMaker(3), Default()
	for range 50 {
		s := m.from(lowerSet, 6) + "," + m.from(lowerSet, 3) + "@!" + m.from(alnumSet, 3)
		name := m.pick("password", "clientSecret", "X-Api-Key", "access_token", "db.passwd", "USER_PASSWORD", "card_cvv", "refreshToken", "user[secret]")
		for where, out := range map[string]string{
			"query":        string(r.AppendURL(nil, "/a?x=1&"+name+"="+url.QueryEscape(s)+"&b=1", nil)),
			"encoded name": string(r.AppendURL(nil, "/a?%"+fmt.Sprintf("%02x", name[0])+name[1:]+"="+url.QueryEscape(s), nil)),
			"raw query":    string(r.AppendURL(nil, "/a?"+name+"="+s, nil)),
			"nested":       string(r.AppendURL(nil, "/a?u="+url.QueryEscape("https://x.example.com/?"+name+"="+url.QueryEscape(s)), nil)),
			"header":       fmt.Sprint(r.Header(http.Header{http.CanonicalHeaderKey(strings.Trim(name, "[]")): {s}}, nil)),
			"json":         body("application/json", `{"a":{%s:%s}}`, quote(name), quote(s))(r),
			"json list":    body("application/json", `{%s:[%s,{"x":%s}]}`, quote(name), quote(s), quote(s))(r),
			"json pair":    body("application/json", `{"name":%s,"value":%s}`, quote(name), quote(s))(r),
			"json escaped": body("application/json", `{"a":%s}`, quote(`{`+quote(name)+`:`+quote(s)+`}`))(r),
			"json cut":     string(r.Body("application/json", fmt.Appendf(nil, `{"a":{%s:%s`, quote(name), strings.TrimSuffix(quote(s), `"`)), true, nil)),
			"json text":    r.Text(fmt.Sprintf(`{"a":{%s:%s}}`, quote(name), quote(s))),
			"form":         body("application/x-www-form-urlencoded", "a=1&%s=%s", url.QueryEscape(name), url.QueryEscape(s))(r),
			"form as json": body("application/json", "a=1&%s=%s", url.QueryEscape(name), url.QueryEscape(s))(r),
			"multipart": body("multipart/form-data; boundary=XX", "--XX\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n--XX--\r\n",
				name, s)(r),
			"xml":       body("text/xml", "<a><%[1]s>%[2]s</%[1]s></a>", strings.Trim(name, "[]"), html.EscapeString(s))(r),
			"parameter": body("text/xml", `<a><param name="%s" value="%s"/></a>`, name, html.EscapeString(s))(r),
			"cdata":     body("text/xml", "<%[1]s><![CDATA[%[2]s]]></%[1]s>", "password", s)(r),
			"graphql": body("application/json", `{"query":"mutation L($p: String!) { login(p: $p) { id } }","variables":{%s:%s}}`,
				quote(name), quote(s))(r),
			"events": body("text/event-stream", "data: {%s:%s}\n\n", quote(name), quote(s))(r),
			"log":    r.Text("failed: " + name + "=" + s),
			"prose":  r.Text(name + ": " + s + " given"),
		} {
			if strings.Contains(out, s) || strings.Contains(out, s[:10]) || strings.Contains(out, url.QueryEscape(s)) {
				t.Errorf("%s %s in %s shows: %s", name, s, where, out)
			}
		}
	}
}

// TestCleanStaysTheSame: what holds no secret is not touched, down to the byte.
func TestCleanStaysTheSame(t *testing.T) {
	m, r := newMaker(4), Default()
	for range 50 {
		for _, kind := range slices.Sorted(maps.Keys(innocents)) {
			s := innocents[kind](m)
			for what, text := range map[string]string{
				"application/json":                  `{"a": [ ` + quote(s) + `, 1.50, {"description" :` + quote(s) + `}], "n":null }`,
				"text/plain":                        "a " + s + "\r\nb\n",
				"text/xml":                          `<?xml version="1.0"?><a b="1 &amp; 2"><c>` + html.EscapeString(s) + `</c></a>`,
				"application/x-www-form-urlencoded": "a=" + url.QueryEscape(s) + "&b=",
				"multipart/form-data; boundary=Q":   "--Q\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" + s + "\r\n--Q--\r\n",
				"text/event-stream":                 "id: 1\ndata: " + s + "\n\n",
			} {
				var c Counts
				if out := string(r.Body(what, []byte(text), false, &c)); out != text || c.Total() > 0 {
					t.Errorf("%s: %s: %q became %q", kind, what, text, out)
				}
			}
			u := "https://api.example.com/v1/" + url.PathEscape(s) + "?q=" + url.QueryEscape(s) + "#" + url.QueryEscape(s)
			if out := string(r.AppendURL(nil, u, nil)); out != u {
				t.Errorf("%s: %s became %s", kind, u, out)
			}
		}
	}
}

// shape is JSON with its leaves made equal.
func shapeOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = shapeOf(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = shapeOf(e)
		}
		return out
	}
	return "leaf"
}

func checkShape(t *testing.T, in, out []byte) {
	t.Helper()
	var a, b any
	if json.Unmarshal(in, &a) != nil {
		return
	}
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatalf("%q became no JSON: %q: %v", in, out, err)
	}
	text, _ := json.Marshal(shapeOf(a))
	if r := Default(); r.Text(string(text)) == string(text) && !reflect.DeepEqual(shapeOf(a), shapeOf(b)) {
		t.Fatalf("%q lost its shape: %q", in, out)
	}
}

func TestShape(t *testing.T) {
	m := newMaker(5)
	var random func(depth int) any
	random = func(depth int) any {
		switch n := m.IntN(8); {
		case n < 2 && depth > 0:
			list := []any{}
			for range m.IntN(4) {
				list = append(list, random(depth-1))
			}
			return list
		case n < 5 && depth > 0:
			o := map[string]any{}
			for range m.IntN(5) {
				o[m.pick("a", "name", "value", "password", "card", "cvv", "credentials", "key", "x\"y", "token", "pan", "ü", "Authorization")] = random(depth - 1)
			}
			return o
		case n == 5:
			return json.Number(m.card(brands[m.IntN(len(brands))]))
		case n == 6:
			return m.pick("", "x", "a\\b\"c", "password", "Bearer "+m.from(alnumSet, 20), tokens["stripe live"](m), "12", "ü\n")
		}
		return []any{nil, true, 1, -2.5e3, "text"}[m.IntN(5)]
	}
	for range 3000 {
		in, err := json.Marshal(random(6))
		if err != nil {
			t.Fatal(err)
		}
		out := Default().Body("application/json", in, false, nil)
		checkShape(t, in, out)
		if again := Default().Body("application/json", out, false, nil); !bytes.Equal(again, out) {
			t.Fatalf("%s became %s and then %s", in, out, again)
		}
		for cut := range in {
			if got := Default().Body("application/json", in[:cut], true, nil); !utf8.Valid(got) {
				t.Fatalf("cut at %d: %q", cut, got)
			}
		}
	}
}

// TestCutAnywhere: wherever a body is cut off, no more of a secret is left than gives it away as one.
func TestCutAnywhere(t *testing.T) {
	m, r := newMaker(6), Default()
	for range 20 {
		card, token, password := m.card(brands[1]), tokens["stripe live"](m), m.from(lowerSet, 12)
		texts := map[string]string{
			"application/json":                  `{"n":"` + card + `","m":` + card + `,"t":"` + token + `","password":"` + password + `"}`,
			"application/x-www-form-urlencoded": "n=" + card + "&t=" + token + "&password=" + password,
			"text/xml":                          "<a><n>" + card + "</n><t>" + token + "</t><password>" + password + "</password></a>",
			"text/plain":                        "n " + card + " t " + token + " password=" + password,
		}
		for kind, text := range texts {
			for cut := range text {
				out := string(r.Body(kind, []byte(text[:cut]), true, nil))
				if strings.Contains(out, card[:7]) || strings.Contains(out, token[:9]) || strings.Contains(out, password[:1+len(password)/2]) {
					t.Fatalf("%s: %q became %q", kind, text[:cut], out)
				}
			}
		}
	}
}
