package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"httpowerd/internal/swar"
)

// The bounds of Literals. A shorter value occurs by chance; a longer one is no key.
const (
	minLiteral  = 6
	maxLiteral  = 4096
	maxLiterals = 1024
)

// Literals are values known to be secret: configured keys, credentials that were given out. A Redactor that has them (Shared.On) hides each
// wherever it occurs, as it is and spelt for URLs, JSON, base64 (also in the midst of other text, as in Basic credentials) and hexadecimal.
//
// Its zero value is empty and ready. It is safe for concurrent use; readers take no lock, and an empty one costs nothing.
type Literals struct {
	mu      sync.Mutex
	secrets []literal // the oldest first
	set     atomic.Pointer[literalSet]
	version atomic.Uint64 // of the set: it is counted up behind each change
}

// literal is a value with all its spellings.
type literal struct {
	value   string
	needles []string
}

// literalSet is made anew at each change.
type literalSet struct {
	bloom   [1 << 16 / 64]uint64
	needles map[uint32]*needles // by their first four bytes
}

// needles are spellings in their order, each with the place of the longest other one that it begins with, or -1.
type needles struct {
	list []string
	up   []int32
}

func newNeedles(list []string) *needles {
	slices.Sort(list)
	n := &needles{list: slices.Compact(list)}
	n.up = make([]int32, len(n.list))
	for i := range n.list {
		up := int32(i) - 1
		for up >= 0 && !strings.HasPrefix(n.list[i], n.list[up]) {
			up = n.up[up]
		}
		n.up[i] = up
	}
	return n
}

// longest is the length of the longest one that s begins with, or 0. Whoever sends many that are alike makes it little slower: what s begins with is the
// last one that does not come behind s, or begins that one, and then it is no longer than what that one has in common with s.
func (n *needles) longest(s string) int {
	at, found := slices.BinarySearch(n.list, s)
	if found {
		return len(s)
	}
	if at == 0 {
		return 0
	}
	k := int32(at) - 1
	for common := commonPrefix(s, n.list[k]); k >= 0; k = n.up[k] {
		if l := len(n.list[k]); l <= common {
			return l
		}
	}
	return 0
}

// commonPrefix is the length of what both begin with.
func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i+8 <= n && swar.Word(a[i:]) == swar.Word(b[i:]) {
		i += 8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// Add adds a value and tells whether it is hidden from now on; values below 6 bytes and above 4 KiB are not. Beyond 1024 values the oldest goes.
func (l *Literals) Add(s Secret) bool {
	value := s.Reveal()
	if len(value) < minLiteral || len(value) > maxLiteral {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index(value) >= 0 {
		return true
	}
	added := literal{value, spellings(value)}
	l.secrets = append(l.secrets, added)
	if len(l.secrets) > maxLiterals {
		l.secrets = slices.Delete(l.secrets, 0, 1)
		l.rebuild()
		return true
	}
	set := &literalSet{needles: map[uint32]*needles{}}
	if old := l.set.Load(); old != nil {
		set.bloom, set.needles = old.bloom, maps.Clone(old.needles)
	}
	set.add(added.needles)
	l.replace(set)
	return true
}

// AddAll is Add for each in turn, but makes the set of all spellings once.
func (l *Literals) AddAll(secrets ...Secret) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[string]bool{}
	for _, s := range l.secrets {
		known[s.value] = true
	}
	changed := false
	for _, s := range secrets {
		value := s.Reveal()
		if len(value) < minLiteral || len(value) > maxLiteral || known[value] {
			continue
		}
		l.secrets, known[value], changed = append(l.secrets, literal{value: value}), true, true
		if len(l.secrets) > maxLiterals {
			delete(known, l.secrets[0].value)
			l.secrets = l.secrets[1:]
		}
	}
	if !changed {
		return
	}
	l.secrets = slices.Clone(l.secrets) // what went is not kept in memory
	for i := range l.secrets {
		if s := &l.secrets[i]; s.needles == nil {
			s.needles = spellings(s.value)
		}
	}
	l.rebuild()
}

// Remove takes a value away.
func (l *Literals) Remove(s Secret) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.index(s.Reveal()); i >= 0 {
		l.secrets = slices.Delete(l.secrets, i, i+1)
		l.rebuild()
	}
}

func (l *Literals) index(value string) int {
	return slices.IndexFunc(l.secrets, func(s literal) bool { return s.value == value })
}

// some tells whether there are any.
func (l *Literals) some() bool { return l != nil && l.set.Load() != nil }

// Len is how many values there are.
func (l *Literals) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.secrets)
}

func (l *Literals) replace(set *literalSet) {
	l.set.Store(set)
	l.version.Add(1)
}

func (l *Literals) rebuild() {
	if len(l.secrets) == 0 {
		l.replace(nil)
		return
	}
	set := &literalSet{needles: map[uint32]*needles{}}
	var all []string
	for _, s := range l.secrets {
		all = append(all, s.needles...)
	}
	set.add(all)
	l.replace(set)
}

// add adds spellings. Lists are never changed: other sets may have them too.
func (set *literalSet) add(spelt []string) {
	more := map[uint32][]string{}
	for _, n := range spelt {
		key := uint32(swar.Half(n))
		more[key] = append(more[key], n)
	}
	for key, list := range more {
		h := literalHash(key)
		set.bloom[h>>6] |= 1 << (h & 63)
		if old := set.needles[key]; old != nil {
			list = append(list, old.list...)
		}
		set.needles[key] = newNeedles(list)
	}
}

func literalHash(key uint32) uint32 { return key * 0x9e3779b1 >> 16 }

// escapeHTML spells what encoders of JSON take care of that write for HTML.
var escapeHTML = strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`)

// spellings are the ways in which a value may be written.
func spellings(s string) []string {
	jsonSpelt := string(appendQuoted(nil, s))
	list := []string{
		s, jsonSpelt, strings.ReplaceAll(jsonSpelt, "/", `\/`), html.EscapeString(s), escapeHTML.Replace(jsonSpelt), hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s))),
	}
	for _, encoded := range []string{url.QueryEscape(s), url.PathEscape(s), string(escape(nil, []byte(s)))} {
		list = append(list, encoded, lowerEscapes(encoded))
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := enc.EncodeToString(append(bytes.Repeat([]byte{0}, shift), s...))
			from := []int{0, 2, 3}[shift]
			to := len(text)
			if (len(s)+shift)%3 != 0 { // the last character depends on what follows
				to--
			}
			if to-from >= minLiteral {
				list = append(list, text[from:to])
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list) // most values are spelt alike in most ways
}

// lowerEscapes is s with %2F written %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

// find appends a hit for each literal in s.
func (set *literalSet) find(s string, hits []hit) []hit {
	if set == nil {
		return hits
	}
	for i := 0; i+minLiteral <= len(s); {
		key := uint32(swar.Half(s[i:]))
		h := literalHash(key)
		if set.bloom[h>>6]>>(h&63)&1 == 0 {
			i++
			continue
		}
		if list := set.needles[key]; list != nil {
			if n := list.longest(s[i:]); n > 0 && !inPlaceholder(s, i, i+n) {
				hits = appendKnown(hits, i, i+n)
			}
		}
		i++ // the next one may begin within this one
	}
	return hits
}

// appendKnown appends a hit, or makes the last one longer.
func appendKnown(hits []hit, start, end int) []hit {
	if n := len(hits); n > 0 && start < hits[n-1].end && start >= hits[n-1].start {
		hits[n-1].end = max(hits[n-1].end, end)
		return hits
	}
	return append(hits, hit{start: start, end: end, label: labelKnown})
}

// Knowing is r, also hiding the values that stand under sensitive names in the fields and the URL of a request, wherever else they occur: an upstream
// repeats a key in the error that it answers. It is r itself where there are none.
func (r *Redactor) Knowing(h http.Header, url string) *Redactor {
	var known map[string]struct{}
	c := Counts{report: func(l label, value string) {
		if l.kind() != kindSecret || len(value) > maxLiteral || len(known) >= maxLiterals || !distinct(value) {
			return
		}
		if _, again := known[value]; again {
			return
		}
		if known == nil {
			known = map[string]struct{}{}
		}
		known[strings.Clone(value)] = struct{}{}
	}}
	r.Header(h, &c)
	if url != "" {
		r.AppendURL(nil, url, &c)
	}
	if len(known) == 0 {
		return r
	}
	var all []string
	for value := range known {
		all = append(all, spellings(value)...)
	}
	set := &literalSet{needles: make(map[uint32]*needles, len(all))}
	set.add(all)
	other := *r
	other.seen = set
	return &other
}
