package redact

import (
	"strings"
	"testing"
)

// TestBegins: what a detector knows is never passed over, wherever it stands.
func TestBegins(t *testing.T) {
	begin := []string{"a:b", "a=b", "--", "-u", "</", `("`, "('", " '", "%2", "%E", "12", "eyJ", "<re", "[re", "&lt"}
	for _, s := range shapes {
		begin = append(begin, s.prefix+"0aA"[:max(0, 3-len(s.prefix))])
	}
	for _, w := range schemeWords {
		begin = append(begin, w.word, strings.ToUpper(w.word), strings.ToUpper(w.word[:1])+w.word[1:])
	}
	for _, b := range begin {
		at := strings.IndexAny(b, ":=") // of a pair, the separator
		at = max(at, 0)
		for _, before := range []string{"", "z", "zz/"} {
			for _, after := range []string{"", "z", "\"zz"} {
				if n := next(before+b+after, 0, &codes); n != len(before)+at {
					t.Errorf("%q in %q: %d", b, before+b+after, n)
				}
			}
		}
	}
	for _, s := range []string{"", "a", "1", ":", "Just words, and one more.", "x1y2z3", "ä ö"} {
		if n := next(s, 0, &codes); n != len(s) {
			t.Errorf("%q: %d", s, n)
		}
	}
}

// TestOrderOfKeys: that keys are guessed by their order changes nothing of what they say.
func TestOrderOfKeys(t *testing.T) {
	const hidden = `"<redacted:secret>"`
	for in, want := range map[string]string{
		`[{"a":1,"password":"x"},{"a":1,"password":"y"}]`:                                 `[{"a":1,"password":X},{"a":1,"password":X}]`,
		`[{"a":1,"password":"x"},{"password":"y","a":"z"},{"a":"z"}]`:                     `[{"a":1,"password":X},{"password":X,"a":"z"},{"a":"z"}]`,
		"[{\"a\":1,\n \"password\":\"x\"},\n {\"a\":1,\n \"password\" : \"y\"}]":          "[{\"a\":1,\n \"password\":X},\n {\"a\":1,\n \"password\" : X}]",
		`[{"a":1,"name":"password","value":"x"},{"a":1,"name":"colour","value":"red"}]`:   `[{"a":1,"name":"password","value":X},{"a":1,"name":"colour","value":"red"}]`,
		`[{"a":{"password":"x"},"b":"c"},{"a":{"password":"y"},"b":"c"}]`:                 `[{"a":{"password":X},"b":"c"},{"a":{"password":X},"b":"c"}]`,
		`[{"a\"b":1,"c":2},{"a\"b":1,"password":"x"},{"a\"b":1,"password":"y"}]`:          `[{"a\"b":1,"c":2},{"a\"b":1,"password":X},{"a\"b":1,"password":X}]`,
		`[{"pass":"x","a":["pass","a"]},{"pass":"y","a":["pass","a"]},["pass","a"]]`:      `[{"pass":X,"a":["pass","a"]},{"pass":X,"a":["pass","a"]},["pass","a"]]`,
		`[{"a\\":1,"password":"x"},{"a\":1,":"b","password":"y"},{"a\\":"password"}]`:     `[{"a\\":1,"password":X},{"a\":1,":"b","password":X},{"a\\":"password"}]`,
		`[{"a\\":1,"b":2},{"a\":4111111111111111 ":1}]`:                                   `[{"a\\":1,"b":2},{"a\":411111******1111 ":1}]`,
		`[{"a":1},{"ab":2},{"a":1},{"ab":"password"},{"a":"b","password":{"a":"b"}}]`:     `[{"a":1},{"ab":2},{"a":1},{"ab":"password"},{"a":"b","password":{"a":X}}]`,
		strings.Repeat(`{"a":1,"b":{"c":"d"},"secret":"x"}`, 2*maxOrder):                  strings.Repeat(`{"a":1,"b":{"c":"d"},"secret":X}`, 2*maxOrder),
		"{" + manyKeys(2*maxOrder, "z") + `"pin":"1234"},{` + manyKeys(9, "z") + `"a":1}`: "{" + manyKeys(2*maxOrder, "z") + `"pin":"<redacted:cvv>"},{` + manyKeys(9, "z") + `"a":1}`,
	} {
		if got := string(Default().Body("application/json", []byte(in), false, nil)); got != strings.ReplaceAll(want, "X", hidden) {
			t.Errorf("%s\nbecame %s", in, got)
		}
	}
}

// manyKeys are n pairs with different keys.
func manyKeys(n int, value string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"k` + strings.Repeat("y", i%7) + strings.Repeat("z", i/7) + `":"` + value + `",`)
	}
	return b.String()
}
