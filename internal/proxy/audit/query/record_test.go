package query

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// FuzzRecord: a line is cut into fields exactly when it is one JSON object with a time and a kind, and each field is what encoding/json makes of it.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{hostile, `{"time":"t","kind":"k"}`, ` { "time" : "t" , "kind" : "k" , "a" : [ 1 , -0.5e+3 , { } , [ ] , null , true , false ] } `, `{"time":"t","kind":"k",}`,
		`{"time":"t","kind":"k","n":01}`, `{"time":"t","kind":"k","n":-}`, `{"time":"t","kind":"k","s":"\ud800\u12"}`, `{"time":"t","kind":"k"}x`, `{}`, `[]`, ``, `{`, `{"time":"t","kind":"k","n":1e}`,
		`{"time":"t","kind":"k","n":0,"m":10,"z":-0.0}`, `{"time":"t","kind":"k","attempts":[{"n":1,"status":200},{"n":2,"error":"x"}],"redactions":{"pan":1}}`,
		`{"time":"t","kind":"k","a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var r record
		got := r.parse(line)
		if bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{")) > maxDepth {
			return // deeper than any record: it may be refused
		}
		var m map[string]json.RawMessage
		d := json.Unmarshal(line, &m)
		object := d == nil && m != nil
		long := func(key string) bool { return len(r.get(key)) > 2 }
		if got != (object && long("time") && long("kind")) {
			t.Fatalf("%q: %v, encoding/json: %v", line, got, d)
		}
		if !got {
			return
		}
		if len(m) == len(r.fields) { // no key twice, none with escapes that make it another
			for _, f := range r.fields {
				if v, ok := m[string(f.key)]; ok && !bytes.Equal(v, f.value) {
					t.Fatalf("%q: %s is %q, encoding/json: %q", line, f.key, f.value, v)
				}
			}
		}
		r.attempts(func(a *record) { a.number("status") })
		r.redactions(func([]byte, float64) {})
		short(&r)
		if !json.Valid(harmless(line)) {
			t.Fatalf("%q became %q", line, harmless(line))
		}
		filters, err := Parse([]string{"status:200", "!outcome:ok", "attempt:5xx", "client:*", "since:1h", "x"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		filters.match(&r)
	})
}

// BenchmarkRead reads a trail as it is: AUDIT_TRAIL names a file, else a small one is made.
func BenchmarkRead(b *testing.B) {
	path := os.Getenv("AUDIT_TRAIL")
	if path == "" {
		path = b.TempDir() + "/audit.jsonl"
		w := newWriter(b, path, nil)
		for i := range 20_000 {
			w.call(call{id: fmt.Sprintf("0198c1f2-9a53-7f0e-8b1d-%012d", i), method: "POST", url: "https://api.example.com/v1/charges?expand=customer&limit=10", host: "api.example.com",
				policy: "api.example.com", status: 200, by: "upstream", outcome: "ok", attempts: []int{200}, took: 87 * time.Millisecond, in: 312, out: 2048, at: time.Duration(i) * time.Millisecond})
		}
		w.end()
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, words := range []string{"", "status:5xx", "since:2027-01-01", "/nothing"} {
		b.Run(words, func(b *testing.B) {
			b.SetBytes(info.Size())
			for b.Loop() {
				if _, err := show(b, Query{Files: []string{path}}, &count{}, strings.Fields(words)...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("totals", func(b *testing.B) {
		b.SetBytes(info.Size())
		for b.Loop() {
			s, _ := NewTotals(&bytes.Buffer{}, "host", "", nil)
			if _, err := show(b, Query{Files: []string{path}}, s); err != nil {
				b.Fatal(err)
			}
		}
	})
}

type count struct{ n int }

func (c *count) record(*record) error { c.n++; return nil }
func (c *count) idle() error          { return nil }
func (c *count) end() error           { return nil }
