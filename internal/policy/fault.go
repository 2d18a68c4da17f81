package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"httpowerd/internal/setting"
)

// Fault is one thing wrong, or worth a warning, in a configuration file.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // of the key; 0 where the value came from a flag or was not written at all
	Col     int    `json:"column"`
	Path    string `json:"path"` // hosts["api.example.com"].retry.attempts; "" for the file itself
	Message string `json:"message"`
}

// String is FILE:LINE:COL: path: message.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Col)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path)
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults is everything wrong with a configuration, in the order of its files and lines. An empty one is no error.
type Faults []Fault

// Error lists the faults, one on a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// collector gathers faults; what several levels inherit is reported once.
type collector struct {
	faults []Fault
	seen   map[Fault]bool
	hidden *hidden
	order  map[string]int // files as they were read, the first is 0
}

func (c *collector) add(at position, path, format string, args ...any) {
	c.of(nil, at, path, format, args)
}

func (c *collector) at(n *node, format string, args ...any) { c.of(n, n.at, n.path, format, args) }

// of adds a fault of n, nil where it is of no value.
func (c *collector) of(n *node, at position, path, format string, args []any) {
	q := c.hidden.quoter(n)
	f := Fault{File: at.file, Line: at.line, Col: at.column, Path: q.path(path), Message: short(q.message(format, args))}
	if c.seen == nil {
		c.seen = map[Fault]bool{}
	}
	if !c.seen[f] {
		c.seen[f] = true
		c.faults = append(c.faults, f)
	}
}

// room adds a room's fault of n.
func (c *collector) room(n *node, at position, path string, f setting.Fault) {
	if f.Format == "" {
		f.Format, f.Args = "%s", []any{f.Message}
	}
	c.of(n, at, path, f.Format, f.Args)
}

// longest bounds what a fault quotes of a file, in bytes.
const longest = 2 << 10

func short(s string) string {
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…"
}

// sorted orders by file (the main file first, then as they were included), line and column.
func (c *collector) sorted() []Fault {
	rank := func(f Fault) int {
		if i, ok := c.order[f.File]; ok {
			return i
		}
		return len(c.order)
	}
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Path, b.Path))
	})
	return c.faults
}

// didYouMean is the hint that every message about an unknown word ends with.
var didYouMean = setting.DidYouMean
