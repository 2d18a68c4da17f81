package redact

import (
	"strings"
	"sync/atomic"
)

// nameCache remembers what names were found to say: the same ones come again and again. It is bounded, and safe for concurrent use.
type nameCache [1 << 8][4]atomic.Pointer[judged]

// judged is a name and its class.
type judged struct {
	hash  uint64
	name  string
	class class
}

// longestJudged is the longest name that is remembered, in bytes.
const longestJudged = 64

// nameHash tells most names apart. Whoever makes them collide on purpose has them judged anew each time.
func nameHash(name string) uint64 {
	var first, last uint64
	if n := len(name); n >= 8 {
		first, last = eight(name), eight(name[n-8:])
	} else {
		for i := range n {
			first = first<<8 | uint64(name[i])
		}
	}
	h := (first ^ uint64(len(name))) * 0x9e3779b97f4a7c15
	h = (h ^ h>>29 ^ last) * 0xbf58476d1ce4e5b9
	return h ^ h>>32
}

// class is that of a name by r's rules.
func (c *nameCache) class(r *Redactor, name string) class {
	if len(name) > longestJudged {
		var n squashed
		return r.classifyWith(&n, name)
	}
	h := nameHash(name)
	row := &c[h%uint64(len(c))]
	at := &row[h>>62] // of the one that goes where there is no room
	for i := range row {
		known := row[i].Load()
		if known == nil {
			at = &row[i]
			break
		}
		if known.hash == h && known.name == name {
			return known.class
		}
	}
	var n squashed
	j := &judged{h, strings.Clone(name), r.classifyWith(&n, name)}
	at.Store(j)
	return j.class
}
