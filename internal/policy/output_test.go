package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/state"
)

func TestEffectiveIsTheSameInYAMLAndJSON(t *testing.T) {
	o := loadText(t, layered).Effective()
	asYAML, err := o.YAML()
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := yaml.Unmarshal(asYAML, &a); err != nil {
		t.Fatalf("%v in\n%s", err, asYAML)
	}
	if err := json.Unmarshal(asJSON, &b); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	sorted, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(sorted) {
		t.Errorf("YAML says\n%s\nJSON says\n%s", again, sorted)
	}
	if !strings.HasPrefix(string(asJSON), `{"version":1,"proxy":{"listen":["127.0.0.1:3128"],`) {
		t.Errorf("the order is lost: %.100s", asJSON)
	}
}

func TestHashIsOfTheMeaning(t *testing.T) {
	a := loadText(t, "version: 1\nstate: {dir: /x}\ndefaults: {retry: {attempts: 3}}\n")
	b := loadText(t, "# a comment\nversion: 1\nstate: {dir: \"/x\"}\ndefaults:\n  retry:\n    attempts: 3\n")
	c := loadText(t, "version: 1\nstate: {dir: /x}\ndefaults: {retry: {attempts: 4}}\n")
	if a.Hash() != b.Hash() || a.Hash() == c.Hash() {
		t.Errorf("%s %s %s", a.Hash(), b.Hash(), c.Hash())
	}
}

// marshalled is JSON by encoding/json alone, with the order of Objects.
func marshalled(t *testing.T, v any) string {
	t.Helper()
	switch v := v.(type) {
	case Object:
		var members []string
		for _, m := range v {
			members = append(members, marshalled(t, m.Key)+":"+marshalled(t, m.Value))
		}
		return "{" + strings.Join(members, ",") + "}"
	case []any:
		if v != nil {
			var items []string
			for _, item := range v {
				items = append(items, marshalled(t, item))
			}
			return "[" + strings.Join(items, ",") + "]"
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestHashIsOfTheJSON: whatever way it is computed in, a hash is the one that the same configuration had in metrics and audit records before.
func TestHashIsOfTheJSON(t *testing.T) {
	paths := []string{"../../configs/reference.yaml", "../../configs/minimal.yaml", write(t, filepath.Join(t.TempDir(), "c.yaml"), layered)}
	for _, pattern := range []string{"testdata/v1/*.yaml", "../../configs/examples/*.yaml"} {
		more, err := filepath.Glob(pattern)
		if err != nil || len(more) == 0 {
			t.Fatal("no files", err)
		}
		paths = append(paths, more...)
	}
	loaded := 0
	for _, path := range paths {
		f, faults := Load(testSource(path))
		if len(faults) > 0 {
			continue // an example that names files of its reader
		}
		loaded++
		text := marshalled(t, f.Effective())
		sum := sha256.Sum256([]byte(text))
		if want := hex.EncodeToString(sum[:8]); f.Hash() != want {
			t.Errorf("%s: %s, want %s", path, f.Hash(), want)
		}
		if got, err := json.Marshal(f.Effective()); err != nil || string(got) != text {
			t.Errorf("%s: %v\n%s\nwant\n%s", path, err, got, text)
		}
	}
	if loaded < 6 {
		t.Errorf("only %d configurations were loaded", loaded)
	}
}

func TestAppendJSON(t *testing.T) {
	for _, v := range []any{
		"", "plain ~ text", "a\"b", `a\b`, "<a>", "a&b", "\x00", "\x1f", "\x7f", "\xff", "ü", "\u2028", "\U0001f600", true, false, int64(-1), int64(1) << 62, 0.0, 0.1, 1e21, 1e-7, -2.5, nil, 7, uint8(7),
		Object(nil), Object{}, []any(nil), []any{}, map[string]any{"b": "<", "a": 1}, Object{{"<key>", Object{{"b", []any{"x", int64(1), Object{{"c", nil}}}}, {"a", "&"}}}},
	} {
		got, err := appendJSON([]byte("…"), v)
		if want := "…" + marshalled(t, v); err != nil || string(got) != want {
			t.Errorf("%#v: %v %s, want %s", v, err, got, want)
		}
	}
	if _, err := appendJSON(nil, Object{{"a", []any{math.NaN()}}}); err == nil {
		t.Error("NaN was written")
	}
}

// TestHashIsCheap: what is nested costs no more than what is not, a type's fields are listed once, and who asks for a hash again gets the same one.
func TestHashIsCheap(t *testing.T) {
	var deep any = "text"
	for range 100 {
		deep = Object{{"key", []any{deep, int64(1), true}}}
	}
	b := make([]byte, 0, 1<<16)
	if n := testing.AllocsPerRun(10, func() { _, _ = appendJSON(b, deep) }); n > 0 {
		t.Errorf("%.0f allocations for JSON that has its place", n)
	}
	if n := testing.AllocsPerRun(10, func() { fieldsOf(reflect.TypeFor[Settings]()) }); n > 0 {
		t.Errorf("%.0f allocations for a type that is known", n)
	}
	f := loadText(t, layered)
	if n := testing.AllocsPerRun(10, func() { f.Hash() }); n > 0 {
		t.Errorf("%.0f allocations for a hash that is known", n)
	}
}

func TestAnchorsAreExpanded(t *testing.T) {
	f := loadText(t, "version: 1\ndefaults: {retry: &r {attempts: 3}}\nhosts: {a.example.com: {retry: *r}}\n")
	if v := valueOf(t, explained(t, f, "http://a.example.com/"), "retry.attempts"); v.Value != int64(3) || v.Origin != "host" {
		t.Errorf("%+v", v)
	}
}

func TestExplanationAsJSON(t *testing.T) {
	x := explained(t, loadText(t, layered), "http://api.example.com/reports/1")
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Host, Route, Policy, Mode string
		Chain                     []string
		Values                    []struct{ Path, Origin, Where string }
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Host != "api.example.com" || got.Route != "reports" || got.Mode != "plain" || len(got.Chain) == 0 || len(got.Values) < 30 {
		t.Errorf("%+v", got)
	}
	if out := x.Text(); !strings.Contains(out, "route (") || !strings.Contains(out, "host       api.example.com\n") {
		t.Error(out)
	}
}

func TestPathsAreRelativeToTheirFile(t *testing.T) {
	dir := t.TempDir()
	f, faults := Load(testSource(write(t, filepath.Join(dir, "c.yaml"), "version: 1\nca: {dir: ca}\nstate: {dir: state}\naudit: {output: audit.jsonl}\n")))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s := f.Settings()
	if s.CA.Dir != filepath.Join(dir, "ca") || s.State.Dir != filepath.Join(dir, "state") || s.Audit.Output != filepath.Join(dir, "audit.jsonl") {
		t.Errorf("%+v", s)
	}
}

// keeping notes what it made and what was closed of it.
type keeping struct {
	ends
	closed []string
}

type kept struct {
	name string
	k    *keeping
}

func (v *kept) Close() error {
	v.k.closed = append(v.k.closed, v.name)
	return nil
}

func (k *keeping) Requests(s state.Scope, u upstream.Config, t timeout.Config, d *destination.Rules) (http.RoundTripper, error) {
	state.Keep(s, "egress", u, func() io.Closer { return &kept{s.Policy, k} })
	return k.ends.Requests(s, u, t, d)
}

func TestCompileCommitsOrChangesNothing(t *testing.T) {
	var keeper state.Keeper
	k := &keeping{}
	both := rooms(&ends{})
	both.Ends = k
	one, two := "version: 1\nhosts: {a.example.com: {}, b.example.com: {}}\n", "version: 1\nhosts: {a.example.com: {}, c.example.com: {}}\n"
	if _, err := Compile(loadText(t, one), both, &keeper); err != nil {
		t.Fatal(err)
	}
	k.fail = io.ErrUnexpectedEOF
	if _, err := Compile(loadText(t, two), both, &keeper); err == nil {
		t.Fatal("compiled")
	}
	k.fail, k.closed = nil, nil // what the failed one made is gone
	if _, err := Compile(loadText(t, two), both, &keeper); err != nil {
		t.Fatal(err)
	}
	if strings.Join(k.closed, " ") != "b.example.com" {
		t.Errorf("closed %v, want b.example.com alone", k.closed)
	}
}

func TestAPolicyIsCompiledFromItsBlocks(t *testing.T) {
	s, err := Compile(loadText(t, `version: 1
hosts:
  a.example.com: {access: report, tls: intercept, sni: require, audit: {headers: true, bodies: request}, timeout: {connect: 1s}}
  b.example.com: {upgrade: https, retry: off, breaker: off}
  c.example.com: {audit: {headers: true}}
`), rooms(&ends{}), &state.Keeper{})
	if err != nil {
		t.Fatal(err)
	}
	a := s.Host(authority(t, "a.example.com")).Base
	if a.Access != Report || !a.Intercept || a.SNI != SNIRequire || !a.Audit.Headers || !a.Audit.RequestBodies() || a.Audit.ResponseBodies() ||
		a.Timeout.Connect.String() != "1s" || a.Redactor == nil || len(a.Unapplied) > 0 {
		t.Errorf("%+v", a)
	}
	b := s.Host(authority(t, "b.example.com")).Base
	if !b.Upgrade || strings.Join(b.Stages, " ") != "timeout attempt timeout egress" {
		t.Errorf("%+v", b)
	}
	if c := s.Host(authority(t, "c.example.com")).Base; strings.Join(c.Unapplied, " ") != "audit" {
		t.Errorf("%+v", c)
	}
	r, err := http.NewRequest("GET", "http://a.example.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r = r.WithContext(exchange.NewContext(t.Context(), &exchange.Exchange{Method: "GET", Target: authority(t, "a.example.com"), Scheme: "https"}))
	resp, err := a.Requests.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%v %v", resp, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}
