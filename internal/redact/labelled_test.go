package redact

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the tests get into testdata")

// The labelled corpus lies in testdata/corpus, a line for each text: what it counts as, its class, how it is read, the text. What must not survive
// stands between « and »; all else has to. A ¦ within, which is no part of it, keeps scanners for leaked keys from mistaking the corpus for a leak.
// Line breaks and tabs are written ␤, ␍ and ␉.
//
// Texts come from templates and values that are made up: card numbers are random but for those that networks publish for tests.

type labelled struct {
	kind      string // of positives, what has to be counted
	class, as string
	text      string // with « and »
}

var (
	toLine   = strings.NewReplacer("\n", "␤", "\r", "␍", "\t", "␉")
	fromLine = strings.NewReplacer("␤", "\n", "␍", "\r", "␉", "\t", "¦", "")
	unmark   = strings.NewReplacer("«", "", "»", "", "¦", "")
)

func (l labelled) plain() string { return unmark.Replace(l.text) }

// parts are the values to hide and what stands around them.
func (l labelled) parts() (hidden, kept []string) {
	rest := strings.ReplaceAll(l.text, "¦", "")
	for {
		before, after, found := strings.Cut(rest, "«")
		kept = append(kept, before)
		if !found {
			return hidden, kept
		}
		var value string
		value, rest, _ = strings.Cut(after, "»")
		hidden = append(hidden, value)
	}
}

// fill fills in a template. counts tells what has to be counted.
func fill(m maker, text string) (filled string, counts Kind) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "‹")
		b.WriteString(before)
		if !found {
			return b.String(), counts
		}
		var name string
		name, text, _ = strings.Cut(after, "›")
		if harmless, ok := strings.CutPrefix(name, "="); ok {
			b.WriteString(harmlessValue(m, harmless))
			continue
		}
		name, spelling, _ := strings.Cut(name, "|")
		v, ok := sensitive[name]
		if !ok {
			panic("no value is called " + name)
		}
		counts = v.kind
		b.WriteString(marked(spell(v.make(m), spelling)))
	}
}

// marked is a value to hide. Of Braintree's tokens the beginning is harmless, and may stay.
func marked(s string) string {
	if n := strings.LastIndex(s, "$") - 16; strings.HasPrefix(s, "access_") && n > 0 {
		return s[:n] + "«" + split(s[n:]) + "»"
	}
	return "«" + split(s) + "»"
}

// split puts a ¦ into what scanners for leaked keys might know.
func split(s string) string {
	if len(s) < 12 || isDigit(s[0]) && countDigits(s) > 10 {
		return s
	}
	return s[:2] + "¦" + s[2:]
}

func spell(s, spelling string) string {
	switch spelling {
	case "url":
		return url.QueryEscape(s)
	case "json":
		return strings.Trim(quote(s), `"`)
	case "html":
		return html.EscapeString(s)
	}
	return s
}

func harmlessValue(m maker, name string) string {
	if f, ok := harmlessValues[name]; ok {
		return f(m)
	}
	return innocents[name](m)
}

// corpusFiles makes the corpus.
func corpusFiles(m maker) map[string][]labelled {
	files := map[string][]labelled{}
	add := func(file, class string, t template, times int) {
		for range times {
			text, kind := fill(m, t.text)
			files[file] = append(files[file], labelled{string(kind), class, t.as, text})
		}
	}
	for _, t := range cardTexts {
		add("positive-cards", "card", t, 12)
	}
	for _, b := range brands {
		for _, separator := range append([]string{"", " ", "-"}, wideSeparators...) {
			for range 3 {
				t := cardTexts[m.IntN(12)]
				text, _ := fill(m, t.text)
				number := m.separated(m.card(b), separator)
				if separator == "" {
					number = m.card(b)
				}
				before, after, _ := strings.Cut(text, "«")
				_, after, _ = strings.Cut(after, "»")
				files["positive-cards"] = append(files["positive-cards"], labelled{string(PAN), "card " + b.name, t.as, before + "«" + number + "»" + after})
			}
		}
	}
	for _, t := range codeTexts {
		add("positive-cards", "code", t, 6)
	}
	for i, name := range secretNames {
		for k, t := range nameTexts {
			if (i+k)%3 > 0 { // each name in a third of the texts
				continue
			}
			if strings.Contains(name, "-") && (strings.HasPrefix(t.text, "SET") || strings.Contains(t.text, "Config{") || strings.Contains(t.text, "jane\\\"")) {
				continue
			}
			add("positive-names", "name", template{t.as, strings.ReplaceAll(t.text, "NAME", name)}, 1)
		}
	}
	for _, t := range secretTexts {
		add("positive-secrets", "secret", t, 4)
	}
	for _, t := range moreTexts {
		add("positive-more", "more", t, 3)
	}
	for i, v := range vendorTokens {
		for k, t := range tokenTexts {
			token := v.make(m)
			if (i+k)%2 > 0 || t.as == "application/x-www-form-urlencoded" && token != url.QueryEscape(token) || strings.HasPrefix(token, "-----") {
				continue
			}
			text := strings.ReplaceAll(t.text, "‹token›", marked(token))
			files["positive-tokens"] = append(files["positive-tokens"], labelled{string(Hidden), "token " + v.name, t.as, text})
		}
	}
	for _, t := range apiTexts {
		add("positive-messages", "message", t, 8)
	}
	for _, values := range []map[string]func(maker) string{harmlessValues, innocents} {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			for _, t := range harmlessFrames {
				v := values[name](m)
				if strings.ContainsAny(v, "\n\"") && t.as != "application/json" {
					continue
				}
				files["negative-values"] = append(files["negative-values"], labelled{"", name, t.as, placed(t.text, v)})
			}
		}
	}
	for _, t := range moreHarmlessTexts {
		files["negative-more"] = append(files["negative-more"], labelled{"", "more", t.as, t.text})
	}
	for _, t := range harmlessTexts {
		files["negative-texts"] = append(files["negative-texts"], labelled{"", "text", t.as, t.text})
	}
	for range 40 {
		for _, t := range harmlessTexts {
			if t.as == "text" && m.IntN(8) == 0 { // in the midst of others
				other := harmlessTexts[m.IntN(60)]
				files["negative-texts"] = append(files["negative-texts"], labelled{"", "texts", "text", t.text + "\n" + other.text + "\n"})
			}
		}
	}
	return files
}

// placed is a frame with a harmless value in its place.
func placed(frame, v string) string {
	return strings.NewReplacer("%s", v, "JSON", strings.Trim(quote(v), `"`), "HTML", html.EscapeString(v), "URL", url.QueryEscape(v), "PATH", url.PathEscape(v)).Replace(frame)
}

// TestCorpusFiles: the files are what the templates make. Run it with -update after a change.
func TestCorpusFiles(t *testing.T) {
	for name, lines := range corpusFiles(newMaker(7)) {
		var b bytes.Buffer
		for _, l := range lines {
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", l.kind, l.class, l.as, toLine.Replace(l.text))
		}
		path := filepath.Join("testdata", "corpus", name+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, b.Bytes()) {
			t.Errorf("%s is not what the templates make (%v): go test ./internal/redact -run TestCorpusFiles -update", path, err)
		}
	}
}

// readCorpus reads the files that begin with prefix.
func readCorpus(t *testing.T, prefix string) (list []labelled) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "corpus", prefix+"-*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no corpus", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
			if len(f) != 4 {
				t.Fatalf("%s: %q", path, line)
			}
			list = append(list, labelled{f[0], f[1], f[2], fromLine.Replace(f[3])})
		}
	}
	return list
}

// redacted is text as it is recorded.
func redacted(as, text string, c *Counts) string {
	r := Default()
	if name, ok := strings.CutPrefix(as, "header:"); ok {
		return r.Header(http.Header{name: {text}}, c).Get(name)
	}
	switch as {
	case "text":
		return string(r.AppendText(nil, text, c))
	case "url":
		return string(r.AppendURL(nil, text, c))
	}
	return string(r.Body(as, []byte(text), false, c))
}

// plainly takes encodings off, so that texts can be compared that were encoded anew around a hidden value.
func plainly(as, s string) string {
	switch {
	case as == "url" || strings.HasSuffix(as, "urlencoded") || as == "header:Location" || as == "header:Referer":
		for range maxNesting {
			s = string(unescape(nil, s, true))
		}
	case strings.HasSuffix(as, "xml") || strings.HasSuffix(as, "html"):
		s = html.UnescapeString(s)
	case strings.HasSuffix(as, "json"):
		s = string(appendUnquoted(nil, s))
	}
	return s
}

// fault tells what is wrong with the output of a positive, or nothing.
func fault(l labelled, out string, c *Counts) string {
	if !slices.Contains(kindsOf(c), Kind(l.kind)) {
		return "does not count"
	}
	hidden, kept := l.parts()
	for i, v := range hidden { // what is short stands elsewhere by chance: it is looked for where it was
		if len(v) >= 8 && shows(out, v) {
			return "shows"
		}
		hidden[i] = plainly(l.as, v)
	}
	rest := plainly(l.as, out)
	for i, k := range kept {
		k = plainly(l.as, k)
		at := strings.Index(rest, k)
		if i == len(kept)-1 {
			at = len(rest) - len(k)
		}
		if at < 0 || i == 0 && at > 0 || rest[at:at+len(k)] != k {
			return fmt.Sprintf("loses %q beside", k)
		}
		if i > 0 && shows(rest[:at], hidden[i-1]) {
			return "shows"
		}
		rest = rest[at+len(k):]
	}
	if !strings.HasSuffix(l.as, "json") {
		return ""
	}
	return sameShape(l.plain(), out)
}

// shows tells whether out holds v, or the greater part of it.
func shows(out, v string) bool {
	if strings.Contains(out, v) {
		return true
	}
	if digits := onlyDigits(v); len(digits) >= 12 && len(digits) <= 19 && len(digits) > len(v)/2 {
		joined := ungroup.Replace(out)
		for i := range len(digits) - 7 {
			if strings.Contains(joined, digits[i:i+7]) {
				return true
			}
		}
		return false
	}
	return len(v) >= 12 && (strings.Contains(out, v[:8]) || strings.Contains(out, v[len(v)-8:]))
}

// ungroup takes the separators between groups of digits away.
var ungroup = strings.NewReplacer(" ", "", "-", "", "+", "", "\u00a0", "", "\u2009", "", "\u202f", "", "\u2007", "", "\u2013", "", "\u2011", "", "\u2010", "")

func onlyDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
}

// sameShape: JSON stays JSON, with the same keys and as long lists.
func sameShape(in, out string) string {
	var a, b any
	if json.Unmarshal([]byte(in), &a) != nil {
		return ""
	}
	if json.Unmarshal([]byte(out), &b) != nil {
		return "makes invalid JSON of"
	}
	if x, y := quoteShape(a), quoteShape(b); x != y {
		return "changes the shape of"
	}
	return ""
}

func quoteShape(v any) string {
	b, _ := json.Marshal(shapeOf(v))
	return string(b)
}

// rates counts by class.
type rates map[string]*[2]int

func (r rates) count(class string, bad bool) {
	if r[class] == nil {
		r[class] = &[2]int{}
	}
	r[class][0]++
	if bad {
		r[class][1]++
	}
}

// report logs each class and returns the share of bad ones in all.
func (r rates) report(t *testing.T, what string) float64 {
	total, bad := 0, 0
	for _, class := range slices.Sorted(maps.Keys(r)) {
		n := r[class]
		total, bad = total+n[0], bad+n[1]
		if n[1] > 0 || testing.Verbose() {
			t.Logf("%-24s %5d, %s %d (%.3f %%)", class, n[0], what, n[1], 100*float64(n[1])/float64(n[0]))
		}
	}
	t.Logf("in all %d, %s %d (%.3f %%)", total, what, bad, 100*float64(bad)/float64(total))
	return float64(bad) / float64(total)
}

// TestLabelled measures recall and false alarms on the labelled corpus.
func TestLabelled(t *testing.T) {
	missed, shown := rates{}, map[string]int{}
	for _, l := range readCorpus(t, "positive") {
		var c Counts
		out := redacted(l.as, l.plain(), &c)
		wrong := fault(l, out, &c)
		missed.count(l.class, wrong != "")
		if wrong == "" {
			continue
		}
		if key := l.class + wrong; shown[key] < 3 {
			shown[key]++
			t.Logf("%s %s: %s\n%s\n%s", l.class, l.as, wrong, l.text, out)
		}
	}
	if share := missed.report(t, "missed"); share > 0.001 {
		t.Errorf("recall is %.3f %%", 100-100*share)
	}
	alarms := rates{}
	for _, l := range readCorpus(t, "negative") {
		var c Counts
		out := redacted(l.as, l.text, &c)
		alarms.count(l.class, out != l.text || c.Total() > 0)
		if out != l.text && shown[l.class] < 3 {
			shown[l.class]++
			t.Logf("%s %s: false alarm\n%s\n%s", l.class, l.as, l.text, out)
		}
	}
	if share := alarms.report(t, "false alarms"); share > 0.001 {
		t.Errorf("%.3f %% are false alarms", 100*share)
	}
}
