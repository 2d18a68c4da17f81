package setting

import (
	"fmt"
	"strings"
)

// DidYouMean is ", did you mean X?" for the known word nearest to a misspelt one, or "".
func DidYouMean(word string, known []string) Own {
	best := Nearest(word, known)
	if best == "" {
		return ""
	}
	return Own(fmt.Sprintf(": did you mean %s?", best))
}

// Nearest is the known word, in lower case, that a misspelt one is like; "": none is.
func Nearest(word string, known []string) string {
	best, distance := "", 1+max(1, min(3, len(word)/3))
	for _, k := range known {
		if d := levenshtein(strings.ToLower(word), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// levenshtein is the number of letters to insert, delete or replace. Long words count as far apart.
func levenshtein(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			next := diagonal
			if a[i-1] != b[j-1] {
				next = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], next
		}
	}
	return row[len(b)]
}
