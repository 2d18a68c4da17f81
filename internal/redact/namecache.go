package redact

import (
	"strings"
	"sync/atomic"

	"httpowerd/internal/swar"
)

// nameCache remembers what names were found to say: the same ones come again and again. It is bounded, and safe for concurrent use.
type nameCache [1 << 8][4]atomic.Pointer[judged]

// judged is a name with what it says.
type judged struct {
	hash  uint64
	name  string
	class class
	role  role
	clean bool // by the built-in lists, no secret stands in the name itself, nor what JSON escapes
}

// role is what a key of JSON does in an object such as {"name": "password", "value": …}.
type role uint8

const (
	noRole    role = iota
	nameRole       // its value is a name
	pathRole       // its value is the path of a JSON patch, which ends in a name
	valueRole      // its value is what stands under that name
	textRole       // likewise, but not in a patch
)

func roleOf(name string) role {
	switch len(name) {
	case 3:
		if foldPrefix(name, "key") {
			return nameRole
		}
		if foldPrefix(name, "val") {
			return valueRole
		}
	case 4:
		switch {
		case foldPrefix(name, "name"):
			return nameRole
		case foldPrefix(name, "path"):
			return pathRole
		case foldPrefix(name, "data"), foldPrefix(name, "text"):
			return textRole
		}
	case 5:
		if foldPrefix(name, "field") || foldPrefix(name, "param") {
			return nameRole
		}
		if foldPrefix(name, "value") {
			return valueRole
		}
	case 6:
		if foldPrefix(name, "header") {
			return nameRole
		}
		if foldPrefix(name, "values") {
			return valueRole
		}
	}
	return noRole
}

// longestJudged is the longest name that is remembered, in bytes.
const longestJudged = 64

// nameHash tells most names apart. Whoever makes them collide on purpose has them judged anew each time.
func nameHash(name string) uint64 {
	var first, last uint64
	if n := len(name); n >= 8 {
		first, last = swar.Word(name), swar.Word(name[n-8:])
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
		return r.classifyOnce(name)
	}
	return c.judged(r, name).class
}

// judged is what a name says, which is not longer than longestJudged.
func (c *nameCache) judged(r *Redactor, name string) *judged {
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
			return known
		}
	}
	name = strings.Clone(name)
	j := &judged{h, name, r.classifyOnce(name), roleOf(name), true}
	m := borrow()
	sc := m.scanner(builtin(), options{})
	j.clean = len(sc.scan(name)) == 0 && !strings.ContainsAny(name, `"\`)
	m.giveScanner(sc)
	m.release()
	at.Store(j)
	return j
}
