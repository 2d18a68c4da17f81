package redact

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
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

// TestLiteralsAtOnce: many that are added at once are what they are one by one, and cost each of them no set of its own.
func TestLiteralsAtOnce(t *testing.T) {
	var values []Secret
	for i := range maxLiterals + 100 {
		values = append(values, NewSecret(fmt.Sprintf("value-%06d", i*7%(maxLiterals+50))))
		if i%10 == 0 {
			values = append(values, values[i/2], NewSecret("short"), NewSecret(strings.Repeat("x", maxLiteral+1)))
		}
	}
	var one, all Literals
	for _, s := range values {
		one.Add(s)
	}
	all.AddAll(values[:500]...)
	all.AddAll(values[500:]...)
	if !reflect.DeepEqual(one.secrets, all.secrets) {
		t.Errorf("%d values, not the same %d", all.Len(), one.Len())
	}
	r := Shared{Literals: &all}.On(Default())
	for _, s := range one.secrets {
		if text := base64.StdEncoding.EncodeToString([]byte("u:" + s.value)); r.Text(s.value) != "<redacted:known-secret>" || r.Text(text) == text {
			t.Errorf("%s is not hidden", s.value)
		}
	}
	set := all.set.Load()
	all.AddAll(NewSecret(one.secrets[0].value), NewSecret(one.secrets[maxLiterals-1].value))
	if all.set.Load() != set {
		t.Error("what is known was added")
	}

	cost := func(n int) float64 {
		var some []Secret
		for i := range n {
			some = append(some, NewSecret(fmt.Sprintf("%08X-planted-secret", uint32(i)*2654435761))) // no two begin alike
		}
		return testing.AllocsPerRun(1, func() { Shared{Literals: new(Literals)}.Learn(some...) }) / float64(n)
	}
	if few, many := cost(100), cost(3*maxLiterals); many > 2*few {
		t.Errorf("%.0f allocations for each of %d, %.0f for each of 100", many, 3*maxLiterals, few)
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

// TestKnowledge: it is the same as long as the same is hidden, and another one after each change.
func TestKnowledge(t *testing.T) {
	l := &Literals{}
	r := Shared{Literals: l}.On(Default())
	seen := map[Knowledge]string{}
	now := func(step string) {
		t.Helper()
		k, ok := r.Knowledge()
		again, _ := r.Knowledge()
		if before, old := seen[k]; !ok || old || k != again {
			t.Errorf("%s: known %v from %s, the same when asked again %v", step, ok, before, k == again)
		}
		seen[k] = step
	}
	now("nothing")
	l.Add(NewSecret("first-secret-1"))
	now("added")
	l.AddAll(NewSecret("second-secret-2"), NewSecret("third-secret-3"))
	now("more")
	l.Remove(NewSecret("first-secret-1"))
	now("removed")
	l.Remove(NewSecret("second-secret-2"))
	l.Remove(NewSecret("third-secret-3"))
	now("empty again")
	if k, _ := Default().Knowledge(); seen[k] != "" {
		t.Error("two redactors share what they know")
	}
	if _, ok := r.Knowing(http.Header{"Authorization": {"Bearer " + "first-secret-1"}}, "").Knowledge(); ok {
		t.Error("what one exchange knows holds for others")
	}
}
