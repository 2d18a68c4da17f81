package query

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"httpowerd/internal/setting"
)

// Lines shows records as JSON, one object a line: as they stand, or cut down to fields. For a terminal, what could move its cursor is escaped.
type Lines struct {
	w        *bufio.Writer
	terminal bool
	chosen   *chosen
	b        []byte
}

// NewLines makes a sink of JSON lines. Without fields they are as they stand.
func NewLines(w io.Writer, terminal bool, fields []string, tell func(string)) (*Lines, error) {
	c, err := choose(fields, tell)
	return &Lines{w: bufio.NewWriterSize(w, 64<<10), terminal: terminal, chosen: c}, err
}

func (o *Lines) record(r *record) error {
	o.b = o.b[:0]
	if len(o.chosen.fields) == 0 {
		o.b = append(o.b, r.line...)
	} else {
		o.b = append(o.b, '{')
		for i := range o.chosen.fields {
			f := &o.chosen.fields[i]
			raw := r.get(f.name)
			switch f.name {
			case "bytes":
				raw = cellOf(r, f.name)
			case "where":
				raw, _ = json.Marshal(string(short(r))) // a string always can be
			}
			if len(raw) == 0 {
				continue
			}
			f.seen = true
			if len(o.b) > 1 {
				o.b = append(o.b, ',')
			}
			o.b = append(strconv.AppendQuote(o.b, f.name), ':')
			o.b = append(o.b, raw...)
		}
		o.b = append(o.b, '}')
	}
	line := o.b
	if o.terminal {
		line = harmless(line)
	}
	_, _ = o.w.Write(line) // the next one tells
	return o.w.WriteByte('\n')
}

func (o *Lines) idle() error { return o.w.Flush() }

func (o *Lines) end() error {
	o.chosen.tellMissing()
	return o.w.Flush()
}

// harmless is a line of JSON in which nothing moves a cursor; it still means the same. The daemon's own lines need no change.
func harmless(line []byte) []byte {
	plain := true
	for _, c := range line {
		if c < 0x20 || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return line
	}
	out := make([]byte, 0, len(line)+64)
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case r < 0x20: // JSON allows these between its tokens only
			out = append(out, ' ')
		case r == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case strconv.IsPrint(r):
			out = append(out, line[:n]...)
		case r > 0xffff:
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		line = line[n:]
	}
	return out
}

// chosen are fields that somebody asked for.
type chosen struct {
	fields []wanted
	tell   func(string)
}

type wanted struct {
	name string // in the record
	seen bool
}

// fullName is what a record calls what a filter has a shorter name for.
func fullName(name string) string {
	for _, k := range keys {
		if k.Name == name && k.field != "" {
			return k.field
		}
	}
	return name
}

func choose(names []string, tell func(string)) (*chosen, error) {
	c := &chosen{tell: tell}
	for _, name := range names {
		name = strings.ToLower(strings.TrimSpace(name))
		if !IsName(strings.TrimRight(name, "0123456789")) {
			return nil, fmt.Errorf("%q is no field: write names of fields with a comma between them, such as time,host,status", name)
		}
		if name != "bytes" {
			name = fullName(name)
		}
		c.fields = append(c.fields, wanted{name: name})
	}
	return c, nil
}

// tellMissing tells of fields that no record had: there may be none of that name.
func (c *chosen) tellMissing() {
	for _, f := range c.fields {
		if f.seen || slices.Contains(recordFields, f.name) {
			continue
		}
		c.tell("no record has a field " + f.name + string(setting.DidYouMean(f.name, recordFields)))
	}
}

// recordFields are the fields that exchanges can have, in the order of a record.
var recordFields = []string{"time", "id", "trace_id", "kind", "tenant", "client", "method", "url", "host", "policy", "mode", "status", "status_by", "outcome", "detail",
	"attempts", "duration_ms", "overhead_ms", "limit_wait_ms", "request_bytes", "response_bytes", "cache", "breaker", "dedup", "credential", "not_retried", "observed",
	"unapplied", "redactions", "seq", "prev", "hash", "event", "bytes", "where"}

// csvFields is what a CSV file holds where nobody chose.
var csvFields = []string{"time", "id", "kind", "tenant", "client", "method", "url", "host", "policy", "mode", "status", "status_by", "outcome", "attempts", "duration_ms",
	"overhead_ms", "limit_wait_ms", "request_bytes", "response_bytes", "redactions"}

// CSV shows records as comma-separated values (RFC 4180) with a line of names.
type CSV struct {
	w      *csv.Writer
	chosen *chosen
	row    []string
	begun  bool
}

// NewCSV makes a sink of CSV.
func NewCSV(w io.Writer, fields []string, tell func(string)) (*CSV, error) {
	if len(fields) == 0 {
		fields = csvFields
	}
	c, err := choose(fields, tell)
	return &CSV{w: csv.NewWriter(w), chosen: c}, err
}

func (o *CSV) head() {
	if o.begun {
		return
	}
	o.begun = true
	for _, f := range o.chosen.fields {
		o.row = append(o.row, f.name)
	}
	_ = o.w.Write(o.row) // Flush tells
}

func (o *CSV) record(r *record) error {
	o.head()
	o.row = o.row[:0]
	for i := range o.chosen.fields {
		f := &o.chosen.fields[i]
		text := cellOf(r, f.name)
		f.seen = f.seen || len(text) > 0
		o.row = append(o.row, spreadsheet(string(printable(nil, text))))
	}
	return o.w.Write(o.row)
}

// spreadsheet keeps what a client wrote from being a formula, which programs that open such files would run.
func spreadsheet(s string) string {
	if first, _ := utf8.DecodeRuneInString(s); s == "" || !strings.ContainsRune("=+-@＝＋－＠", first) { // some read the wide ones as the others
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	return "'" + s
}

func (o *CSV) idle() error {
	o.w.Flush()
	return o.w.Error()
}

func (o *CSV) end() error {
	o.head()
	o.chosen.tellMissing()
	return o.idle()
}

// cellOf is what a table or a CSV file shows of a field.
func cellOf(r *record, name string) []byte {
	switch name {
	case "attempts":
		if n := r.attempts(nil); n > 0 || r.exchange() {
			return strconv.AppendInt(nil, int64(n), 10)
		}
		return nil
	case "bytes":
		if n, ok := traffic(r, ""); ok {
			return strconv.AppendFloat(nil, n, 'f', -1, 64)
		}
		return nil
	case "where":
		return short(r)
	case "redactions":
		var b []byte
		r.redactions(func(kind []byte, n float64) {
			if len(b) > 0 {
				b = append(b, ' ')
			}
			b = append(append(b, kind...), ':')
			b = strconv.AppendFloat(b, n, 'f', -1, 64)
		})
		return b
	}
	return r.str(name)
}

// short is what was asked, without the scheme; of a record that is no exchange, what it says.
func short(r *record) []byte {
	if !r.exchange() {
		return told(r)
	}
	u := where(r)
	if _, rest, ok := bytes.Cut(u, []byte("://")); ok {
		u = rest
	}
	return u
}

// told is what a record says that is no exchange: its own fields, as they stand.
func told(r *record) []byte {
	var b []byte
	for _, f := range r.fields {
		switch string(f.key) {
		case "time", "kind", "event", "seq", "prev", "hash":
			continue
		}
		text := r.plain(0, f.value)
		if len(text) == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, f.key...), '='), text...)
	}
	return b
}
