package match

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxGlob     = 1024 // bytes of a path or header pattern: bounds the work of a match
	maxSegments = 64
)

// pathGlob is a path pattern, segment by segment.
type pathGlob []segmentGlob

// segmentGlob matches one segment, or with deep any number of them.
type segmentGlob struct {
	units []unit
	deep  bool
}

func parsePath(s string) (pathGlob, error) {
	switch {
	case s[0] != '/':
		return nil, fmt.Errorf("must begin with a slash: write /%s", s)
	case len(s) > maxGlob:
		return nil, fmt.Errorf("must not be longer than %d bytes, has %d", maxGlob, len(s))
	case strings.Count(s, "/") > maxSegments:
		return nil, fmt.Errorf("must not have more than %d segments", maxSegments)
	case strings.IndexByte(s, '?') >= 0:
		return nil, errors.New("has a ?, and a query is no part of the path: match it with when, such as request.query['limit'] == ['10']")
	case strings.IndexByte(s, '#') >= 0:
		return nil, errors.New("has a #, and fragments are never sent: leave it out")
	case strings.ContainsAny(s, "{}"):
		return nil, errors.New("has braces: write * for one segment whatever it is, or ** for any number of them")
	}
	var out pathGlob
	for text := range strings.SplitSeq(s[1:], "/") {
		g, err := parseSegment(text)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func parseSegment(s string) (segmentGlob, error) {
	var g segmentGlob
	if s == "**" {
		return segmentGlob{deep: true}, nil
	}
	if strings.Contains(s, "**") {
		return g, errors.New("has ** as a part of a segment: write ** between two slashes for any number of segments, * for a part of one")
	}
	var scan segmentScan
	text := reading{text: s}
	for i := 0; i < len(s); {
		u, next := text.at(i)
		switch {
		case s[i] < ' ' || s[i] == 0x7f:
			return g, errors.New("has a control character, which no path may have")
		case s[i] == '%' && next == i+1:
			return g, errors.New("has a % without two hex digits behind it: write %25 for the character itself")
		case s[i] == '*':
			u = star
		}
		scan.add(u)
		g.units = append(g.units, u)
		i = next
	}
	if scan.isDots() {
		return g, errors.New("has a segment of dots, which stands for another path: write that path")
	}
	return g, nil
}

func (g pathGlob) match(p reading) bool {
	text := p.text
	if text[0] != '/' {
		return false // OPTIONS *
	}
	at, next := 1, 0 // of the path, of the glob
	deep, deepAt := -1, 0
	for at <= len(text) {
		if next < len(g) && g[next].deep {
			deep, deepAt = next, at
			next++
			continue
		}
		end := segmentEnd(text, at)
		if next < len(g) && g[next].match(reading{text[at:end], p.decoded}) {
			next, at = next+1, end+1
			continue
		}
		if deep < 0 {
			return false
		}
		// The last ** takes one segment more.
		deepAt = segmentEnd(text, deepAt) + 1
		at, next = deepAt, deep+1
	}
	for next < len(g) && g[next].deep {
		next++
	}
	return next == len(g)
}

func segmentEnd(text string, at int) int {
	if i := strings.IndexByte(text[at:], '/'); i >= 0 {
		return at + i
	}
	return len(text)
}

func (g segmentGlob) match(p reading) bool {
	i, next := 0, 0
	last, lastAt := -1, 0 // the last star, and where what follows it began
	for i < len(p.text) {
		if next < len(g.units) && g.units[next] == star {
			last, lastAt = next, i
			next++
			continue
		}
		u, behind := p.at(i)
		switch {
		case next < len(g.units) && g.units[next] == u:
			next, i = next+1, behind
		case last >= 0:
			_, lastAt = p.at(lastAt)
			i, next = lastAt, last+1
		default:
			return false
		}
	}
	for next < len(g.units) && g.units[next] == star {
		next++
	}
	return next == len(g.units)
}

// textGlob matches a header's value: * is any number of characters.
type textGlob string

func (g textGlob) match(s string) bool {
	i, next := 0, 0
	last, lastAt := -1, 0
	for i < len(s) {
		switch {
		case next < len(g) && g[next] == '*':
			last, lastAt = next, i
			next++
		case next < len(g) && g[next] == s[i]:
			next, i = next+1, i+1
		case last >= 0:
			lastAt++
			i, next = lastAt, last+1
		default:
			return false
		}
	}
	for next < len(g) && g[next] == '*' {
		next++
	}
	return next == len(g)
}
