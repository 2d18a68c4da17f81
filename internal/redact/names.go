package redact

import (
	"slices"
	"strings"
)

// class is what a name says of its value.
type class uint8

const (
	harmless      class = iota
	weak                // hidden in URLs and forms where the value looks like a key
	number              // a card number: masked where it is one, hidden where it only looks like one
	secret              // from here on the value is hidden
	authorization       // the scheme's word is kept
	cookie              // the names of cookies are kept
	code                // a security code or PIN
	track
	address // from here on personal data, known by these names only where the configuration asks
	telephone
	bankAccount
	nationalID
)

// hides tells whether every value under such a name is hidden.
func (c class) hides() bool { return c >= secret }

// kind is what a hidden value counts as.
func (c class) kind() kind {
	switch c {
	case number:
		return kindPAN
	case code:
		return kindCVV
	case track:
		return kindTrack
	case address, telephone, bankAccount, nationalID:
		return kindPersonal
	}
	return kindSecret
}

// SensitiveName tells whether what stands under this name should not be shown: of a header, parameter, field or environment variable. Case and
// separators make no difference.
func (r *Redactor) SensitiveName(name string) bool { return r.classifyHeader(name) > weak }

// classify judges the name of a field or parameter.
func (r *Redactor) classify(name string) class { return r.names.class(r, name) }

// classifyOnce is classify for what hardly comes again: it is not remembered.
func (r *Redactor) classifyOnce(name string) class {
	var n squashed
	return r.classifyWith(&n, name)
}

// mostName is how much of a name is looked at, from its end. A text of values that are names again would be looked at to its end for each.
const mostName = 4 << 10

// classifyWith is classify with memory for the name.
func (r *Redactor) classifyWith(n *squashed, name string) class {
	name = name[max(0, len(name)-mostName):]
	if at := strings.IndexByte(name, opening[0]); at >= 0 && placeholderAt(name[at:]) > 0 { // labels are no names, what stands around them may be one
		return max(r.classifyWith(n, name[:at]), r.classifyWith(n, name[at+placeholderAt(name[at:]):]))
	}
	n.set(name)
	if len(r.fields) > 0 {
		if c, ok := r.fields[string(n.bytes())]; ok {
			return c
		}
	}
	return n.class()
}

// classifyHeader judges the name of a header field.
func (r *Redactor) classifyHeader(name string) class {
	if c, told := r.listed(name); told {
		return c
	}
	return r.classify(name)
}

// classifyText judges a text that may be the name of a field or header field.
func (r *Redactor) classifyText(text string) class {
	if c, told := r.listed(text); told {
		return c
	}
	return r.classifyOnce(text)
}

// listed tells of header fields that are configured, or so common that no closer look is needed.
func (r *Redactor) listed(name string) (class, bool) {
	if len(r.headers)+len(r.fields) == 0 && isCommonHeader(name) {
		return harmless, true
	}
	if len(r.headers) > 0 {
		var n squashed
		n.set(name)
		if _, ok := r.headers[string(n.bytes())]; ok {
			return secret, true
		}
	}
	return harmless, false
}

// isCommonHeader knows the names that nearly every message has, which saves a closer look.
func isCommonHeader(name string) bool {
	switch name {
	case "Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Etag",
		"Expires", "Host", "Last-Modified", "Server", "Traceparent", "User-Agent", "Vary", "Via", "X-Request-Id":
		return true
	}
	return false
}

// squashed is a name in lower case without separators. Of a long name only the end is kept: there stands the word that decides.
type squashed struct {
	buf  [maxName]byte
	n    int
	prev int    // where the last word but one begins
	last int    // where the last word begins
	has  uint32 // letters that occur, bit 0 for a
}

func (q *squashed) bytes() []byte { return q.buf[:q.n] }

func (q *squashed) set(name string) {
	if len(name) > maxName {
		name = name[len(name)-maxName:]
	}
	n, prev, last, has := 0, 0, 0, uint32(0)
	previous := byte(0) // the class of the byte before
	for i := range len(name) {
		c := name[i]
		is := charClass[c] & (charUpper | charLower | charDigit)
		switch is {
		case 0:
			previous = 0
			continue
		case charUpper:
			next := i+1 < len(name) && charClass[name[i+1]]&charLower != 0
			if previous != charUpper || next {
				prev, last = last, n
			}
			c |= 0x20
			has |= 1 << (c - 'a')
		case charLower:
			if previous == 0 {
				prev, last = last, n
			}
			has |= 1 << (c - 'a')
		case charDigit:
			if previous == 0 {
				prev, last = last, n
			}
		}
		previous = is
		q.buf[n&(maxName-1)] = c
		n++
	}
	q.n, q.prev, q.last, q.has = n, prev, last, has
}

// letters is the set that a word needs.
func letters(word string) (set uint32) {
	for i := range len(word) {
		set |= 1 << (word[i] - 'a')
	}
	return set
}

// stems make a name sensitive wherever they stand, unless what follows them speaks about the secret only.
var stems = []struct {
	word string
	has  uint32
}{
	{"password", letters("password")}, {"passwd", letters("passwd")}, {"passphrase", letters("passphrase")}, {"secret", letters("secret")},
	{"apikey", letters("apikey")}, {"privatekey", letters("privatekey")}, {"credential", letters("credential")},
}

// about are endings behind a stem that do not hold the secret itself.
var about = []string{
	"age", "algorithm", "algo", "arn", "ary", "at", "attempts", "count", "enabled", "expired", "expires", "expiresin", "expiration", "expiry", "field",
	"file", "format", "hint", "history", "id", "ids", "in", "label", "length", "less", "manager", "management", "method", "mode", "name", "names",
	"path", "policy", "prefix", "provider", "ref", "required", "reset", "rotation", "rules", "score", "status", "strength", "type", "types", "uri",
	"url", "valid", "version", "scope", "scopes", "source", "store", "limit", "min", "max", "minlength", "maxlength", "changed", "exists", "set",
	"keyref", "keyselector",
}

// class judges the name.
func (q *squashed) class() class {
	name := view(q.buf[:q.n])
	for i := 0; len(name) >= 6 && i < len(stems); i++ {
		if s := &stems[i]; q.has&s.has == s.has {
			if at := strings.LastIndex(name, s.word); at >= 0 {
				if c := stemmed(name[:at], name[at+len(s.word):], s.word); c != harmless {
					return c
				}
			}
		}
	}
	for len(name) > 1 && charClass[name[len(name)-1]]&charDigit != 0 {
		name = name[:len(name)-1]
	}
	if len(name) < 2 {
		return harmless
	}
	last := min(q.last, len(name))
	if last > 0 && strings.HasPrefix(name[last:], "token") && slices.Contains(markers, name[q.prev:last]) {
		return harmless // next_page_token
	}
	return judge(name, name[last:])
}

// stemmed judges what follows a stem.
func stemmed(before, after, stem string) class {
	after = strings.TrimRight(after, "0123456789")
	if strings.HasSuffix(after, "at") && len(after) > 4 { // password_changed_at
		return harmless
	}
	for _, a := range about {
		if stem == "credential" && after == "s" && strings.HasSuffix(before, "allow") { // Access-Control-Allow-Credentials
			return harmless
		}
		if after == a && (stem != "secret" || after != "id" || before != "") { // Vault's secret_id is one
			return harmless
		}
	}
	if stem == "secret" && (strings.HasPrefix(after, "ar") || strings.HasPrefix(after, "ion")) {
		return harmless
	}
	return secret
}

// looksLikeKey tells whether a value under a weak name is likely to open something.
func looksLikeKey(v string) bool {
	if len(v) < 16 || len(v) > 2048 {
		return false
	}
	digits, alpha := 0, 0
	for i := range len(v) {
		switch c := charClass[v[i]]; {
		case c&charDigit != 0:
			digits++
		case c&(charUpper|charLower) != 0:
			alpha++
		case strings.IndexByte("-_.~+/=%:", v[i]) < 0:
			return false
		}
	}
	return digits >= 2 && alpha >= 2
}
