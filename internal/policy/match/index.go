package match

import (
	"fmt"
	"strings"

	"httpowerd/internal/exchange"
)

// Index finds the most specific pattern of an authority. It is filled once; after that any number of goroutines may call Find.
type Index[T any] struct {
	values  map[Pattern]T
	longest int  // length of the longest suffix: longer ones need no look
	rest    bool // there is a "*"
}

// NewIndex makes an empty Index.
func NewIndex[T any]() *Index[T] { return &Index[T]{values: map[Pattern]T{}} }

// Add puts a value under a pattern, which must not be there yet.
func (x *Index[T]) Add(p Pattern, v T) error {
	if _, ok := x.values[p]; ok {
		return fmt.Errorf("the pattern %s is there twice", p)
	}
	x.values[p] = v
	switch p.kind {
	case suffix:
		x.longest = max(x.longest, len(p.name))
	case everything:
		x.rest = true
	}
	return nil
}

// Find returns what is under the most specific pattern. The name decides first: exact, then the longest suffix, then "*"; between patterns of
// one name the one with the port wins.
func (x *Index[T]) Find(a exchange.Authority) (T, Pattern, bool) {
	if v, p, ok := x.at(Pattern{a.Host, exact, a.Port}); ok {
		return v, p, true
	}
	if x.longest > 0 {
		for name := a.Host; ; {
			dot := strings.IndexByte(name, '.')
			if dot < 0 {
				break
			}
			if name = name[dot+1:]; len(name) > x.longest {
				continue
			}
			if v, p, ok := x.at(Pattern{name, suffix, a.Port}); ok {
				return v, p, true
			}
		}
	}
	if x.rest {
		return x.at(Pattern{"", everything, a.Port})
	}
	var none T
	return none, Pattern{}, false
}

// at looks for the pattern, then for the same without its port.
func (x *Index[T]) at(p Pattern) (T, Pattern, bool) {
	if v, ok := x.values[p]; ok {
		return v, p, true
	}
	p.port = 0
	v, ok := x.values[p]
	return v, p, ok
}
