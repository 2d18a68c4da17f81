package redact

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestFingerprint: the same value has the same fingerprint wherever it stands and however it is spelt, another value or key has another; card data has none.
func TestFingerprint(t *testing.T) {
	key := NewKey(bytes.Repeat([]byte{7}, KeySize))
	r := Shared{Key: key}.On(Default())
	token := "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"
	mark := "<redacted:stripe-key:" + key.Fingerprint(token) + ">"
	for place, got := range map[string]string{
		"text":            r.Text("the key " + token + " was sent"),
		"by name":         r.Text("password=" + token),
		"query":           string(r.AppendURL(nil, "/x?api_key="+token, nil)),
		"encoded query":   string(r.AppendURL(nil, "/x?api_key="+strings.ReplaceAll(token, "_", "%5F"), nil)),
		"path":            string(r.AppendURL(nil, "/x/"+token, nil)),
		"bearer":          strings.Join(r.Header(http.Header{"Authorization": {"Bearer " + token}}, nil)["Authorization"], ""),
		"header":          strings.Join(r.Header(http.Header{"X-Api-Key": {token}}, nil)["X-Api-Key"], ""),
		"JSON":            string(r.Body("application/json", []byte(`{"a":"`+token+`"}`), false, nil)),
		"JSON by name":    string(r.Body("application/json", []byte(`{"secret":"`+token+`"}`), false, nil)),
		"JSON in escapes": string(r.Body("application/json", []byte(`{"secret":"`+strings.ReplaceAll(token, "_", `\u005f`)+`"}`), false, nil)),
		"form":            string(r.Body("application/x-www-form-urlencoded", []byte("a="+token), false, nil)),
		"form part":       string(r.Body("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n"+token+"\r\n--b--"), false, nil)),
	} {
		if !strings.Contains(got, mark) {
			t.Errorf("%s: %s", place, got)
		}
	}
	if got := string(r.Body("text/xml", []byte("<a><secret>"+token+"</secret></a>"), false, nil)); got != "<a><secret>&lt;"+mark[1:len(mark)-1]+"&gt;</secret></a>" {
		t.Errorf("XML: %s", got)
	}
	other := r.Text("sk_" + "live_4eC39HqLyjWDarjtT1zdp7dd")
	if other == mark || !strings.HasPrefix(other, "<redacted:stripe-key:") {
		t.Errorf("another key becomes %s", other)
	}
	if another := (Shared{Key: RandomKey()}).On(Default()).Text(token); another == mark && (Shared{Key: RandomKey()}).On(Default()).Text(token) == mark {
		t.Error("the key makes no difference")
	}
	for _, in := range []string{"cvv=123", "pin is 1234", ";4111111111111111=25121010000?x"} {
		if got := r.Text(in); !strings.Contains(got, "<redacted:cvv>") && !strings.Contains(got, "<redacted:track>") {
			t.Errorf("%s: %s", in, got)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %v", key, key, key, struct{ k *Key }{key}); strings.Contains(s, "7 7") || strings.Contains(s, "070707") {
		t.Errorf("the key was printed: %s", s)
	}
}

// TestLabels: every placeholder that can be written is known again, and nothing else is.
func TestLabels(t *testing.T) {
	for _, name := range labelNames {
		if len(name) > longestLabel {
			t.Errorf("%s is too long", name)
		}
		for _, s := range []string{"<redacted:" + name + ">", "<redacted:" + name + ":7f3a>", "&lt;redacted:" + name + ":7f3a&gt;"} {
			if !isPlaceholder(s) {
				t.Errorf("%s is no placeholder", s)
			}
			for _, text := range []string{s, "a " + s + " b", "password=" + s, "Authorization: Bearer " + s, "http://" + s + "@x.example.com/", `{"token":"` + s + `"}`} {
				if got := Default().Text(text); got != text {
					t.Errorf("%s became %s", text, got)
				}
			}
			if strings.HasPrefix(s, "&") {
				continue
			}
			if out := string(Default().Body("application/json", []byte(`{"token":"`+s+`","`+s+`":"x"}`), false, nil)); out != `{"token":"`+s+`","`+s+`":"x"}` {
				t.Errorf("%s in JSON: %s", s, out)
			}
		}
	}
	for _, s := range []string{"<redacted:hunter2>", "<redacted:secret:hunter2>", "<redacted:secret:7f3z>", "<redacted:>", "<redacted:secret", "<redacted:secret:>", "[redacted", ""} {
		if placeholderAt(s) != 0 {
			t.Errorf("%s is a placeholder", s)
		}
	}
	if got := Default().Text(`password="<redacted:hunter2>"`); strings.Contains(got, "hunter2") {
		t.Errorf("a secret posed as a placeholder: %s", got)
	}
}
