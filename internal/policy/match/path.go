package match

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// unit is one character of a path as it is compared: the byte, with escaped set where it is percent-encoded and means something else than the
// bare character. Unreserved characters are the same either way (RFC 3986 section 6.2.2.2), and the case of hex digits does not matter.
type unit uint16

const (
	escaped unit = 0x100
	star    unit = 0x200 // in a glob: any number of units
)

// reading is a path as the client spelt it. url.URL forgets the spelling where its own encoder would choose the same; decoded says so.
type reading struct {
	text    string
	decoded bool
}

// pathOf is the path of a request. The door puts spellings that url.URL cannot keep into Opaque.
func pathOf(u *url.URL) reading {
	switch {
	case u.Opaque != "":
		return reading{text: u.Opaque}
	case u.RawPath != "":
		return reading{text: u.RawPath}
	case u.Path == "":
		return reading{text: "/"}
	}
	return reading{u.Path, true}
}

// at is the unit at index i, and the index behind it.
func (p reading) at(i int) (unit, int) {
	c := p.text[i]
	switch {
	case unreserved(c):
		return unit(c), i + 1
	case p.decoded:
		if strings.IndexByte("$&+,/:;=@", c) >= 0 { // what url.URL's encoder leaves alone
			return unit(c), i + 1
		}
	case c == '%' && i+2 < len(p.text):
		high, okHigh := hex(p.text[i+1])
		low, okLow := hex(p.text[i+2])
		if !okHigh || !okLow {
			break
		}
		if c = high<<4 | low; unreserved(c) {
			return unit(c), i + 3
		}
		return escaped | unit(c), i + 3
	case strings.IndexByte("!$&'()*+,;=:@[]/", c) >= 0:
		return unit(c), i + 1
	}
	return escaped | unit(c), i + 1 // has no other spelling
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// normal is the path in one spelling: unreserved characters bare, everything else as sent, hex digits in upper case.
func (p reading) normal() string {
	out := make([]byte, 0, len(p.text))
	for i := 0; i < len(p.text); {
		var u unit
		if u, i = p.at(i); u&escaped == 0 {
			out = append(out, byte(u))
			continue
		}
		const digits = "0123456789ABCDEF"
		out = append(out, '%', digits[u>>4&0xf], digits[u&0xf])
	}
	return string(out)
}

// Resolved is the request with the path that a server serves which resolves dot segments and joins slashes, where that is not the path that was sent. It
// is meant for matching alone. Servers differ (a percent-encoded slash or a backslash beside dots, a parameter behind them), and this takes the reading
// of the most willing one. It returns false where there is but one way to read the path.
func Resolved(r *http.Request) (*http.Request, bool) {
	p := pathOf(r.URL)
	dots, slashes := p.unresolved()
	if !dots && !slashes {
		return nil, false
	}
	other, u := new(http.Request), *r.URL
	*other = *r
	u.Opaque, u.RawPath, u.Path = p.resolve(dots), "", ""
	other.URL = &u
	return other, true
}

// unresolved tells whether the path has dot segments, and whether it has slashes in a row.
func (p reading) unresolved() (dots, slashes bool) {
	begin := true // of a segment
	var s segmentScan
	for i := 0; i < len(p.text); {
		var u unit
		if u, i = p.at(i); !separates(u) {
			s.add(u)
			begin = false
			continue
		}
		dots = dots || s.isDots()
		slashes = slashes || (begin && u == '/' && i > 1)
		s, begin = segmentScan{}, u == '/'
	}
	return dots || s.isDots(), slashes
}

// separates: what some server takes for a slash.
func separates(u unit) bool { return u == '/' || u == escaped|'/' || u == escaped|'\\' }

// segmentScan recognises "." and "..", with or without a parameter.
type segmentScan struct {
	dots       int
	other, end bool
}

func (s *segmentScan) add(u unit) {
	switch {
	case s.end:
	case u == ';' || u == escaped|';':
		s.end = true
	case u == '.':
		s.dots++
	default:
		s.other = true
	}
}

func (s *segmentScan) isDots() bool { return !s.other && (s.dots == 1 || s.dots == 2) }

// resolve removes dot segments (RFC 3986 section 5.2.4) and empty ones. all takes everything for a slash that some server does.
func (p reading) resolve(all bool) string {
	var out []string
	var segment []byte
	var s segmentScan
	trailing := false
	end := func() {
		trailing = len(segment) == 0 || s.isDots()
		switch {
		case s.isDots() && s.dots == 2:
			out = slices.Delete(out, max(0, len(out)-1), len(out))
		case !trailing:
			out = append(out, string(segment))
		}
		segment, s = segment[:0], segmentScan{}
	}
	text := reading{text: p.normal()}
	for i := 0; i < len(text.text); {
		u, next := text.at(i)
		if u == '/' || (all && separates(u)) {
			end()
		} else {
			segment = append(segment, text.text[i:next]...)
			s.add(u)
		}
		i = next
	}
	end()
	if trailing && len(out) > 0 {
		out = append(out, "")
	}
	return "/" + strings.Join(out, "/")
}
