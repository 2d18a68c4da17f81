package redact

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"html"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

func wide(s string, order binary.AppendByteOrder, mark bool) []byte {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// latin is s in ISO 8859-1, where that can be.
func latin(s string) ([]byte, bool) {
	var b []byte
	for _, r := range s {
		if r > 0xff {
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

// escapedAll is s as a JSON string with every character escaped.
func escapedAll(s string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		fmt.Fprintf(&b, `\u%04x`, u)
	}
	return b.String()
}

// percentAll is s with every byte percent-encoded.
func percentAll(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// entities is s with every character as a numeric entity.
func entities(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i&1 == 0 {
			fmt.Fprintf(&b, "&#%d;", r)
		} else {
			fmt.Fprintf(&b, "&#x%x;", r)
		}
	}
	return b.String()
}

// encodedTexts are ways in which a text is recorded in the midst of something else.
func encodedTexts(as, text string) map[string]string {
	r := Default()
	body := func(kind string, data []byte) string { return string(r.Body(kind, data, false, nil)) }
	out := map[string]string{
		"JSON string":         body("application/json", []byte(`{"a":[`+quote(text)+`]}`)),
		"escaped JSON string": body("application/json", []byte(`{"a":"`+escapedAll(text)+`"}`)),
		"query":               string(r.AppendURL(nil, "/x?y=1&d="+url.QueryEscape(text), nil)),
		"escaped query":       string(r.AppendURL(nil, "/x?y=1&d="+percentAll(text), nil)),
		"query twice":         string(r.AppendURL(nil, "/x?d="+url.QueryEscape(url.QueryEscape(text)), nil)),
		"form":                body("application/x-www-form-urlencoded", []byte("a=1&d="+url.QueryEscape(text))),
		"header":              fmt.Sprint(r.Header(http.Header{"X-Note": {text}}, nil)["X-Note"]),
		"element":             body("text/xml", []byte("<a>"+html.EscapeString(text)+"</a>")),
		"entities":            body("text/xml", []byte("<a>"+entities(text)+"</a>")),
		"attribute":           body("text/xml", []byte(`<a b="`+html.EscapeString(text)+`"/>`)),
	}
	kind := strings.TrimSuffix(as, "; boundary=XX")
	if as == "text" {
		kind = "text/plain"
	}
	if !strings.Contains(as, "boundary") && !strings.HasPrefix(as, "header") && as != "url" {
		out["UTF-16LE"] = body(kind, wide(text, binary.LittleEndian, true))
		out["UTF-16BE"] = body(kind, wide(text, binary.BigEndian, true))
		out["UTF-16 said"] = body(kind+"; charset=utf-16le", wide(text, binary.LittleEndian, false))
		if data, ok := latin(text); ok {
			out["Latin-1"] = body(kind+"; charset=iso-8859-1", append(data, " caf\xe9"...))
		}
	}
	return out
}

// decodedOnce takes off what encodedTexts put on.
func decodedOnce(how, out string) string {
	switch how {
	case "query", "escaped query", "form":
		return string(unescape(nil, out, true))
	case "query twice":
		return string(unescape(nil, string(unescape(nil, out, true)), true))
	case "JSON string", "escaped JSON string":
		return string(appendUnquoted(nil, out))
	case "element", "attribute", "entities":
		return html.UnescapeString(out)
	case "header":
		return strings.TrimSuffix(strings.TrimPrefix(out, "["), "]")
	}
	return out
}

// TestLabelledEncoded: a text of the corpus that stands encoded in something else shows no more, and one that holds no secret is left alone. What
// is known by the structure of its own type of content alone is not asked for here.
func TestLabelledEncoded(t *testing.T) {
	missed, alarms, shown := rates{}, rates{}, map[string]int{}
	for i, l := range readCorpus(t, "positive") {
		if l.as != "text" && !strings.HasSuffix(l.as, "json") || i%3 > 0 {
			continue
		}
		hidden, _ := l.parts()
		for how, out := range encodedTexts(l.as, l.plain()) {
			if how == "query twice" && (strings.Contains(l.text, "|\n") || strings.Contains(l.text, "- name")) {
				continue // a block of YAML
			}
			plain := decodedOnce(how, out)
			bad := slices.ContainsFunc(hidden, func(v string) bool { return len(v) >= 8 && shows(plain, v) })
			missed.count(how, bad)
			if bad && shown[how+l.class] < 2 {
				shown[how+l.class]++
				t.Logf("%s %s shows\n%s\n%s", how, l.class, l.text, out)
			}
		}
	}
	if share := missed.report(t, "missed"); share > 0.001 {
		t.Errorf("recall is %.3f %%", 100-100*share)
	}
	for i, l := range readCorpus(t, "negative") {
		if l.as != "text" || i%5 > 0 || isForm("", l.text) {
			continue
		}
		for how, out := range encodedTexts(l.as, l.text) {
			if how == "query twice" {
				continue // + may stand for itself there: what is in doubt is hidden
			}
			bad := !strings.Contains(decodedOnce(how, out), l.text)
			alarms.count(how, bad)
			if bad && shown[how+l.class] < 2 {
				shown[how+l.class]++
				t.Logf("%s %s: false alarm\n%s\n%s", how, l.class, l.text, out)
			}
		}
	}
	if share := alarms.report(t, "false alarms"); share > 0.001 {
		t.Errorf("%.3f %% are false alarms", 100*share)
	}
}

// TestLabelledInPieces: a stream is scrubbed as its text is, however it comes.
func TestLabelledInPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 1))
	var all strings.Builder
	for i, l := range slices.Concat(readCorpus(t, "positive"), readCorpus(t, "negative")) {
		if l.as != "text" || i%7 > 0 {
			continue
		}
		text := l.plain()
		all.WriteString(text + "\n\n")
		for _, next := range []func() int{func() int { return 1 }, func() int { return 1 + random.IntN(9) }} {
			if got, want := through(t, text, next), Default().Text(text); got != want {
				t.Errorf("%q\ngot  %q\nwant %q", text, got, want)
			}
		}
	}
	whole := through(t, all.String(), func() int { return all.Len() })
	for range 5 {
		if got := through(t, all.String(), func() int { return 1 + random.IntN(5000) }); got != whole {
			t.Fatal("the pieces make a difference")
		}
	}
}

// TestLabelledCut: wherever a text is cut off, nothing of a value by name and at most the beginning of a card number is left.
func TestLabelledCut(t *testing.T) {
	for i, l := range readCorpus(t, "positive") {
		if i%5 > 0 || l.kind == string(CVV) || l.kind == string(Track) || strings.HasPrefix(l.as, "header") || l.as == "url" || l.as == "text" {
			continue
		}
		hidden, kept := l.parts()
		if v := hidden[0]; len(v) >= 8 && l.class != "message" {
			for _, n := range []int{len(v) / 2, len(v) - 1} {
				out := string(Default().Body(l.as, []byte(kept[0]+v[:n]), true, nil))
				if n >= 8 && l.class == "name" && strings.Contains(out, v[:4]) && !strings.Contains(kept[0], v[:4]) || l.class == "card" && !strings.ContainsAny(v, " -+\u00a0") && strings.Contains(out, v[:n]) && n > 6 {
					t.Errorf("%s %s cut at %d of\n%s\nshows %s", l.class, l.as, n, l.text, out)
				}
			}
		}
	}
}

// FuzzEncoded: a token never shows, however it is encoded and whatever stands around it.
func FuzzEncoded(f *testing.F) {
	for _, s := range []string{"", "a=1&b", `{"a":"x`, "<a b='", "x, y\n", "café ", "%2", `\u00`, "--B\r\n", "data: "} {
		for how := range uint8(12) {
			f.Add(s, how, uint8(3))
		}
	}
	const core = "4eC39HqLyjWDarjtT1zdp7dc"
	const token = "gh" + "p_" + core
	literal := NewSecret("correct-horse-" + "battery/9+x")
	var literals Literals
	literals.Add(literal)
	f.Fuzz(func(t *testing.T, around string, how, size uint8) {
		around = strings.ReplaceAll(strings.ToValidUTF8(around, "?"), "\x00", "")
		half := len(around) / 2
		for half > 0 && !utf8.RuneStart(around[half]) {
			half--
		}
		before, after := around[:half], around[half:]
		text := before + " " + token + " " + after
		r := Default()
		var out string
		switch how % 12 {
		case 0:
			out = string(r.Body("text/plain", wide(text, binary.LittleEndian, true), false, nil))
		case 1:
			out = string(r.Body("text/plain", wide(text, binary.BigEndian, true), size&1 == 1, nil))
		case 2:
			out = string(r.Body("application/json", []byte(`{"a":"`+escapedAll(text)+`"}`), false, nil))
		case 3:
			out = string(r.AppendURL(nil, "/x?d="+percentAll(text), nil))
		case 4:
			out = string(r.Body("text/xml", []byte("<a>"+entities(text)+"</a>"), false, nil))
		case 5:
			out = string(r.Body("application/x-www-form-urlencoded", []byte("d="+url.QueryEscape(url.QueryEscape(text))), false, nil))
		case 6:
			out = through(t, text, func() int { return int(size) })
		case 7:
			if data, ok := latin(text); ok {
				out = string(r.Body("text/plain; charset=iso-8859-1", data, false, nil))
			}
		case 8:
			out = string(r.Body("text/csv", []byte(before+",password\n"+token+",x,"+after), false, nil))
		case 9: // a literal in base64, with whatever before and behind
			out = Shared{Literals: &literals}.On(r).Text("x " + base64.StdEncoding.EncodeToString([]byte(before+literal.Reveal()+after)))
			for _, part := range strings.FieldsFunc(out, func(c rune) bool { return charClass[byte(min(c, 0x7f))]&(base64Any) == 0 }) {
				if raw, err := base64.StdEncoding.DecodeString(part); err == nil && strings.Contains(string(raw), literal.Reveal()) && !strings.Contains(around, literal.Reveal()) {
					t.Fatalf("%q shows a literal: %q", around, out)
				}
			}
		case 10:
			out = Shared{Literals: &literals}.On(r).Text(before + hex.EncodeToString([]byte(literal.Reveal())) + after)
			if strings.Contains(out, hex.EncodeToString([]byte(literal.Reveal()))) {
				t.Fatalf("%q shows a literal: %q", around, out)
			}
		case 11:
			out = string(r.Body("application/json", []byte(`{"a":`+quote(`{"b":`+quote(text)+`}`)+`}`), false, nil))
		}
		if strings.Contains(out, core) && !strings.Contains(around, core) {
			t.Errorf("%d: %q shows %q", how%12, text, out)
		}
		if !utf8.ValidString(out) {
			t.Errorf("%d: %q: invalid UTF-8 in %q", how%12, text, out)
		}
	})
}
