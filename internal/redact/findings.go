package redact

import (
	"fmt"
	"strings"
)

// Finding is a value that was hidden, without the value.
type Finding struct {
	Line   int    `json:"line,omitempty"` // where it stands in the text, counted from 1; 0: it was encoded there
	Column int    `json:"column,omitempty"`
	Kind   Kind   `json:"kind"`
	Label  string `json:"label"`
	Length int    `json:"length"` // in bytes
	Name   string `json:"name,omitempty"`
	Why    string `json:"why"`
}

// maxFindings bounds what Findings returns.
const maxFindings = 10_000

// Findings is Body with the reasons: what would be hidden in a text, where it stands and why. Beyond 10,000 only the counts tell.
func (r *Redactor) Findings(contentType string, data []byte, c *Counts) (clean []byte, list []Finding) {
	p := locator{text: string(data)}
	counts := Counts{report: func(l label, value string) {
		if len(list) == maxFindings {
			return
		}
		f := Finding{Kind: kindNames[l.kind()], Label: labelNames[l], Length: len(value)}
		at := p.of(value)
		if at >= 0 {
			f.Line, f.Column = p.line, p.column
			f.Name = nameAround(p.text, at)
		}
		f.Why = why(l, f.Name, r.classify(f.Name))
		list = append(list, f)
	}}
	clean = r.Body(contentType, data, false, &counts)
	counts.report = nil
	counts.Each(c.Add)
	return clean, list
}

// locator finds values in a text in which they were found in order.
type locator struct {
	text         string
	at           int // of what was found last
	line, column int
	counted      int // up to here lines are counted
	lines        int
	start        int // of the line
}

// of is where the next value stands, -1 where it cannot be seen.
func (p *locator) of(value string) int {
	if value == "" {
		return -1
	}
	n := strings.Index(p.text[p.at:], value)
	if n < 0 {
		return -1
	}
	at := p.at + n
	p.at = at + len(value)
	for {
		n := strings.IndexByte(p.text[p.counted:at], '\n')
		if n < 0 {
			break
		}
		p.counted += n + 1
		p.lines, p.start = p.lines+1, p.counted
	}
	p.line, p.column = p.lines+1, at-p.start+1
	return at
}

// nameAround is the name under which the value at i stands.
func nameAround(s string, i int) string {
	for n := 0; i > 0 && n < 4 && strings.IndexByte("\"'` \t\\", s[i-1]) >= 0; n++ {
		i--
	}
	if i == 0 || strings.IndexByte(":=>", s[i-1]) < 0 {
		return ""
	}
	start, end := nameBefore(s, i-1)
	return SafeText(s[start:end], 64)
}

// why says in words what gave a value away.
func why(l label, name string, c class) string {
	switch l {
	case labelPAN:
		return "a card number: the digits of an issuer, its length, the right check digit"
	case labelTrack:
		return "what a magnetic stripe holds"
	case labelCVV:
		return "a security code or PIN, by what stands before it"
	case labelUserinfo:
		return "the user of a URL"
	case labelCookie:
		return "the value of a cookie"
	case labelAuthorization, labelBearer, labelBasic:
		return "credentials, by the word or field before them"
	case labelWebToken:
		return "a JSON web token, by its shape"
	case labelPrivateKey:
		return "a private key in PEM"
	case labelKnown:
		return "a value that is known to be secret"
	case labelEncoded:
		return "percent-encoded more often than anybody looks into"
	case labelPattern:
		return "a configured pattern matches"
	case labelEmail, labelIBAN, labelPhone, labelNationalID:
		return "personal data that the configuration asks to hide"
	case labelSecret:
		if name != "" && c > weak {
			return fmt.Sprintf("it stands under the name %s", name)
		}
		return "it stands under a sensitive name, or at a configured path"
	}
	return "a token, by its shape"
}
