package query

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func table(t *testing.T, look Look, fields []string, path string, words ...string) (text, said string) {
	t.Helper()
	var b bytes.Buffer
	var k notes
	look.Zone = time.UTC
	s, err := NewTable(&b, look, fields, k.tell)
	if err != nil {
		t.Fatal(err)
	}
	told, err := show(t, Query{Files: []string{path}}, s, words...)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), told + k.String()
}

func TestTable(t *testing.T) {
	path := mixed(t)
	got, said := table(t, Look{}, nil, path, "-kind:lifecycle", "-kind:config")
	want(t, "told", said, "")
	want(t, "the table", "\n"+got, `
TIME (UTC)               STATUS  METHOD  TOOK  TRIES  OUTCOME  HOST AND PATH
2026-11-26 12:00:00.000     200  GET     87ms      1  ok       api.example.com/v1/charges?limit=10
TIME (UTC)               STATUS  METHOD     TOOK  TRIES  OUTCOME             TENANT   HOST AND PATH
2026-11-26 12:01:00.000     503  POST      2.00s      2  upstream_error      billing  API.example.com/v2/pay
2026-11-26 12:02:00.000     504  GET      30.00s      1  upstream_timeout             pay.example.com/?card=411111******1111
2026-11-26 12:30:00.000     200  CONNECT  1h0m0s      2  ok                  shop     other.test
2026-11-26 12:50:00.000     403  GET       1.0ms      0  destination_denied           169.254.169.254/
`)
	got, _ = table(t, Look{Width: 80}, nil, path, "id:a")
	want(t, "a narrow table", "\n"+got, `
TIME (UTC)      STATUS  METHOD  TOOK  TRIES  OUTCOME  HOST AND PATH
11-26 12:00:00     200  GET     87ms      1  ok       api.example.com/v1/charge…
`)
	got, _ = table(t, Look{Width: 30}, nil, path, "id:a")
	wantText(t, "a very narrow table", got, "api.example.com/v1/char…\n")
	got, _ = table(t, Look{}, nil, path, "event:loaded")
	wantText(t, "an event", got, " config ", " loaded ", " config_hash=abc\n")
	got, said = table(t, Look{}, []string{"id", " Bytes", "duration", "attempts", "redactions", "where"}, path, "id:c")
	want(t, "chosen fields", got, "ID  BYTES    TOOK  TRIES  REDACTIONS  HOST AND PATH\nc       0  30.00s      1  pan:1       pay.example.com/?card=411111******1111\n")
	want(t, "told", said, "")
	_, said = table(t, Look{}, []string{"hosst", "id"}, path)
	want(t, "told of a field that is not there", said, "no record has a field hosst: did you mean host?")
	if _, err := NewTable(&bytes.Buffer{}, Look{}, []string{"a b"}, nil); err == nil {
		t.Error("a b is a field")
	}
	got, _ = table(t, Look{}, nil, path, "id:none")
	want(t, "no records", got, "")
}

func TestColours(t *testing.T) {
	path := mixed(t)
	got, _ := table(t, Look{Colour: true}, []string{"id", "status", "outcome", "attempts"}, path, "kind:request,tunnel")
	for _, part := range []string{"\x1b[1mID\x1b[0m", "\x1b[31m503\x1b[0m", "\x1b[31mupstream_timeout\x1b[0m", "\x1b[33m403\x1b[0m", "\x1b[33m2\x1b[0m", "a      200  ok"} {
		wantText(t, "colours", got, part)
	}
	got, _ = table(t, Look{}, nil, path)
	if strings.Contains(got, "\x1b") {
		t.Error("colours without being asked")
	}
}

// hostile is a record as nobody of ours writes it.
const hostile = `{"time":"2026-11-26T12:00:00.000000000Z","id":"\u001b[2J\r\n=1+1","kind":"request","method":"=cmd|' /C calc'!A0","url":"http://x/\u202e` + "\u009b31m\u200f\xff" +
	`","host":"x","status":200,"outcome":"ok\u0007","redactions":{"\u001b":1,"p` + "\u009b" + `":2}}` + "\r"

// TestHostile: nothing that stands in a record moves a cursor, or is a formula.
func TestHostile(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "hostile.jsonl"), hostile+"\n")
	all := []string{"id", "method", "url", "outcome", "redactions", "where"}
	var outputs []string
	for _, fields := range [][]string{nil, all} {
		text, _ := table(t, Look{}, fields, path)
		outputs = append(outputs, text)
		var b bytes.Buffer
		lines, _ := NewLines(&b, true, fields, nil)
		if _, err := show(t, Query{Files: []string{path}}, lines); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b.Bytes()) {
			t.Errorf("%q is no JSON", b.String())
		}
		outputs = append(outputs, b.String())
	}
	for _, by := range []string{"outcome", "method"} {
		var b bytes.Buffer
		sums, _ := NewTotals(&b, by, "table", time.UTC)
		if _, err := show(t, Query{Files: []string{path}}, sums); err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, b.String())
	}
	for _, text := range outputs {
		if strings.ContainsAny(text, "\x1b\r\x07\u009b\u202e\u200f") || !utf8.ValidString(text) {
			t.Errorf("%q", text)
		}
	}

	var b bytes.Buffer
	s, _ := NewCSV(&b, all, nil)
	if _, err := show(t, Query{Files: []string{path}}, s); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatal(err, rows)
	}
	want(t, "the method", rows[1][1], "'=cmd|' /C calc'!A0")
	want(t, "the id", rows[1][0], `\x1b[2J\r\n=1+1`)
	for text, cell := range map[string]string{"＝1+1": "'＝1+1", "＠x": "'＠x", "-5": "-5", "+x": "'+x", "": "", "é": "é"} {
		want(t, text, spreadsheet(text), cell)
	}
}

func TestLines(t *testing.T) {
	path := mixed(t)
	var b bytes.Buffer
	s, _ := NewLines(&b, false, nil, nil)
	if _, err := show(t, Query{Files: []string{path}}, s); err != nil {
		t.Fatal(err)
	}
	want(t, "lines as they stand", b.String(), read(t, path))
	b.Reset()
	var k notes
	s, _ = NewLines(&b, false, []string{"id", "duration", "bytes", "attempts", "where", "tenant"}, k.tell)
	if _, err := show(t, Query{Files: []string{path}}, s, "id:b"); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	want(t, "chosen fields", len(m), 6)
	want(t, "chosen fields", fmt.Sprintln(m["duration_ms"], m["bytes"], m["where"]), "2000 3.150728e+06 API.example.com/v2/pay\n")
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	s, _ := NewCSV(&b, nil, nil)
	if _, err := show(t, Query{Files: []string{mixed(t)}}, s, "id:c,d"); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatal(err, rows)
	}
	want(t, "names", rows[0], csvFields)
	want(t, "a row", strings.Join(rows[1][1:], ","), "c,request,,[2001:db8::1]:99,GET,http://pay.example.com/?card=411111******1111,pay.example.com,,intercept,504,proxy,upstream_timeout,1,30000,0,0,0,0,pan:1")
}

// TestFieldsAreKnown: whatever a record of an exchange can have has a name here, for suggestions and for the CSV file.
func TestFieldsAreKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWriter(t, path, nil)
	w.call(call{id: "a", method: "GET", url: "https://a/?password=x", host: "a", tenant: "t", policy: "p", status: 200, by: "upstream", outcome: "ok", attempts: []int{200}, took: 1, wait: 1,
		detail: "d", breaker: "closed", observed: []string{"x"}})
	w.end()
	var r record
	r.parse([]byte(strings.Split(read(t, path), "\n")[1]))
	for _, f := range r.fields {
		if !slices.Contains(recordFields, string(f.key)) {
			t.Errorf("%s is not among recordFields", f.key)
		}
	}
}

func totals(t *testing.T, by, format, path string, words ...string) string {
	t.Helper()
	var b bytes.Buffer
	s, err := NewTotals(&b, by, format, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := show(t, Query{Files: []string{path}}, s, words...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTotals(t *testing.T) {
	path := mixed(t)
	want(t, "by host", "\n"+totals(t, "", "", path, "-kind:lifecycle"), `
HOST             RECORDS  OK  ERRORS  REFUSED  GONE  RETRIES  P50     P95     P99     UPLOAD   DOWNLOAD  REDACTIONS
api.example.com  2        1   1       0        0     1        87ms    2.00s   2.00s   4.9 KiB  3.0 MiB   -
169.254.169.254  1        0   0       1        0     0        1.0ms   1.0ms   1.0ms   0 B      0 B       -
other.test       1        1   0       0        0     1        1h0m0s  1h0m0s  1h0m0s  1.0 MiB  1 B       -
pay.example.com  1        0   1       0        0     0        30.00s  30.00s  30.00s  0 B      0 B       pan:1
total            5        2   2       1        0     2        1.99s   1h0m0s  1h0m0s  1.0 MiB  3.0 MiB   pan:1
1 more records are no exchanges: what administrators and the daemon did (kind:admin, kind:config, …)
`)
	for by, groups := range map[string]string{
		"tenant": "- billing shop total", "outcome": "ok destination_denied upstream_error upstream_timeout total", "status": "200 403 503 504 total",
		"client": "192.0.2.7 10.1.2.3 2001:db8::1 total", "hour": "2026-11-26 12:00 UTC|total", "day": "2026-11-26 total", "by": "proxy upstream total",
		"kind": "request tunnel total", "mode": "intercept tunnel total", "method": "GET CONNECT POST total", "policy": "- api.example.com /v1|total",
	} {
		var got []string
		for line := range strings.Lines(totals(t, by, "json", path)) {
			var m sum
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			want(t, "total", m.Total, m.Group == "total")
			got = append(got, m.Group)
		}
		separator := " "
		if strings.Contains(groups, "|") {
			got, groups = got[len(got)-2:], strings.TrimPrefix(groups, "- ")
			separator = "|"
		}
		want(t, "by "+by, strings.Join(got, separator), groups)
	}
	rows, err := csv.NewReader(strings.NewReader(totals(t, "host", "csv", path, "id:b"))).ReadAll()
	want(t, "CSV", fmt.Sprint(rows[1], err), "[api.example.com 1 0 1 0 0 1 2000 2000 2000 5000 3145728 ] <nil>")
	want(t, "nothing", totals(t, "", "json", path, "id:none"), `{"group":"total","by":"host","total":true,"records":0,"ok":0,"errors":0,"refused":0,"gone":0,"retries":0,"request_bytes":0,"response_bytes":0}`+"\n")
	if _, err := NewTotals(nil, "hots", "", nil); err == nil {
		t.Error("hots is no grouping")
	}
}

// TestTotalsAreBounded: however many hosts there are, memory is for a thousand, and nothing is left out of the sum.
func TestTotalsAreBounded(t *testing.T) {
	s, _ := NewTotals(&bytes.Buffer{}, "host", "json", time.UTC)
	var r record
	for i := range 3000 {
		line := fmt.Sprintf(`{"time":"2026-11-26T12:00:00Z","kind":"request","host":"h%d.test","outcome":"ok","redactions":{"k%d":1}}`, i, i)
		if !r.parse([]byte(line)) {
			t.Fatal(line)
		}
		_ = s.record(&r)
	}
	want(t, "groups", len(s.groups), maxGroups+1)
	want(t, "the rest", s.groups[other].records, 3000-maxGroups)
	want(t, "all", s.all.records, 3000)
	want(t, "kinds of redactions", len(s.all.redactions), 33)
	sum := 0.0
	for _, n := range s.all.redactions {
		sum += n
	}
	want(t, "redactions", sum, 3000)
}

// TestSketch: quantiles are within half a per cent of the true ones, in bounded memory, whatever the values are.
func TestSketch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s sketch
	values := make([]float64, 20_000)
	for i := range values {
		values[i] = math.Exp(rng.NormFloat64()*3 + 3)
		s.add(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99, 1} {
		got, _ := s.quantile(q)
		exact := values[int(math.Ceil(q*float64(len(values))))-1]
		if math.Abs(got-exact) > 0.0051*exact {
			t.Errorf("%v: %v, exactly %v", q, got, exact)
		}
	}
	for _, v := range []float64{0, -5, 1e-300, 1e300, math.MaxFloat64} {
		s.add(v)
	}
	if len(s.counts) > 3300 {
		t.Errorf("%d buckets", len(s.counts))
	}
	var none sketch
	if _, ok := none.quantile(0.5); ok {
		t.Error("a quantile of nothing")
	}
	none.add(0)
	got, ok := none.quantile(0.99)
	want(t, "of zeros", fmt.Sprint(got, ok), "0 true")
}

// TestDocumentation: the examples of the guide, and of the help, can be asked.
func TestDocumentation(t *testing.T) {
	examples := 0
	for line := range strings.Lines(read(t, "../../../../docs/audit.md")) {
		_, command, ok := strings.Cut(line, "httpowerd audit ")
		if !strings.HasPrefix(line, "    ") || !ok || strings.HasPrefix(command, "verify") {
			continue
		}
		var words []string
		for _, w := range strings.Fields(command) {
			if w = strings.Trim(w, "'"); strings.Contains(w, ":") {
				words = append(words, w)
			}
		}
		examples++
		if _, err := Parse(words, noon); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if examples < 8 {
		t.Errorf("%d examples", examples)
	}
	for line := range strings.Lines(read(t, "../../../../docs/audit.md")) {
		cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !ok || !strings.HasPrefix(cell, "`") || !strings.Contains(cell, ":") {
			continue
		}
		for _, w := range strings.Split(cell, ", ") {
			if _, err := Parse([]string{strings.Trim(w, "`")}, noon); err != nil {
				t.Errorf("%s: %v", w, err)
			}
		}
	}
	for _, k := range Keys() {
		if _, err := Parse([]string{k.Example}, noon); err != nil || !strings.HasPrefix(k.Example, k.Name+":") {
			t.Errorf("%s: %v", k.Example, err)
		}
	}
}
