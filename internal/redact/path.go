package redact

import (
	"fmt"
	"strconv"
	"strings"
)

// The bounds of a path.
const (
	maxPaths    = 64
	maxPath     = 512
	maxSegments = 32
)

// path is a JSONPath (RFC 9535) of names, indices, wildcards and descents; filters and slices are not part of it.
type path []segment

// segment selects children.
type segment struct {
	name  string
	index int  // where isIndex
	any   bool // every child
	deep  bool // at any depth below
	list  bool // index counts
}

// parsePath reads one, and says what is wrong.
func parsePath(text string) (path, error) {
	rest, ok := strings.CutPrefix(text, "$")
	if !ok {
		return nil, fmt.Errorf("%q does not begin with $: write it as in $.customer.name", text)
	}
	var p path
	for rest != "" {
		var s segment
		if after, deep := strings.CutPrefix(rest, ".."); deep {
			s.deep = true
			if rest = after; !strings.HasPrefix(rest, "[") {
				rest = "." + rest
			}
		}
		var err error
		if s, rest, err = s.parse(rest); err != nil {
			return nil, fmt.Errorf("%q is no path: %w", text, err)
		}
		if p = append(p, s); len(p) > maxSegments {
			return nil, fmt.Errorf("%q has more than %d parts", text, maxSegments)
		}
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("%q is the whole document: name what is in it", text)
	}
	return p, nil
}

// parse reads what a segment selects.
func (s segment) parse(rest string) (segment, string, error) {
	if after, ok := strings.CutPrefix(rest, "."); ok {
		n := strings.IndexAny(after, ".[")
		if n < 0 {
			n = len(after)
		}
		name := after[:n]
		switch {
		case name == "":
			return s, "", fmt.Errorf("a name is missing")
		case name == "*":
			s.any = true
		case strings.ContainsAny(name, " '\"]?()@,:"):
			return s, "", fmt.Errorf("a name with such characters stands in brackets and quotes, as in $['%s']", name)
		default:
			s.name = name
		}
		return s, after[n:], nil
	}
	after, ok := strings.CutPrefix(rest, "[")
	if !ok {
		return s, "", fmt.Errorf("%q is neither .name nor [index]", rest)
	}
	if after != "" && (after[0] == '\'' || after[0] == '"') {
		name, tail, closed := strings.Cut(after[1:], after[:1]+"]")
		if !closed || name == "" {
			return s, "", fmt.Errorf("a quote or ] is missing")
		}
		s.name = name
		return s, tail, nil
	}
	inside, tail, closed := strings.Cut(after, "]")
	if !closed {
		return s, "", fmt.Errorf("] is missing")
	}
	if inside == "*" {
		s.any = true
		return s, tail, nil
	}
	n, err := strconv.Atoi(inside)
	if err != nil || n < 0 {
		return s, "", fmt.Errorf("[%s] is no index: filters, slices and lists are not supported", inside)
	}
	s.list, s.index = true, n
	return s, tail, nil
}

// step moves on to a child, which has a name or, where index is not negative, is the element of a list. Bit n of states says that n segments are
// behind.
func (p path) step(states uint64, name string, index int) (next uint64) {
	for i := range p {
		if states>>i&1 == 0 {
			continue
		}
		s := &p[i]
		if s.deep {
			next |= 1 << i
		}
		if s.any || s.list && index == s.index || !s.list && index < 0 && s.name == name {
			next |= 2 << i
		}
	}
	return next
}

// pathReader follows a document's paths. It has a row of states, one for each path, for each level that is open.
type pathReader struct {
	paths   []path
	states  []uint64
	child   []uint64 // of the value that comes
	indices []int    // of the next element, by level
}

// begin is for a value at the top.
func (w *pathReader) begin() {
	w.child = w.child[:0]
	for range w.paths {
		w.child = append(w.child, 1)
	}
}

// enter prepares for a child and tells whether a path ends with it.
func (w *pathReader) enter(name string, index int) (ends bool) {
	w.child = w.child[:0]
	row := w.states[max(0, len(w.states)-len(w.paths)):]
	for k, p := range w.paths {
		next := uint64(0)
		if k < len(row) {
			next = p.step(row[k], name, index)
		}
		w.child = append(w.child, next)
		ends = ends || next>>len(p)&1 == 1
	}
	return ends
}

// element is enter for the next element of the list that is open.
func (w *pathReader) element() bool {
	last := len(w.indices) - 1
	w.indices[last]++
	return w.enter("", w.indices[last]-1)
}

// maxPathDepth bounds the memory for states. Deeper than that nobody writes; what is there is hidden as a whole.
const maxPathDepth = 10_000

// full tells whether what opens now is too deep to be followed.
func (w *pathReader) full() bool { return len(w.indices) >= maxPathDepth }

func (w *pathReader) open() {
	w.states = append(w.states, w.child...)
	w.indices = append(w.indices, 0)
}

func (w *pathReader) close() {
	if n := len(w.indices); n > 0 {
		w.states, w.indices = w.states[:len(w.states)-len(w.paths)], w.indices[:n-1]
	}
}
