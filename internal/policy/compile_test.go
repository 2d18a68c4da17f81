package policy

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"httpowerd/internal/redact"
	"httpowerd/internal/state"
)

// TestRedactorsAreShared: policies that hide the same have one Redactor between them, and no others have.
func TestRedactorsAreShared(t *testing.T) {
	f := loadText(t, `version: 1
hosts:
  plain-a.example.com: {access: deny}
  plain-b.example.com: {redact: {headers: []}}
  header-a.example.com: {redact: {headers: [X-One]}}
  header-b.example.com: {redact: {headers: [X-One]}}
  field.example.com: {redact: {fields: [X-One]}}
  both.example.com: {redact: {headers: [X-One], fields: [X-One]}}
  two.example.com: {redact: {fields: [X-One, X-Two]}}
  space.example.com: {redact: {fields: ["X-One X-Two"]}}
`)
	s, err := Compile(f, rooms(&ends{}), &state.Keeper{})
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string) *redact.Redactor { return s.Host(authority(t, name+".example.com:443")).Base.Redactor }
	if of("plain-a") != of("plain-b") || of("plain-a") != s.Default().Redactor || of("header-a") != of("header-b") {
		t.Error("policies that hide the same have Redactors of their own")
	}
	var seen []*redact.Redactor
	for _, name := range []string{"plain-a", "header-a", "field", "both", "two", "space"} {
		r := of(name)
		if slices.Contains(seen, r) {
			t.Errorf("%s has the Redactor of another policy", name)
		}
		seen = append(seen, r)
	}
}

// What ${…} fills in need not be UTF-8; bytes that are not must not become equal.
func TestRedactorsOfOddBytes(t *testing.T) {
	c := newCompiler(nil, Rooms{}, nil, nil)
	r := redactorOf(t, c, redact.Config{Fields: []string{"a\xff"}})
	for _, other := range []string{"a\xfe", "a\ufffd", `a\xff`, "a"} {
		if redactorOf(t, c, redact.Config{Fields: []string{other}}) == r {
			t.Errorf("%q has the Redactor of another text", other)
		}
	}
}

// TestRedactorIsFoundAtOnce: to compile a policy takes as much work beside a thousand other Redactors as beside ten. Allocations stand for work.
func TestRedactorIsFoundAtOnce(t *testing.T) {
	cost := func(others int) float64 {
		c := newCompiler(nil, Rooms{}, nil, nil)
		config := func(i int) redact.Config { return redact.Config{Headers: []string{fmt.Sprintf("X-Key-%04d", i)}} }
		for i := range others {
			redactorOf(t, c, config(i))
		}
		last := config(others - 1)
		return testing.AllocsPerRun(10, func() { redactorOf(t, c, last) })
	}
	if few, many := cost(10), cost(1000); many > few+5 {
		t.Errorf("%.0f allocations beside 10 Redactors, %.0f beside 1000", few, many)
	}
}

func redactorOf(t *testing.T, c *compiler, config redact.Config) *redact.Redactor {
	t.Helper()
	r, err := c.redactor(&plan{blocks: map[string]*merged{"redact": {on: true, config: &config}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A secret that ten thousand blocks are filled in with is one secret: each fault is searched for all of them.
func TestSecretsAreKnownOnce(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), `version: 1
admin: {token: "${API_TOKEN}"}
defaults: {retry: {signal: "X-${API_TOKEN}"}}
hosts: {a.example.com: {redact: {fields: ["${API_TOKEN}"]}}, b.example.com: {redact: {fields: ["${API_TOKEN}"]}}}
`)
	r := newReader(testSource(path))
	r.root(path)
	token, _ := testEnv("API_TOKEN")
	if want := []string{token, "X-" + token}; !slices.Equal(r.hidden.secrets, want) {
		t.Errorf("%q, want %q", r.hidden.secrets, want)
	}
}
