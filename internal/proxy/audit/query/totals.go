package query

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"httpowerd/internal/setting"
)

// maxGroups bounds how many groups are told apart; what comes later is "other". Memory depends on it alone.
const maxGroups = 1000

// other is the group of what found no group of its own.
const other = "(other)"

// Groupings are what totals can be made by.
var Groupings = []string{"host", "tenant", "outcome", "status", "policy", "method", "client", "hour", "day", "mode", "kind", "by"}

// Formats are how records and totals can be shown.
var Formats = []string{"table", "json", "csv"}

// Totals adds records up.
type Totals struct {
	w       io.Writer
	by      string
	format  string
	zone    *time.Location
	groups  map[string]*group
	all     group
	skipped int // records that are no exchanges
}

// group is the sum of some exchanges.
type group struct {
	name                               string
	records, ok, failed, refused, gone uint64
	retries                            uint64
	in, out                            float64
	took                               sketch
	redactions                         map[string]float64
}

// NewTotals makes a sink that shows, at the end, one line for each group and one for all.
func NewTotals(w io.Writer, by, format string, zone *time.Location) (*Totals, error) {
	if by == "" {
		by = "host"
	}
	if !slices.Contains(Groupings, by) {
		return nil, fmt.Errorf("totals are by %s, and not by %q%s", strings.Join(Groupings, ", "), by, setting.DidYouMean(by, Groupings))
	}
	if zone == nil {
		zone = time.Local
	}
	return &Totals{w: w, by: by, format: format, zone: zone, groups: map[string]*group{}, all: group{name: "total"}}, nil
}

// The classes of outcomes.
const (
	well = iota
	failed
	refused
	gone
)

// class sorts an outcome: what the upstream failed at, what the proxy refused, and whom nobody answered any more.
func class(outcome string) int {
	switch {
	case outcome == "ok" || outcome == "":
		return well
	case outcome == "client_gone":
		return gone
	case strings.HasPrefix(outcome, "upstream_") || outcome == "internal":
		return failed
	}
	return refused
}

func (t *Totals) record(r *record) error {
	if !r.exchange() {
		t.skipped++
		return nil
	}
	name := t.key(r)
	g := t.groups[string(name)]
	if g == nil {
		if len(t.groups) >= maxGroups {
			name = []byte(other)
		}
		if g = t.groups[string(name)]; g == nil {
			g = &group{name: string(printable(nil, name))}
			t.groups[string(name)] = g
		}
	}
	t.add(g, r)
	t.add(&t.all, r)
	return nil
}

// key is the group of a record.
func (t *Totals) key(r *record) []byte {
	var name []byte
	switch t.by {
	case "hour", "day":
		layout := "2006-01-02"
		if t.by == "hour" {
			layout = "2006-01-02 15:00 MST"
		}
		if when, ok := r.time(); ok {
			name = when.In(t.zone).AppendFormat(nil, layout)
		}
	case "client":
		if name = r.str("client"); len(name) > 0 {
			if a, ok := clientOf(name); ok {
				name = a.AppendTo(nil)
			}
		}
	default:
		name = r.str(fullName(t.by))
	}
	if len(name) == 0 {
		return []byte("-")
	}
	return name[:min(len(name), 1024)]
}

func (t *Totals) add(g *group, r *record) {
	g.records++
	switch class(string(r.str("outcome"))) {
	case well:
		g.ok++
	case failed:
		g.failed++
	case refused:
		g.refused++
	case gone:
		g.gone++
	}
	g.retries += uint64(max(0, r.attempts(nil)-1))
	if ms, ok := r.number("duration_ms"); ok {
		g.took.add(ms)
	}
	sent, _ := r.number("request_bytes")
	received, _ := r.number("response_bytes")
	g.in, g.out = g.in+sent, g.out+received
	r.redactions(func(kind []byte, n float64) {
		if g.redactions == nil {
			g.redactions = map[string]float64{}
		}
		k := string(printable(nil, kind[:min(len(kind), 64)]))
		if _, known := g.redactions[k]; !known && len(g.redactions) >= 32 {
			k = other
		}
		g.redactions[k] += n
	})
}

func (t *Totals) idle() error { return nil }

func (t *Totals) end() error {
	groups := slices.SortedFunc(maps.Values(t.groups), func(a, b *group) int {
		if t.by == "hour" || t.by == "day" {
			return cmp.Compare(a.name, b.name)
		}
		return cmp.Or(cmp.Compare(b.records, a.records), cmp.Compare(a.name, b.name))
	})
	w := bufio.NewWriter(t.w)
	switch t.format {
	case "json":
		t.writeJSON(w, groups)
	case "csv":
		t.writeCSV(w, groups)
	default:
		t.writeTable(w, groups)
	}
	return w.Flush()
}

func (t *Totals) writeTable(w io.Writer, groups []*group) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\tRECORDS\tOK\tERRORS\tREFUSED\tGONE\tRETRIES\tP50\tP95\tP99\tUPLOAD\tDOWNLOAD\tREDACTIONS\n", strings.ToUpper(t.by))
	for _, g := range append(groups, &t.all) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", g.name, g.records, g.ok, g.failed, g.refused, g.gone, g.retries,
			g.quantile(0.5), g.quantile(0.95), g.quantile(0.99), amount(g.in), amount(g.out), g.hidden())
	}
	_ = table.Flush() // the buffer below tells
	if t.skipped > 0 {
		fmt.Fprintf(w, "%d more records are no exchanges: what administrators and the daemon did (kind:admin, kind:config, …)\n", t.skipped)
	}
}

func (g *group) quantile(q float64) string {
	if v, ok := g.took.quantile(q); ok {
		return took(v)
	}
	return "-"
}

// hidden is what was redacted, by kind.
func (g *group) hidden() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(g.redactions)) {
		parts = append(parts, k+":"+strconv.FormatFloat(g.redactions[k], 'f', -1, 64))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}

// sum is a group for programs.
type sum struct {
	Group      string             `json:"group"`
	By         string             `json:"by"`
	Total      bool               `json:"total,omitempty"` // of all groups
	Records    uint64             `json:"records"`
	OK         uint64             `json:"ok"`
	Errors     uint64             `json:"errors"`
	Refused    uint64             `json:"refused"`
	Gone       uint64             `json:"gone"`
	Retries    uint64             `json:"retries"`
	P50        *float64           `json:"p50_ms,omitempty"`
	P95        *float64           `json:"p95_ms,omitempty"`
	P99        *float64           `json:"p99_ms,omitempty"`
	In         float64            `json:"request_bytes"`
	Out        float64            `json:"response_bytes"`
	Redactions map[string]float64 `json:"redactions,omitempty"`
}

func (t *Totals) writeJSON(w io.Writer, groups []*group) {
	e := json.NewEncoder(w)
	for _, g := range append(groups, &t.all) {
		point := func(q float64) *float64 {
			v, ok := g.took.quantile(q)
			if !ok {
				return nil
			}
			v = math.Round(v*1000) / 1000
			return &v
		}
		_ = e.Encode(sum{g.name, t.by, g == &t.all, g.records, g.ok, g.failed, g.refused, g.gone, g.retries, point(0.5), point(0.95), point(0.99), g.in, g.out, g.redactions})
	}
}

func (t *Totals) writeCSV(w io.Writer, groups []*group) {
	out := csv.NewWriter(w)
	_ = out.Write([]string{t.by, "records", "ok", "errors", "refused", "gone", "retries", "p50_ms", "p95_ms", "p99_ms", "request_bytes", "response_bytes", "redactions"})
	for _, g := range append(groups, &t.all) {
		row := []string{spreadsheet(g.name)}
		for _, n := range []uint64{g.records, g.ok, g.failed, g.refused, g.gone, g.retries} {
			row = append(row, strconv.FormatUint(n, 10))
		}
		for _, q := range []float64{0.5, 0.95, 0.99} {
			text := ""
			if v, ok := g.took.quantile(q); ok {
				text = strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64)
			}
			row = append(row, text)
		}
		hidden := ""
		if len(g.redactions) > 0 {
			hidden = g.hidden()
		}
		_ = out.Write(append(row, strconv.FormatFloat(g.in, 'f', -1, 64), strconv.FormatFloat(g.out, 'f', -1, 64), spreadsheet(hidden)))
	}
	out.Flush()
}

// amount is a number of bytes that people read at a glance.
func amount(n float64) string {
	unit := 0
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	for n >= 1024 && unit < len(units)-1 {
		n /= 1024
		unit++
	}
	if unit == 0 || n >= 100 {
		return strconv.FormatFloat(n, 'f', 0, 64) + " " + units[unit]
	}
	return strconv.FormatFloat(n, 'f', 1, 64) + " " + units[unit]
}

// sketch remembers how durations are spread, each to within half a per cent (DDSketch, arXiv:1908.10693), in a few kilobytes.
type sketch struct {
	n       uint64
	zeros   uint64 // below the smallest that is told apart
	low     int    // the bucket of counts[0]
	counts  []uint64
	lowest  float64
	highest float64
}

const (
	growth   = 1.01
	smallest = 1e-3 // a microsecond, which is what records are rounded to
	largest  = 1e11 // three years
)

func bucketOf(v float64) int { return int(math.Ceil(math.Log(v) / math.Log(growth))) }

func (s *sketch) add(v float64) {
	if s.n++; s.n == 1 {
		s.lowest, s.highest = v, v
	}
	s.lowest, s.highest = min(s.lowest, v), max(s.highest, v)
	if !(v >= smallest) {
		s.zeros++
		return
	}
	b := bucketOf(min(v, largest))
	switch {
	case len(s.counts) == 0:
		s.low = b
		s.counts = append(s.counts, 0)
	case b < s.low:
		s.counts = slices.Insert(s.counts, 0, make([]uint64, s.low-b)...)
		s.low = b
	case b >= s.low+len(s.counts):
		s.counts = append(s.counts, make([]uint64, b-s.low-len(s.counts)+1)...)
	}
	s.counts[b-s.low]++
}

// quantile is the value below which the share q of all lies. False: there are none.
func (s *sketch) quantile(q float64) (float64, bool) {
	if s.n == 0 {
		return 0, false
	}
	rank := uint64(math.Ceil(q * float64(s.n)))
	if rank == s.n {
		return s.highest, true
	}
	if rank <= s.zeros {
		return 0, true
	}
	seen := s.zeros
	for i, n := range s.counts {
		if seen += n; seen >= rank {
			return max(s.lowest, min(s.highest, 2*math.Pow(growth, float64(s.low+i))/(growth+1))), true
		}
	}
	return s.highest, true
}
