package redact

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
)

func TestLiterals(t *testing.T) {
	const value = `my "odd"/pass wörd+1`
	var l Literals
	r := Shared{Literals: &l}.On(Default())
	if text := "it is " + value; r.Text(text) != text {
		t.Error("an empty one hides")
	}
	if !l.Add(NewSecret(value)) || l.Add(NewSecret("short")) || l.Add(NewSecret(strings.Repeat("x", 5000))) || !l.Add(NewSecret(value)) || l.Len() != 1 {
		t.Errorf("Add; %d values", l.Len())
	}
	for what, text := range map[string]string{
		"as it is": "is " + value + " here", "json": "is " + quote(value) + " here", "query": "is " + url.QueryEscape(value) + " here", "path": "is " + url.PathEscape(value),
		"lower": "is " + lowerEscapes(url.QueryEscape(value)), "hex": "is " + hex.EncodeToString([]byte(value)), "abutting": "x" + value + "x",
		"base64": "is " + base64.StdEncoding.EncodeToString([]byte(value)), "basic 1": base64.StdEncoding.EncodeToString([]byte("u:" + value)),
		"basic 2": base64.URLEncoding.EncodeToString([]byte("us:" + value + "!")), "basic 3": base64.RawURLEncoding.EncodeToString([]byte("use:" + value + "!!")),
	} {
		var c Counts
		if out := string(r.AppendText(nil, text, &c)); !strings.Contains(out, "<redacted:known-secret>") || c.Total() != 1 {
			t.Errorf("%s: %s", what, out)
		}
		if out := string(r.Body("application/json", []byte(`{"a":`+quote(text)+`}`), false, nil)); !strings.Contains(out, "<redacted:known-secret>") {
			t.Errorf("%s in JSON: %s", what, out)
		}
	}
	if Default().Text(value) != value {
		t.Error("the built-in Redactor learnt it")
	}
	l.Remove(NewSecret(value))
	if r.Text(value) != value || l.Len() != 0 {
		t.Error("not removed")
	}
	for i := range maxLiterals + 5 {
		l.Add(NewSecret(fmt.Sprintf("value-%06d", i)))
	}
	if l.Len() != maxLiterals || r.Text("value-000004") != "value-000004" || r.Text("value-000005") != "<redacted:known-secret>" {
		t.Errorf("%d values", l.Len())
	}
}

func TestLiteralsTogether(t *testing.T) {
	var l Literals
	r := Shared{Literals: &l}.On(Default())
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 20 {
				s := NewSecret(fmt.Sprintf("goroutine-%d-%d-", g, i))
				l.Add(s)
				if r.Text(s.Reveal()) != "<redacted:known-secret>" {
					t.Error("not hidden once added")
				}
				l.Remove(s)
			}
		})
	}
	all.Wait()
	if l.Len() != 0 {
		t.Error("some are left")
	}
}
