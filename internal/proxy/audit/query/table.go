package query

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Look is how a table is shown.
type Look struct {
	Width  int  // of the terminal; 0: lines are not cut
	Colour bool // with escape sequences
	Zone   *time.Location
}

// sample is how many records a table looks at before it decides how wide its columns are.
const sample = 256

// widest is the most that a column other than the last one takes.
const widest = 40

// narrowest is what the last column has in any case, and roomy the width of a terminal from which on times are shown in full.
const (
	narrowest = 24
	roomy     = 120
)

// Table shows records to people.
type Table struct {
	w       *bufio.Writer
	look    Look
	columns []column
	own     bool // the columns were chosen
	chosen  *chosen
	rows    [][]cell // that wait for the widths
	sized   bool
	line    []byte
}

type column struct {
	field, title string
	right        bool // numbers
	width        int
}

type cell struct{ text, colour string }

// The columns where nobody chose; that of tenants only once there is one.
var (
	standard     = []string{"time", "status", "method", "duration_ms", "attempts", "outcome", "where"}
	tenantColumn = column{field: "tenant", title: "TENANT"}
	titles       = map[string]string{"where": "HOST AND PATH", "duration_ms": "TOOK", "attempts": "TRIES", "limit_wait_ms": "WAITED", "overhead_ms": "OVERHEAD",
		"trace_id": "TRACE", "status_by": "BY", "request_bytes": "UPLOAD", "response_bytes": "DOWNLOAD"}
	rights = []string{"status", "duration_ms", "attempts", "limit_wait_ms", "overhead_ms", "request_bytes", "response_bytes", "bytes", "seq"}
)

// NewTable makes a sink for people. Without fields it shows what is asked for most.
func NewTable(w io.Writer, look Look, fields []string, tell func(string)) (*Table, error) {
	if look.Zone == nil {
		look.Zone = time.Local
	}
	c, err := choose(fields, tell)
	if err != nil {
		return nil, err
	}
	t := &Table{w: bufio.NewWriterSize(w, 32<<10), look: look, chosen: c, own: len(fields) > 0}
	names := standard
	if t.own {
		names = nil
		for _, f := range c.fields {
			names = append(names, f.name)
		}
	}
	for _, name := range names {
		k := column{field: name, title: strings.ToUpper(name), right: slices.Contains(rights, name)}
		if title, ok := titles[name]; ok {
			k.title = title
		}
		if name == "time" {
			k.title = "TIME (" + time.Now().In(look.Zone).Format("MST") + ")"
		}
		t.columns = append(t.columns, k)
	}
	return t, nil
}

func (t *Table) record(r *record) error {
	if !t.own && len(r.get("tenant")) > 2 && !slices.ContainsFunc(t.columns, func(c column) bool { return c.field == "tenant" }) {
		if err := t.idle(); err != nil { // rows before had none
			return err
		}
		t.columns = slices.Insert(t.columns, len(t.columns)-1, tenantColumn)
		t.sized = false
	}
	row := make([]cell, len(t.columns))
	for i, c := range t.columns {
		row[i] = t.cell(r, c.field)
		if t.own && row[i].text != "" {
			t.chosen.fields[i].seen = true
		}
	}
	if t.sized {
		t.write(row)
		return nil
	}
	t.rows = append(t.rows, row)
	if len(t.rows) == sample {
		t.size()
	}
	return nil
}

func (t *Table) idle() error {
	t.size()
	return t.w.Flush()
}

func (t *Table) end() error {
	t.chosen.tellMissing()
	return t.idle()
}

// size decides how wide the columns are, and shows what waited for it.
func (t *Table) size() {
	if len(t.rows) == 0 {
		return
	}
	for i := range t.columns {
		c := &t.columns[i]
		c.width = utf8.RuneCountInString(c.title)
		for _, row := range t.rows {
			c.width = max(c.width, min(widest, utf8.RuneCountInString(row[i].text)))
		}
	}
	head := make([]cell, len(t.columns))
	for i, c := range t.columns {
		head[i] = cell{c.title, "1"}
	}
	t.write(head)
	for _, row := range t.rows {
		t.write(row)
	}
	t.rows, t.sized = t.rows[:0], true
}

// write shows a row. What is too wide for its column moves the others; the last column takes what is left of the line.
func (t *Table) write(row []cell) {
	t.line = t.line[:0]
	at, end := 0, 0 // end: behind what is not padding
	for i, c := range row {
		text, pad := c.text, 0
		if i == len(row)-1 {
			if t.look.Width > 0 {
				text = clip(text, max(narrowest, t.look.Width-at))
			}
		} else {
			n := utf8.RuneCountInString(text)
			pad = max(0, t.columns[i].width-n)
			at += n + pad + 2
		}
		if t.columns[i].right {
			t.line, pad = spaces(t.line, pad), 0
		}
		t.line = t.look.paint(t.line, text, c.colour)
		if text != "" {
			end = len(t.line)
		}
		t.line = spaces(t.line, pad+2)
	}
	_, _ = t.w.Write(append(t.line[:end], '\n')) // Flush tells
}

func (l Look) paint(b []byte, text, colour string) []byte {
	if !l.Colour || colour == "" || text == "" {
		return append(b, text...)
	}
	return append(append(append(append(append(b, "\x1b["...), colour...), 'm'), text...), "\x1b[0m"...)
}

func spaces(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

// clip cuts a text to a width.
func clip(s string, width int) string {
	n := 0
	for i := range s {
		if n == width-1 && utf8.RuneCountInString(s[i:]) > 1 {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// The colours of what went wrong: red for failures, yellow for what somebody may want to know, grey for what is nobody's fault.
const (
	red    = "31"
	yellow = "33"
	grey   = "2"
)

func (t *Table) cell(r *record, field string) cell {
	text := printable(nil, cellOf(r, field))
	switch field {
	case "time":
		if when, ok := r.time(); ok {
			return cell{when.In(t.look.Zone).Format(t.look.clock()), ""}
		}
	case "duration_ms", "limit_wait_ms", "overhead_ms":
		if ms, ok := r.number(field); ok {
			return cell{took(ms), ""}
		}
	case "method":
		if !r.exchange() && len(text) == 0 { // where the method stands, the kind says what it is
			return cell{string(printable(nil, r.str("kind"))), grey}
		}
		if string(r.get("kind")) == `"tunnel"` && len(text) == 0 {
			return cell{"CONNECT", ""}
		}
	case "attempts":
		if n := r.attempts(nil); n > 1 {
			return cell{string(text), yellow}
		}
	case "status", "outcome":
		if !r.exchange() && field == "outcome" && len(text) == 0 {
			return cell{string(printable(nil, r.str("event"))), grey}
		}
		return cell{string(text), colourOf(r, field)}
	}
	return cell{string(text), ""}
}

// clock is how times are written.
func (l Look) clock() string {
	if l.Width > 0 && l.Width < roomy {
		return "01-02 15:04:05"
	}
	return "2006-01-02 15:04:05.000"
}

func colourOf(r *record, field string) string {
	switch class(string(r.str("outcome"))) {
	case failed:
		return red
	case refused:
		return yellow
	case gone:
		return grey
	}
	if status, ok := r.number("status"); ok && status >= 400 && field == "status" {
		return yellow
	}
	return ""
}

// took is a duration that people read at a glance.
func took(ms float64) string {
	switch {
	case ms < 0.0005:
		return "0"
	case ms < 1:
		return strconv.FormatFloat(ms*1000, 'f', 0, 64) + "µs"
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 1, 64) + "ms"
	case ms < 999.5:
		return strconv.FormatFloat(ms, 'f', 0, 64) + "ms"
	case ms < 59_995:
		return strconv.FormatFloat(ms/1000, 'f', 2, 64) + "s"
	case ms > 1e15:
		return "∞"
	}
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}
