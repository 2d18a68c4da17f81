package redact

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"httpowerd/internal/setting"
)

// The bounds of what may be added. Every pattern costs time on every text that is recorded.
const (
	maxNames    = 256
	maxPatterns = 64
	maxName     = 128
	maxPattern  = 1024
)

// Config adds to the built-in lists. Nothing can be taken away from those.
type Config struct {
	Headers  []string `yaml:"headers"`  // header fields whose values are hidden; case, - and _ make no difference
	Fields   []string `yaml:"fields"`   // fields of bodies and parameters of URLs whose values are hidden, at any depth; likewise
	Patterns []string `yaml:"patterns"` // RE2 expressions; whatever matches is hidden, wherever text is recorded; each costs time per record
	Paths    []string `yaml:"paths"`    // places in JSON whose values are hidden, as in $.customer.name, $.items[*].note or $..birthday
	Hide     []string `yaml:"hide"`     // more kinds to hide: cards (whole, not masked), email, iban, phone, national_id; each costs time on every text
}

// IsZero tells whether nothing is added.
func (c Config) IsZero() bool {
	return len(c.Headers)+len(c.Fields)+len(c.Patterns)+len(c.Paths)+len(c.Hide) == 0
}

// Validate tells everything that is wrong.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	most := func(key string, n, limit int) {
		if n > limit {
			faults = append(faults, setting.Faultf(key, "may have at most %d entries, has %d", limit, n))
		}
	}
	each := func(key string, list []string, check func(string) string) {
		for i, s := range list {
			if message := check(s); message != "" {
				faults = append(faults, setting.Faultf(fmt.Sprintf("%s[%d]", key, i), "%s", message))
			}
		}
	}
	most("headers", len(c.Headers), maxNames)
	each("headers", c.Headers, checkHeader)
	most("fields", len(c.Fields), maxNames)
	each("fields", c.Fields, checkField)
	most("patterns", len(c.Patterns), maxPatterns)
	each("patterns", c.Patterns, checkPattern)
	most("paths", len(c.Paths), maxPaths)
	each("paths", c.Paths, checkPath)
	each("hide", c.Hide, func(s string) string {
		if slices.Contains(hideable, s) {
			return ""
		}
		return fmt.Sprintf("must be one of %s, is %q", strings.Join(hideable, ", "), s)
	})
	return faults
}

// checkHeader lets braces pass, which are no token characters but harm nobody.
func checkHeader(s string) string {
	if message := checkField(s); message != "" {
		return message
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]`, s[i]) >= 0 {
			return fmt.Sprintf("%q is not the name of a header field: write it without colon or spaces, such as X-Customer", s)
		}
	}
	return ""
}

func checkField(s string) string {
	var n squashed
	switch n.set(s); {
	case len(s) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case len(n.bytes()) == 0:
		return fmt.Sprintf("%q has no letter or digit, so it would match no name", s)
	}
	return ""
}

func checkPath(s string) string {
	if len(s) > maxPath {
		return fmt.Sprintf("is longer than %d bytes", maxPath)
	}
	if _, err := parsePath(s); err != nil {
		return err.Error()
	}
	return ""
}

func checkPattern(s string) string {
	if len(s) > maxPattern {
		return fmt.Sprintf("is longer than %d bytes", maxPattern)
	}
	re, err := syntax.Parse(s, syntax.Perl)
	if err == nil {
		_, err = syntax.Compile(re.Simplify())
	}
	if err != nil {
		return "is not a regular expression (RE2): " + strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	}
	if canBeEmpty(re) {
		return fmt.Sprintf("%q matches the empty text, so it would match everywhere: let it require at least one character", s)
	}
	return ""
}

// canBeEmpty tells whether re can match without consuming anything, be it only at some places.
func canBeEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune) == 0
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpNoMatch:
		return false
	case syntax.OpPlus, syntax.OpCapture:
		return canBeEmpty(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || canBeEmpty(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if !canBeEmpty(sub) {
				return false
			}
		}
		return true
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if canBeEmpty(sub) {
				return true
			}
		}
		return false
	}
	return true
}
