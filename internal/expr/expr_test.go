package expr

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
)

// values counts how often each name was asked for.
type values struct {
	of    map[string]any
	asked map[string]int
}

func (v values) Value(name string) (any, bool) {
	if v.asked != nil {
		v.asked[name]++
	}
	value, ok := v.of[name]
	return value, ok
}

// answers is an environment of another kind than requests: what a predicate over responses may name.
func answers(t testing.TB) *Environment {
	t.Helper()
	e, err := New(Variable{"response.status", Int}, Variable{"response.headers", Texts}, Variable{"response.body", Text},
		Variable{"response.raw", Bytes}, Variable{"response.json", Any}, Variable{"tags", List}, Variable{"query", Lists}, Variable{"ratio", Float},
		Variable{"final", Bool})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func sample(t testing.TB) values {
	t.Helper()
	var parsed any
	if err := json.Unmarshal([]byte(`{"ok": false, "code": 7, "errors": [{"retry": true}], "none": null}`), &parsed); err != nil {
		t.Fatal(err)
	}
	return values{of: map[string]any{
		"response.status": int64(200), "response.headers": map[string]string{"retry-after": "3"}, "response.body": "slow down", "response.raw": []byte("\x00\xff"),
		"response.json": parsed, "tags": []string{"a", "b"}, "query": map[string][]string{"q": {"1", "2"}}, "ratio": 0.5, "final": true,
	}, asked: map[string]int{}}
}

func TestHolds(t *testing.T) {
	e, v := answers(t), sample(t)
	for text, want := range map[string]bool{
		`response.status == 200 && response.json.ok == false`:                           true,
		`response.json.code > 6`:                                                        true,
		`response.json.errors.exists(e, e.retry)`:                                       true,
		`has(response.json.none) && response.json.none == null`:                         true,
		`has(response.json.missing)`:                                                    false,
		`response.json.missing`:                                                         false, // fails
		`response.json.code`:                                                            false, // is no boolean
		`response.json.missing || response.status == 200`:                               true,
		`!(response.headers['x-none'] == 'a')`:                                          false, // a failure is no match, negated or not
		`'retry-after' in response.headers && int(response.headers['retry-after']) < 5`: true,
		`response.body.matches('(?i)SLOW') && response.body.contains('down')`:           true,
		`response.body.startsWith('slow') && !response.body.endsWith('slow')`:           true,
		`size(response.raw) == 2 && response.raw == b'\x00\xff'`:                        true,
		`'b' in tags && tags.all(t, size(t) == 1)`:                                      true,
		`query['q'][1] == '2' && ratio < 1 && final`:                                    true,
		`1 / (response.status - 200) == 1`:                                              false,
	} {
		p, err := e.Compile(text, Bool)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := p.Holds(v); got != want {
			_, err := p.Eval(v)
			t.Errorf("%s is %v (%v)", text, got, err)
		}
	}
}

func TestEvalOtherTypes(t *testing.T) {
	e, v := answers(t), sample(t)
	for _, c := range []struct {
		text string
		want Type
		is   any
	}{
		{`response.status / 100`, Int, int64(2)}, {`ratio * 2.0`, Float, 1.0}, {`response.body + '!'`, Text, "slow down!"}, {`response.json.code`, Any, 7.0},
	} {
		p, err := e.Compile(c.text, c.want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Eval(v); err != nil || got != c.is {
			t.Errorf("%s is %v (%T), %v", c.text, got, got, err)
		}
	}
	p, err := e.Compile(`tags.filter(t, t != 'a')`, List)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Eval(v); err != nil || len(got.([]string)) != 1 {
		t.Errorf("%v %v", got, err)
	}
	if p, err = e.Compile(`response.json.ok`, Text); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Eval(v); err == nil {
		t.Errorf("false passed as the text %v", got)
	}
	if p, err = e.Compile(`response.status`, Int); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Eval(values{}); err == nil {
		t.Errorf("a variable that nobody gives is %v", got)
	}
}

func TestCompileFaults(t *testing.T) {
	e := answers(t)
	for _, c := range []struct{ text, want string }{
		{"", "is empty: write an expression"},
		{" \n", "is empty"},
		{"'" + strings.Repeat("x", MaxText) + "'", "must not be longer than 4096 bytes, has 4098"},
		{"response.satus == 200", "column 9: undeclared reference to 'response.satus' (did you mean 'response.status'?)"},
		{"true &&\n  zzz == 1", "line 2, column 3: undeclared reference to 'zzz'; there are response.status, response.headers"},
		{"response.status", "must be a boolean, is int: compare it with something"},
		{"response.status == 'x'", "column 17: found no matching overload for '_==_' applied to '(int, string)'"},
		{"response.status ==", "column 19: Syntax error: mismatched input '<EOF>'"},
		{"response.body.matches('(')", "column 23: invalid matches argument"},
		{"tags.all(a, tags.all(b, tags.all(c, true)))", "comprehension exceeds nesting limit"},
		{strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500), "recursion"},
		{"final \xff", "is not UTF-8"},
		{"a == 1 || b == 1 || c == 1 || d == 1", "and more"},
	} {
		_, err := e.Compile(c.text, Bool)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
			t.Errorf("%.60q: %v", c.text, err)
		}
	}
	if _, err := e.Compile("final"+strings.Repeat(" || final", 300), Bool); err != nil {
		t.Errorf("a long flat condition: %v", err)
	}
	if _, err := New(Variable{"size", Int}, Variable{"size", Text}); err == nil {
		t.Error("one name was declared twice")
	}
}

func TestValuesAreAskedForOnceAndOnlyWhereNeeded(t *testing.T) {
	v := sample(t)
	p, err := answers(t).Compile(`response.status == 500 && response.body == 'x' || response.status == 200 || final`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Holds(v) || v.asked["response.status"] != 1 || v.asked["response.body"] != 0 || v.asked["final"] != 0 {
		t.Errorf("%v", v.asked)
	}
}

func TestWorkIsBounded(t *testing.T) {
	tags := make([]string, 2000)
	for i := range tags {
		tags[i] = strings.Repeat("a", 30)
	}
	v := values{of: map[string]any{"tags": tags, "response.body": strings.Repeat("a", 1<<20)}}
	for _, text := range []string{
		`tags.all(a, tags.all(b, a == b))`,
		`tags.all(a, response.body.matches('(a|aa)*b') || true)`,
		`tags.map(a, response.body + response.body).size() == 2000`,
	} {
		p, err := answers(t).Compile(text, Bool)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Eval(v); err == nil || !strings.Contains(err.Error(), "cost limit") || p.Holds(v) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestProgramsAreSharedByGoroutines(t *testing.T) {
	p, err := answers(t).Compile(`tags.exists(t, t == response.body) && query['q'].size() == 2`, Bool)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			body, want := "a", true
			if i%2 == 1 {
				body, want = "z", false
			}
			v := values{of: map[string]any{"tags": []string{"a", "b"}, "response.body": body, "query": map[string][]string{"q": {"1", "2"}}}}
			for range 200 {
				if p.Holds(v) != want {
					t.Errorf("%s: not %v", body, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompileAndEval(f *testing.F) {
	for _, text := range []string{`response.status == 200`, `response.json.a[0].b`, `tags.map(t, t + t)`, `response.body.matches(response.body)`,
		`has(response.json.x.y) ? 1 : 'a'`, `timestamp(response.body) > timestamp('2020-01-01T00:00:00Z')`, `duration('1h') * 2`, `[1, 2.0, 'a'][response.status]`,
		`{1: 2}[1u]`, `dyn(response.json) == null`, `b'\xff' + response.raw`, `int(ratio * 1e300)`, `-9223372036854775808 / -1`, `a.b.c{d: 1}`, `"\u00e9" in query`,
		`tags.all(a, tags.exists_one(b, a == b))`, `type(final) == bool`, `((((`} {
		f.Add(text, "slow down")
	}
	e, v := answers(f), sample(f)
	v.asked = nil
	f.Fuzz(func(t *testing.T, text, body string) {
		p, err := e.Compile(text, Any)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q in more than one line: %v", text, err)
			}
			return
		}
		own := values{of: map[string]any{"response.body": body}}
		for name, value := range v.of {
			if name != "response.body" {
				own.of[name] = value
			}
		}
		if _, err := p.Eval(own); err != nil && strings.Contains(err.Error(), "internal error") {
			t.Errorf("%q panics: %v", text, err)
		}
		p.Holds(own)
	})
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := answers(b).Compile(`response.status == 200 && response.body.contains('slow')`, Bool); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHolds(b *testing.B) {
	v := values{of: sample(b).of}
	p, err := answers(b).Compile(`response.status == 200 && response.headers['retry-after'] == '3'`, Bool)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !p.Holds(v) {
			b.Fatal("does not hold")
		}
	}
}
