package redact

import "strings"

// isCSV tells whether a type of content is a table whose first line names the columns.
func isCSV(kind string) bool {
	switch kind {
	case "text/csv", "application/csv", "text/tab-separated-values", "text/x-csv":
		return true
	}
	return false
}

// csv reads a table: columns with sensitive names are hidden, the rest is text.
func (r *Redactor) csv(s string, o options, c *Counts) (string, bool) {
	head, _, _ := strings.Cut(s, "\n")
	delimiter := delimiterOf(head)
	var classes []class
	hides := false
	for at := 0; at <= len(head); {
		end := fieldEnd(head, at, delimiter)
		class := r.classify(strings.Trim(head[at:end], "\"\r "))
		classes, hides = append(classes, class), hides || class >= number
		at = end + 1
	}
	if !hides {
		return r.asText(s, o, c)
	}
	out := append(make([]byte, 0, len(s)), head...)
	changed := false
	column := 0
	for at := len(head); at < len(s); {
		if column++; s[at] == '\n' {
			column = 0
		}
		out = append(out, s[at])
		at++
		end := fieldEnd(s, at, delimiter)
		field := s[at:end]
		if value := strings.Trim(field, "\"\r "); column < len(classes) && value != "" && !isPlaceholder(value) && hidesField(classes[column], value) {
			from := strings.Index(field, value)
			out = r.hide(append(out, field[:from]...), classes[column].label(), value, c)
			out = append(out, field[from+len(value):]...)
			changed = true
		} else {
			out = append(out, field...)
		}
		at = end
	}
	text, hidden := r.asText(string(out), o, c)
	return text, changed || hidden
}

func hidesField(c class, value string) bool { return c.hides() || c == number && isNumberLike(value) }

// delimiterOf is what stands between the columns that a head names.
func delimiterOf(head string) byte {
	best, most := byte(','), 0
	for _, d := range []byte(",;\t|") {
		if n := strings.Count(head, string(rune(d))); n > most {
			best, most = d, n
		}
	}
	return best
}

// fieldEnd is where the field that begins at i ends: before a delimiter, a line break or the end.
func fieldEnd(s string, i int, delimiter byte) int {
	quoted := false
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == delimiter || c == '\n'):
			return i
		}
	}
	return i
}
