package exchange

import (
	"net/http"
	"strings"
)

// SafeMethod tells whether a request of that method asks for no change, so that anybody may send it again (RFC 9110 section 9.2.1). "" is GET.
func SafeMethod(m string) bool {
	switch m {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// IsToken tells whether s may be a method or the name of a field (RFC 9110 section 5.6.2).
func IsToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
