// Package redact hides what must not be written down: passwords, keys and tokens, card numbers and what is printed beside them.
//
// A Redactor knows secrets by the name they go under (a header, a parameter, a field), by their shape (the prefixes of well-known vendors, JSON web
// tokens, private keys, card numbers), by what stands before them ("password=", "Bearer", "cvv:") and, where Literals are attached, by their very
// value. It scrubs URLs, header fields, bodies and free text; NewHandler puts it in front of a log, Writer into a stream. Secret is the type for a
// value that must not be printed at all.
//
// Detectors are hand-written scanners that look at each byte a bounded number of times; only patterns that the configuration adds are regular
// expressions, and those are RE2. Where nothing is hidden nothing is allocated.
package redact

import (
	"errors"
	"regexp"
	"sync"
)

// Redactor hides secrets. It is immutable, and safe for concurrent use.
type Redactor struct {
	fields     map[string]class    // squashed names that hide their value anywhere
	headers    map[string]struct{} // squashed names that hide a header field
	names      *nameCache
	patterns   []*regexp.Regexp
	paths      []path
	wholeCards bool
	personal   personal
	literals   *Literals
	seen       *literalSet // values seen in this exchange
	key        *Key        // nil: no fingerprints
}

// New makes a Redactor with the built-in lists and those of c.
func New(c Config) (*Redactor, error) {
	if faults := c.Validate(); len(faults) > 0 {
		errs := make([]error, len(faults))
		for i, f := range faults {
			errs[i] = f
		}
		return nil, errors.Join(errs...)
	}
	r := &Redactor{fields: map[string]class{}, headers: squashAll(c.Headers), names: new(nameCache)}
	for _, what := range c.Hide {
		r.add(what)
	}
	for name := range squashAll(c.Fields) {
		r.fields[name] = secret
	}
	for _, text := range c.Paths {
		p, err := parsePath(text)
		if err != nil {
			return nil, err
		}
		r.paths = append(r.paths, p)
	}
	for _, p := range c.Patterns {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, err
		}
		r.patterns = append(r.patterns, re)
	}
	return r, nil
}

// add adds one of the words of Config.Hide.
func (r *Redactor) add(what string) {
	switch what {
	case HideCards:
		r.wholeCards = true
	case HideEmail:
		r.personal.email = true
	case HideIBAN:
		r.personal.iban = true
	case HidePhone:
		r.personal.phone = true
	case HideNationalIDs:
		r.personal.nationalID = true
	}
	for _, name := range personalNames[what].names {
		r.fields[name] = personalNames[what].class
	}
}

// extra tells whether texts have to be searched for more than the built-in lists.
func (r *Redactor) extra() bool {
	return r.seen != nil || r.literals.some() || len(r.patterns) > 0 || r.personal.any()
}

// Knowledge is what a Redactor hides: a text in which nothing was found holds nothing as long as it is the same. It is comparable.
type Knowledge struct {
	r       *Redactor
	version uint64
}

// Knowledge is what r hides now, also by its Literals. ok is false for a Redactor of a single exchange (Knowing). It is asked for before the text is
// searched: what is learned meanwhile makes it another one.
func (r *Redactor) Knowledge() (k Knowledge, ok bool) {
	if r.literals != nil {
		k.version = r.literals.version.Load()
	}
	k.r = r
	return k, r.seen == nil
}

var builtin = sync.OnceValue(func() *Redactor { return &Redactor{names: new(nameCache)} })

// Default is the Redactor that has nothing but the built-in lists.
func Default() *Redactor { return builtin() }

func squashAll(names []string) map[string]struct{} {
	if len(names) == 0 {
		return nil
	}
	m := make(map[string]struct{}, len(names))
	for _, name := range names {
		var n squashed
		n.set(name)
		m[string(n.bytes())] = struct{}{}
	}
	return m
}
