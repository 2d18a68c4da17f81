package policy

import (
	"crypto/sha256"
	"slices"
)

// looks is all that a load saw of the file system but the files' modes, which only warnings are about. What a load looks at depends on what it saw before
// that: where each look shows what it did, another load would look at the same and come to the same digest.
type looks struct {
	files map[look]bool
	globs []glob
}

// look is one reading of a file.
type look struct {
	path  string
	limit int64
	sum   [sha256.Size]byte
	fault string // why it could not be read
}

// glob is what a pattern matched.
type glob struct {
	pattern string
	found   []string
}

func lookAt(path string, limit int64, data []byte, err error) look {
	l := look{path: path, limit: limit}
	if err != nil {
		l.fault = err.Error()
		return l
	}
	l.sum = sha256.Sum256(data)
	return l
}

func (l *looks) add(one look) {
	if l.files == nil {
		l.files = map[look]bool{}
	}
	l.files[one] = true // a file that changed between two readings is there twice, and one of them is never seen again
}

// faulty tells whether a file could not be read.
func (l looks) faulty() bool {
	for one := range l.files {
		if one.fault != "" {
			return true
		}
	}
	return false
}

// again tells whether every look shows the same as before.
func (l looks) again() bool {
	for before := range l.files {
		data, _, err := readFile(before.path, before.limit)
		if lookAt(before.path, before.limit, data, err) != before {
			return false
		}
	}
	for _, g := range l.globs {
		if found, err := matching(g.pattern); err != nil || !slices.Equal(found, g.found) {
			return false
		}
	}
	return true
}
