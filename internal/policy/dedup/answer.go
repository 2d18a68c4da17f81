package dedup

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// answer is a complete answer that several requests get. Nothing of it changes; each gets copies of the fields.
type answer struct {
	head     http.Response // its header is a copy that nobody else has, its body nil
	body     []byte
	complete time.Time
	holders  atomic.Int32
	free     func()
}

// headOf copies an answer's head before anybody above can change it.
func headOf(resp *http.Response) http.Response {
	head := *resp
	head.Header, head.Trailer = resp.Header.Clone(), nil
	head.TransferEncoding = slices.Clone(resp.TransferEncoding)
	head.Body, head.Request = nil, nil
	return head
}

// drop ends one holder's part in the memory.
func (a *answer) drop() {
	if a.holders.Add(-1) == 0 {
		a.free()
	}
}

// response is the answer to r. Whoever calls holds it, and its body's Close ends that.
func (a *answer) response(r *http.Request) *http.Response {
	resp := a.head
	resp.Header, resp.Trailer, resp.Request = a.head.Header.Clone(), a.head.Trailer.Clone(), r
	resp.TransferEncoding = slices.Clone(a.head.TransferEncoding)
	b := &answerBody{answer: a}
	b.Reset(a.body)
	resp.Body = b
	return &resp
}

// answerBody reads an answer's body, and writes it at once where that is wanted.
type answerBody struct {
	bytes.Reader
	answer *answer
	closed atomic.Bool
}

func (b *answerBody) Close() error {
	if !b.closed.Swap(true) {
		b.Reset(nil)
		b.answer.drop()
	}
	return nil
}

// aged says how old an answer is that was complete before its request came (RFC 9111 section 5.1).
func aged(resp *http.Response, since time.Time) {
	age := int(time.Since(since) / time.Second)
	if before, err := strconv.Atoi(resp.Header.Get("Age")); err == nil && before > 0 && before < 1<<30 {
		age += before
	}
	if age > 0 {
		resp.Header["Age"] = []string{strconv.Itoa(age)}
	}
}

// unshared says why an answer is for the request alone that was sent; "": others may have it too.
func unshared(resp *http.Response) string {
	switch resp.StatusCode {
	case http.StatusPartialContent, http.StatusNotModified, http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return whyUnshared
	}
	if resp.StatusCode < 200 {
		return whyUpgrade
	}
	h := resp.Header
	for _, name := range [...]string{"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Proxy-Authenticate", "Authentication-Info"} {
		if h[name] != nil {
			return whyUnshared
		}
	}
	// RFC 9111 section 5.2.2.5: what must not be stored must not answer another request either.
	if directive(h["Cache-Control"], "no-store") || variesFreely(h["Vary"]) {
		return whyUnshared
	}
	if exchange.Streams(h) {
		return whyStream
	}
	return ""
}

// variesFreely tells whether an answer depends on what is not in the key.
func variesFreely(lines []string) bool {
	for _, line := range lines {
		for line != "" {
			var name string
			name, line, _ = strings.Cut(line, ",")
			name = strings.TrimSpace(name)
			if name == "*" || volatile(http.CanonicalHeaderKey(name)) {
				return true
			}
		}
	}
	return false
}

// lingers tells whether the answer to x may serve requests that come after it is complete.
func lingers(resp *http.Response, x *exchange.Exchange) bool {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusNoContent, http.StatusMultipleChoices, http.StatusMovedPermanently,
		http.StatusPermanentRedirect, http.StatusNotFound, http.StatusGone:
	default:
		return false
	}
	control := resp.Header["Cache-Control"]
	return unshared(resp) == "" && !directive(control, "no-cache") && !expired(control) && !asks(resp, x)
}

// expired tells whether max-age=0 is said in any of its forms.
func expired(lines []string) bool {
	for _, line := range lines {
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(member)), "=")
			if (name == "max-age" || name == "s-maxage") && strings.Trim(value, "\"0") == "" {
				return true
			}
		}
	}
	return false
}

// headerSize is about what a header takes.
func headerSize(h http.Header) int {
	n := 0
	for name, values := range h {
		n += len(name) + 64
		for _, v := range values {
			n += len(v) + 16
		}
	}
	return n
}
