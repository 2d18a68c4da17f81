package redact

import (
	"strings"
	"testing"
)

func mustNew(t testing.TB, c Config) *Redactor {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPersonal: what the configuration asks for is hidden, in texts and by names, and nothing else; without it all of it stays.
func TestPersonal(t *testing.T) {
	for _, c := range []struct{ hide, in, want string }{
		{HideEmail, "mail bob.o'neil+x@mail.example.com now", "mail <redacted:email> now"},
		{HideEmail, "a=bob@example.com&b=<carol@example.org>", "a=<redacted:email>&b=<<redacted:email>>"},
		{HideEmail, `{"to":"bob@example.com","email":"nobody"}`, `{"to":"<redacted:email>","email":"<redacted:email>"}`},
		{HideEmail, "@decorator, a@b, x@localhost, git@v1.2, user@10.0.0.1", "@decorator, a@b, x@localhost, git@v1.2, user@10.0.0.1"},
		{HideIBAN, "to DE89 3704 0044 0532 0130 00, ref 1", "to <redacted:iban>, ref 1"},
		{HideIBAN, "GB29NWBK60161331926819 and fr1420041010050500013M02606.", "<redacted:iban> and <redacted:iban>."},
		{HideIBAN, "DE88370400440532013000 DE8937040044053201300 XX89370400440532013000", "DE88370400440532013000 DE8937040044053201300 XX89370400440532013000"},
		{HidePhone, "call +49 (30) 901820 or +12125550123!", "call <redacted:phone> or <redacted:phone>!"},
		{HidePhone, "1+1, +123, C++11 2001, a+12345678901, +12345678901234567", "1+1, +123, C++11 2001, a+12345678901, +12345678901234567"},
		{HidePhone, `{"mobile":"0170 1234567","phone_id":"7"}`, `{"mobile":"<redacted:phone>","phone_id":"7"}`},
		{HideNationalIDs, "SSN 078-05-1120, not 666-05-1120 or 078-05-11201", "SSN <redacted:national-id>, not 666-05-1120 or 078-05-11201"},
		{HideNationalIDs, "NI QQ123456C AB 12 34 56 C", "NI QQ123456C <redacted:national-id>"},
		{HideNationalIDs, "12345678Z X1234567L 12345678A", "<redacted:national-id> <redacted:national-id> 12345678A"},
		{HideNationalIDs, "RSSMRA85T10A562S RSSMRA85T10A562T", "<redacted:national-id> RSSMRA85T10A562T"},
		{HideNationalIDs, "529.982.247-25 529.982.247-24 111.111.111-11", "<redacted:national-id> 529.982.247-24 111.111.111-11"},
		{HideNationalIDs, "2 55 08 14 168 025 38", "<redacted:national-id>"},
		{HideNationalIDs, "811218-9876 811218-9875", "<redacted:national-id> 811218-9875"},
		{HideNationalIDs, "2341 2341 2346 2341 2341 2347", "<redacted:national-id> 2341 2341 2347"},
		{HideNationalIDs, "passport_number=X1", "passport_number=<redacted:national-id>"},
		{HideCards, "card 4111 1111 1111 1111", "card <redacted:pan>"},
	} {
		r := mustNew(t, Config{Hide: []string{c.hide}})
		var n Counts
		got := string(r.Body("", []byte(c.in), false, &n))
		if got != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.hide, c.in, got, c.want)
		}
		if again := string(r.Body("", []byte(got), false, nil)); again != got {
			t.Errorf("%s: %s becomes %s", c.hide, got, again)
		}
		if hidden := strings.Count(got, "<redacted:"); n.Total() != hidden {
			t.Errorf("%s: %s: counted %d of %d", c.hide, c.in, n.Total(), hidden)
		}
		if c.hide != HideCards {
			if plain := Default().Text(c.in); plain != c.in && !strings.Contains(c.in, "SSN") && !strings.Contains(c.in, "passport") {
				t.Errorf("without being asked: %s", plain)
			}
		}
	}
}

// TestPaths: the places that paths name are hidden, whatever stands there, and JSON stays JSON of the same shape.
func TestPaths(t *testing.T) {
	const doc = `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":1}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`
	for _, c := range []struct{ path, want string }{
		{"$.customer.name", `{"customer":{"name":"#","n":7,"tags":["a",{"b":1}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$.customer", `{"customer":{"name":"#","n":"#","tags":["#",{"b":"#"}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$.items[*].note", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":1}]},"items":[{"note":"#","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$.items[0].*", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":1}]},"items":[{"note":"#","name":"#"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$..note", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":1}]},"items":[{"note":"#","name":"y"},{"note":null,"deep":{"note":"#"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$.customer.tags[1].b", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":"#"}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$.customer.tags[0]", `{"customer":{"name":"Ada","n":7,"tags":["#",{"b":1}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$['a b']", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":1}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"#","esc\u0061pe":"e"}`},
		{"$.escape", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":1}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"z"}}],"a b":"q","esc\u0061pe":"#"}`},
		{"$..[1]", `{"customer":{"name":"Ada","n":7,"tags":["a",{"b":"#"}]},"items":[{"note":"x","name":"y"},{"note":null,"deep":{"note":"#"}}],"a b":"q","esc\u0061pe":"e"}`},
		{"$.name", doc}, {"$.items.note", doc}, {"$.items[2]", doc}, {"$.Customer.name", doc},
	} {
		r := mustNew(t, Config{Paths: []string{c.path, "$.never"}})
		got := string(r.Body("application/json", []byte(doc), false, nil))
		if got != strings.ReplaceAll(c.want, "#", "<redacted:secret>") {
			t.Errorf("%s:\ngot  %s\nwant %s", c.path, got, c.want)
		}
		checkShape(t, []byte(doc), []byte(got))
	}
	r := mustNew(t, Config{Paths: []string{"$[*].a", "$.b"}})
	if got := string(r.Body("application/x-ndjson", []byte("[{\"a\":1}]\n{\"b\":2,\"a\":3}\n[[{\"a\":4}]]"), false, nil)); got !=
		"[{\"a\":\"<redacted:secret>\"}]\n{\"b\":\"<redacted:secret>\",\"a\":3}\n[[{\"a\":4}]]" {
		t.Errorf("several documents: %s", got)
	}
	for _, bad := range []string{"", "customer", "$", "$.", "$.a.", "$[", "$[x]", "$[-1]", "$[?(@.a)]", "$['a", "$.a b", "$[1:2]", "$" + strings.Repeat(".a", 40)} {
		if faults := (Config{Paths: []string{bad}}).Validate(); len(faults) != 1 || faults[0].Key != "paths[0]" {
			t.Errorf("%q: %v", bad, faults)
		}
	}
}
