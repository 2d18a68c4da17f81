package redact

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestHostile plants a secret where a reader that is less careful than the receiver would miss it. A second pass changes nothing.
func TestHostile(t *testing.T) {
	r := Default()
	const form, table, part = "application/x-www-form-urlencoded", "text/csv", "multipart/form-data; boundary=XX"
	for _, p := range []struct{ kind, text string }{
		// what poses as hidden already
		{"text/plain", "Authorization: Bearer <redacted:bearer-token>hunter2-xyz"},
		{"text/plain", "Authorization: <redacted:authorization> hunter2-xyz"},
		{"text/plain", "password=<redacted:secret>hunter2"},
		{"text/plain", "password=[redacted]hunter2"},
		{"application/json", `{"password<redacted:secret>":"hunter2"}`},
		{"application/json", `{"<redacted:secret>password":"hunter2"}`},
		// text
		{"text/plain", `Cookie: sid="hunter2secret"; b=hunter2`},
		{"text/plain", "GET / HTTP/1.1\r\nAuthorization: Digest username=\"bob\", response=\"hunter2\"\r\n"},
		{"text/plain", "Authorization: Basic abc<hunter2"},
		{"text/plain", "password:             hunter2!"},
		{"text/plain", "see https://x/?pass%77ord=hunter2&b=1"},
		{"text/plain", `see {"pass\u0077ord":"hunter2"}`},
		{"text/plain", `x,"{""password"":""hunter2""}"`},
		{"text/plain", "curl -u bob:" + strings.Repeat("x", 5000) + "hunter2 https://x/"},
		{"text/plain", "curl+-u=+-u=bob:hunter2"},
		{"text/plain", "pan: |\n  " + strings.Repeat("not a number ", 20) + "\n  password: |\n    hunter2\n"},
		{"text/plain", "pan: |\n" + strings.Repeat("\n", 300) + "  4242 4242 4242 4242 hunter2\n"},
		// tables
		{table, "item,user,password\n12\" monitor,bob,hunter2\n"},
		{table, "\"na\nme\",password\nx,hunter2\n"},
		{table, "sep=;\nuser;password\nx;hunter2\n"},
		{table, "\nuser,password\nx,hunter2\n"},
		{table, "user,password\nDoe, John,hunter2\n"},
		{table, "user,password\n\"x,hunter2\ny,hunter2\n"},
		{table, "user,password\n\"a\"\"b\",\"hu\"\"hunter2\"\n"},
		// XML
		{"text/xml", "<password></b>hunter2</password>"},
		{"text/xml", "<a><name><![CDATA[password]]></name><value>hunter2</value></a>"},
		{"text/xml", `<a><param name="pass&#119;ord" value="hunter2"/></a>`},
		{"text/xml", `<a><name>pass&#119;ord</name><value>hunter2</value></a>`},
		{"text/xml", `<!DOCTYPE a [<!ENTITY x "password=hunter2">]><a/>`},
		// forms that begin like something else
		{form, "{}=1&%70assword=hunter2"},
		{form, "[a]=1&%70assword=hunter2"},
		{form, "<a>=1&%70assword=hunter2"},
		{form, "--=ontent-&%70assword=hunter2"},
		// nearly JSON
		{"application/json", `{"password": /* c */ "hunter2"}`},
		{"application/json", "{\"password\": // c\n \"hunter2\"}"},
		{"application/json", `{'password': 'xx hunter2'}`},
		{"application/json", `{'password': 'xx,hunter2'}`},
		{"application/json", `{'password': 'it\'s hunter2'}`},
		{"application/json", `{password: xx hunter2}`},
		{"application/json", `{"value":"hunter2","name":"password"}`},
		{"application/json", `{"name":"pass\u0077ord","value":"hunter2"}`},
		{"application/json", `{"password":{"a":"hunter2"]}`},
		{"application/json", `{"password":[}"hunter2"]`},
		{"application/json", ")]}',\n{\"credentials\":{\"a\":\"hunter2 x\"}}\n"},
		{"application/json", "while(1);{\"credentials\":{\"a\":\"hunter2 x\"}}\n"},
		{"application/javascript", "cb({\"credentials\":{\"a\":\"hunter2 x\"}})\n"},
		// forms in parts
		{part, "--XX\r\nContent-Disposition: form-data;\r\n name=\"password\"\r\n\r\nhunter2\r\n--XX--\r\n"},
		{part, "--XX\r\nContent-Disposition: form-data; filename=\"a\"b\"; name=\"password\"\r\n\r\nhunter2\r\n--XX--\r\n"},
		{part, "--XX\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nabc--XXhunter2\r\n--XX--\r\n"},
		{part, "--XX\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nabc\r\n--XXhunter2\r\n--XX--\r\n"},
		{part, "--XX\r\nContent-Disposition: form-data; name=\"password\"\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhunter2\r\n--XX--\r\n"},
		{part, "--XX\r\nContent-Disposition : form-data; name=\"password\"\r\n\r\nhunter2\r\n--XX--\r\n"},
		{`multipart/form-data; boundary="X X"`, "--X X\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter2\r\n--X X--\r\n"},
		{"multipart/form-data; boundary=YY", "--XX\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter2\r\n--XX--\r\n"},
	} {
		out := string(r.Body(p.kind, []byte(p.text), false, nil))
		if strings.Contains(out, "hunter2") {
			t.Errorf("%s: %q shows in %q", p.kind, p.text, out)
		}
		if again := string(r.Body(p.kind, []byte(out), false, nil)); again != out {
			t.Errorf("%s: %q became %q and then %q", p.kind, p.text, out, again)
		}
	}
}

// TestWrongOrder: UTF-16 is read in the order in which it makes sense, whatever the charset says.
func TestWrongOrder(t *testing.T) {
	const text = "password=hunter2 ü"
	for _, charset := range []string{"utf-16", "utf-16le", "utf-16be"} {
		for _, swap := range []int{0, 1} {
			data := make([]byte, 0, 2*len(text))
			for _, c := range text {
				pair := [2]byte{byte(c), byte(c >> 8)}
				data = append(data, pair[swap], pair[1-swap])
			}
			if out := string(Default().Body("text/plain; charset="+charset, data, false, nil)); out != "password=<redacted:secret> ü" {
				t.Errorf("%s, %d: %q", charset, swap, out)
			}
		}
	}
}

// TestManyNames: a text of names without an end to their values is read once, and not once for each of them; that would take minutes.
func TestManyNames(t *testing.T) {
	for _, name := range []string{"password:", "pan:", "card=", "PWD=/", "password=a.password)"} {
		text := strings.Repeat(name, 128<<10/len(name))
		Default().Text(text)
	}
	NewScreen(true, true, nil).Text(strings.Repeat("name=", 100<<10), Syntax(0), "", Mask{}, nil)
}

// TestManyKnown: a header of nothing but values that are alike is no more work than one of others.
func TestManyKnown(t *testing.T) {
	var cookies strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&cookies, "c%d=AAAAAAAA%05d; ", i, i)
	}
	r := Default().Knowing(http.Header{"Cookie": {cookies.String()}}, "")
	if n := len(r.seen.needles); n == 0 || n > 20*maxLiterals {
		t.Errorf("%d lists", n)
	}
	r.Text(strings.Repeat("A", 256<<10))
	if out := r.Text("it was AAAAAAAA00007."); strings.Contains(out, "00007") {
		t.Error(out)
	}
}

func TestLiteralsOverlap(t *testing.T) {
	var l Literals
	for _, s := range []string{"abcdefgh12", "gh12ijklmnop", "abcdefgh", "abcdefgh12345"} {
		l.Add(NewSecret(s))
	}
	r := Shared{Literals: &l}.On(Default())
	for text, want := range map[string]string{
		"x abcdefgh12ijklmnop y":  "x <redacted:known-secret> y",
		"x abcdefgh1 y":           "x <redacted:known-secret>1 y",
		"x abcdefgh123 y":         "x <redacted:known-secret>3 y",
		"x abcdefgh12345 y":       "x <redacted:known-secret> y",
		"x gh12ijklmno y":         "x gh12ijklmno y",
		"abcdefgh12 abcdefgh12 y": "<redacted:known-secret> <redacted:known-secret> y",
	} {
		if out := r.Text(text); out != want {
			t.Errorf("%q became %q", text, out)
		}
	}
	l.Add(NewSecret("redacted:known-secret"))
	if out := r.Text("x <redacted:known-secret> y"); out != "x <redacted:known-secret> y" {
		t.Error(out)
	}
	l.Add(NewSecret(`a<b>&"cdef`))
	for _, text := range []string{`a\u003cb\u003e\u0026\"cdef`, `a&lt;b&gt;&amp;&#34;cdef`} {
		if out := r.Text("x " + text); strings.Contains(out, "cdef") {
			t.Errorf("%q became %q", text, out)
		}
	}
}

// TestLongest compares with a look at each.
func TestLongest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(most int) string {
		b := make([]byte, 1+r.IntN(most))
		for i := range b {
			b[i] = "ab"[r.IntN(2)]
		}
		return string(b)
	}
	for range 2000 {
		var list []string
		for range 1 + r.IntN(12) {
			list = append(list, word(20))
		}
		n := newNeedles(slices.Clone(list))
		for range 20 {
			s, want := word(24), 0
			for _, needle := range list {
				if strings.HasPrefix(s, needle) {
					want = max(want, len(needle))
				}
			}
			if got := n.longest(s); got != want {
				t.Fatalf("of %q %q begins with %d bytes; want %d", list, s, got, want)
			}
		}
	}
}

// TestDeepPaths: the states of paths take memory for each level, so there is a last one; what is below it is hidden.
func TestDeepPaths(t *testing.T) {
	r, err := New(Config{Paths: []string{"$..name", "$.a.b"}})
	if err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat("[", 2*maxPathDepth) + `{"x":"hunter2"}` + strings.Repeat("]", 2*maxPathDepth)
	out := string(r.Body("application/json", []byte("["+deep+`,{"name":"hunter2","x":"stays"}]`), false, nil))
	if strings.Contains(out, "hunter2") || !strings.Contains(out, `"x":"stays"`) {
		t.Error(out[2*maxPathDepth:])
	}
	w := pathReader{paths: r.paths}
	for w.begin(); !w.full(); {
		w.open()
	}
	if len(w.states) > maxPathDepth*len(r.paths) {
		t.Error(len(w.states))
	}
}

// TestStreamOfKey: a private key that stands under a name and is longer than the window is hidden to its end.
func TestStreamOfKey(t *testing.T) {
	text := "private_key=-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("hunter2hunter2hunter2hunter2\n", 2000) + "-----END PRIVATE KEY-----\nstays\n"
	if out := Default().Text(text); out != "private_key=<redacted:private-key>\nstays\n" && out != "private_key=<redacted:secret>\nstays\n" {
		t.Error(len(out), out[:60])
	}
	if out := through(t, text, func() int { return 1000 }); strings.Contains(out, "hunter2") || !strings.Contains(out, "stays") {
		t.Error(len(out), out[max(0, len(out)-200):])
	}
}
