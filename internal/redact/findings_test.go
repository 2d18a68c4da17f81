package redact

import (
	"strings"
	"testing"
)

// TestFindings: every value that is hidden has a finding with its place and the reason, in order, and without the value.
func TestFindings(t *testing.T) {
	text := "{\"a\":\"x\",\n \"password\":\"hunter2-long\", \"b\":[\"sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc\"],\n\n\"c\":\"4111111111111111 and \\u0070assword=esc\\u0061ped\",\"token\":12}"
	var c Counts
	clean, list := Default().Findings("application/json", []byte(text), &c)
	if want := Default().Body("application/json", []byte(text), false, nil); string(clean) != string(want) {
		t.Errorf("another text: %s", clean)
	}
	want := []Finding{
		{Line: 2, Column: 14, Kind: Hidden, Label: "secret", Length: 12, Name: "password", Why: "it stands under the name password"},
		{Line: 2, Column: 35, Kind: Hidden, Label: "stripe-key", Length: 32, Why: "a token, by its shape"},
		{Line: 4, Column: 6, Kind: PAN, Label: "pan", Length: 16, Name: "c"},
		{Kind: Hidden, Label: "secret", Length: 7},
		{Line: 4, Column: 63, Kind: Hidden, Label: "secret", Length: 2, Name: "token"},
	}
	if len(list) != len(want) || c.Total() != len(want) {
		t.Fatalf("%d findings, %d counted: %+v", len(list), c.Total(), list)
	}
	for i, f := range list {
		w := want[i]
		if f.Line != w.Line || f.Column != w.Column || f.Kind != w.Kind || f.Label != w.Label || f.Length != w.Length || w.Name != "" && f.Name != w.Name ||
			w.Why != "" && f.Why != w.Why || f.Why == "" {
			t.Errorf("%d:\ngot  %+v\nwant %+v", i, f, w)
		}
		if strings.Contains(f.Why+f.Name, "hunter2") {
			t.Errorf("it shows the value: %+v", f)
		}
	}
	many := strings.Repeat("password=abcdefgh\n", maxFindings+5)
	var n Counts
	if _, list := Default().Findings("", []byte(many), &n); len(list) != maxFindings || n.Total() != maxFindings+5 || list[maxFindings-1].Line != maxFindings {
		t.Errorf("%d findings of %d", len(list), n.Total())
	}
}
