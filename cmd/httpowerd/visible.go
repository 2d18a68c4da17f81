package main

import (
	"strconv"
	"strings"
)

// visible escapes what could move a terminal's cursor: names of files that somebody else chose stand in messages. Line ends and tabs stay.
func visible(s string) string {
	plain := func(r rune) bool { return r == '\n' || r == '\t' || strconv.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if plain(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
