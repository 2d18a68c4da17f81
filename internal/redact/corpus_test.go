package redact

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// surroundings are places where a value stands.
var surroundings = []string{
	"%s", "the value %s was sent", `"%s"`, "'%s'", "(%s)", "[%s]", "<%s>", "see:%s", "a=%s", "x=1&v=%s&y=2", `{"v":"%s"}`, `{\"v\":\"%s\"}`, "line\n%s\nline",
	"\t%s;", "a,%s,b", "%%22%s%%22", `\u0022%s\u0022`, "https://api.example.com/v1/%s/x", "`%s`", "|%s|",
}

// TestCorpus measures recall and false alarms on labelled values in all surroundings. A random number that happens to be valid for an issuer cannot be
// told from a card; such numbers are no negatives.
func TestCorpus(t *testing.T) {
	m, r := newMaker(1), Default()
	positives, missed := 0, map[string]int{}
	positive := func(kind, secret, shown string, want Kind) {
		for _, around := range surroundings {
			positives++
			text := fmt.Sprintf(around, shown)
			var c Counts
			out := string(r.AppendText(nil, text, &c))
			if strings.Contains(out, shown) || strings.Contains(out, secret) || !slices.Contains(kindsOf(&c), want) {
				if missed[kind]++; missed[kind] < 3 {
					t.Logf("missed: %s: %q became %q", kind, text, out)
				}
			}
		}
	}
	for range 200 {
		for _, b := range brands {
			card := m.card(b)
			positive(b.name, card, card, PAN)
			positive(b.name+" grouped", card, m.grouped(card), PAN)
		}
		for _, kind := range slices.Sorted(maps.Keys(tokens)) {
			secret := tokens[kind](m)
			positive(kind, secret, secret, Hidden)
		}
	}
	negatives, alarms := falseAlarms(t, m, r)
	total := 0
	for _, n := range missed {
		total += n
	}
	recall, rate := 1-float64(total)/float64(positives), float64(alarms)/float64(negatives)
	t.Logf("recall %.5f of %d, false alarms %.5f of %d", recall, positives, rate, negatives)
	if recall < 0.999 || rate > 0.001 {
		t.Errorf("missed: %v", missed)
	}
}

func falseAlarms(t *testing.T, m maker, r *Redactor) (negatives, alarms int) {
	for range 500 {
		for _, kind := range slices.Sorted(maps.Keys(innocents)) {
			value := innocents[kind](m)
			for _, around := range surroundings {
				negatives++
				text := fmt.Sprintf(around, value)
				if out := r.Text(text); out != text {
					if alarms++; alarms < 20 {
						t.Logf("false alarm: %s: %q became %q", kind, text, out)
					}
				}
			}
		}
	}
	return negatives, alarms
}

func kindsOf(c *Counts) (list []Kind) {
	c.Each(func(k Kind, _ int) { list = append(list, k) })
	return list
}
