package wire

import (
	"errors"
	"net/http"
	"strconv"
)

var (
	errMethod = errors.New("the method has a character that none may have")
	errTarget = errors.New("the request target has a character that none may have")
	errHost   = errors.New("the host has a character that none may have")
	errField  = errors.New("a header field has a character that none may have")
)

// appendRequest appends the head of a request (RFC 9112 section 3). length is the body's: -1 chunked, 0 none. What frames the message is written by this
// function alone, whatever the header says; Close is the client's matter.
func appendRequest(b []byte, r *http.Request, length int64, extra string) ([]byte, error) {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	if !isTokens(method) {
		return b, errMethod
	}
	b = append(append(b, method...), ' ')
	var err error
	if b, err = appendTarget(b, r); err != nil {
		return b, err
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	for i := range len(host) {
		if c := host[i]; c >= 128 || !hostChars[c] {
			return b, errHost
		}
	}
	b = append(append(b, host...), "\r\n"...)
	for name, values := range r.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue
		case "Te":
			b = append(b, "Connection: TE\r\n"...) // RFC 9110 section 10.1.4
		}
		for _, value := range values {
			if b, err = appendField(b, name, value); err != nil {
				return b, err
			}
		}
	}
	b = append(b, extra...)
	switch {
	case length > 0:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), "\r\n"...)
	case length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if b, err = appendTrailerNames(b, r.Trailer); err != nil {
			return b, err
		}
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch, len(r.Header["Content-Length"]) > 0: // RFC 9110 section 8.6, or as it came
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// appendTarget writes what RequestURI of the URL says, without making a string of it where path and query can go as they are.
func appendTarget(b []byte, r *http.Request) ([]byte, error) {
	u := r.URL
	from := len(b)
	switch {
	case u.Opaque != "" || u.RawPath != "" || u.Path == "" || u.ForceQuery:
		b = append(b, u.RequestURI()...)
	case plainPath(u.Path):
		b = append(b, u.Path...)
		if u.RawQuery != "" {
			b = append(append(b, '?'), u.RawQuery...)
		}
	default:
		b = append(b, u.RequestURI()...)
	}
	for _, c := range b[from:] {
		if c <= ' ' || c == 0x7f {
			return b, errTarget
		}
	}
	return b, nil
}

// plainPath tells whether a path is written as it is read: nothing in it is percent-encoded.
func plainPath(path string) bool {
	if path[0] != '/' || len(path) > 1 && path[1] == '/' {
		return false
	}
	for i := range len(path) {
		if c := path[i]; c >= 128 || !pathChars[c] {
			return false
		}
	}
	return true
}

// pathChars are those that url.URL writes without percent-encoding.
var pathChars = func() (t [128]bool) {
	for _, c := range []byte("/-_.~$&+,:;=@0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

func appendField(b []byte, name, value string) ([]byte, error) {
	if !isPlain(name) && (name == "" || !isTokens(name)) || !validValue(value) {
		return b, errField
	}
	b = append(append(b, name...), ": "...)
	return append(append(b, trim(value)...), "\r\n"...), nil
}

// trim takes away the white space that is no part of a value (RFC 9110 section 5.5).
func trim[T string | []byte](s T) T {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for n := len(s); n > 0 && (s[n-1] == ' ' || s[n-1] == '\t'); n-- {
		s = s[:n-1]
	}
	return s
}

func appendTrailerNames(b []byte, trailer http.Header) ([]byte, error) {
	if len(trailer) == 0 {
		return b, nil
	}
	b = append(b, "Trailer: "...)
	first := true
	for name := range trailer {
		if !isTokens(name) {
			return b, errField
		}
		if !first {
			b = append(b, ", "...)
		}
		first = false
		b = append(b, name...)
	}
	return append(b, "\r\n"...), nil
}

// appendTrailer writes trailer fields (RFC 9112 section 7.1.2).
func appendTrailer(b []byte, trailer http.Header) ([]byte, error) {
	var err error
	for name, values := range trailer {
		for _, value := range values {
			if b, err = appendField(b, name, value); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}
