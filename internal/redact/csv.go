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
	begin := headOf(s)
	delimiter := delimiterOf(s[begin:])
	var classes []class
	hides := false
	headEnd := begin
	for {
		end := fieldEnd(s, headEnd, delimiter)
		class := r.classify(strings.Trim(s[headEnd:end], "\"\r\n "))
		classes, hides = append(classes, class), hides || class >= number
		if headEnd = end; end == len(s) || s[end] != delimiter {
			break
		}
		headEnd++
	}
	if !hides {
		return r.asText(s, o, c)
	}
	out := append(make([]byte, 0, len(s)), s[:headEnd]...)
	changed := false
	column := 0
	for at := headEnd; at < len(s); {
		if column++; s[at] == '\n' {
			column = 0
		} else if column == len(classes) { // more fields than names: one before was not quoted
			column--
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

// headOf is where the line with the names begins: behind empty ones, and one such as sep=; that some spreadsheets write.
func headOf(s string) int {
	at := len(s) - len(strings.TrimLeft(s, "\r\n\ufeff"))
	if len(s)-at > 5 && foldPrefix(s[at:], "sep=") && (s[at+5] == '\n' || s[at+5] == '\r') {
		at += 5
		at = len(s) - len(strings.TrimLeft(s[at:], "\r\n"))
	}
	return at
}

// delimiterOf is what stands between the columns that the first line of s names.
func delimiterOf(s string) byte {
	head, _, _ := strings.Cut(s, "\n")
	best, most := byte(','), 0
	for _, d := range []byte(",;\t|") {
		if n := strings.Count(head, string(rune(d))); n > most {
			best, most = d, n
		}
	}
	return best
}

// fieldEnd is where the field that begins at i ends: before a delimiter, a line break or the end. Quotes count where it begins with one and another ends
// it; elsewhere they are inches.
func fieldEnd(s string, i int, delimiter byte) int {
	open := i
	for open < len(s) && s[open] == ' ' {
		open++
	}
	if open < len(s) && s[open] == '"' {
		if end := quotedEnd(s, open+1, delimiter); end >= 0 {
			return end
		}
	}
	for i < len(s) && s[i] != delimiter && s[i] != '\n' {
		i++
	}
	return i
}

// quotedEnd is where the field ends whose opening quote is before i, -1 where no quote ends it soon.
func quotedEnd(s string, i int, delimiter byte) int {
	const longest = 64 << 10
	for stop := min(len(s), i+longest); i < stop; i++ {
		if s[i] != '"' {
			continue
		}
		if i++; i < len(s) && s[i] == '"' {
			continue
		}
		for i < len(s) && s[i] != delimiter && s[i] != '\n' {
			i++
		}
		return i
	}
	return -1
}
