package exchange

import "net/http"

// SafeMethod tells whether a request of that method asks for no change, so that anybody may send it again (RFC 9110 section 9.2.1). "" is GET.
func SafeMethod(m string) bool {
	switch m {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}
