package redact

import "strings"

// pair looks at the : or = at i: a secret may stand behind it, by the name before it or as the user of a URL. It knows prose, logs, JSON, code and
// connection strings well enough; bodies have readers of their own.
func (sc *scanner) pair(i int) int {
	s := sc.s
	if s[i] == ':' {
		rest := s[i+1:]
		if strings.HasPrefix(rest, "//") {
			return sc.userinfo(i + 3)
		}
		if strings.HasPrefix(rest, `\/\/`) {
			return sc.userinfo(i + 5)
		}
	}
	start, end := nameBefore(s, i)
	if start == end || s[i] == ':' && start == sc.host && start > 0 && portAt(s, i+1) {
		return i + 1
	}
	c := sc.classify(start, end)
	if c < secret && start > 0 && (s[start-1] == '%' || s[start-1] == '\\') || c < secret && start > 1 && s[start-2] == '\\' {
		c = max(c, sc.escapedName(start, end))
	}
	if c < number && end-start <= 6 {
		c = sc.twoWords(start, end, c)
	}
	if c == harmless && s[i] == ':' && end-start == len("value") && foldPrefix(s[start:], "value") {
		c = sc.named(start)
	}
	if c == harmless {
		return i + 1
	}
	if c == weak && (s[i] != '=' || start == 0 || s[start-1] != '?' && s[start-1] != '&') {
		return i + 1
	}
	if s[i] == ':' && isScope(s, start, i) {
		return i + 1
	}
	if c == number { // of a block the beginning decides, and not each is read to its end for that
		if b := blockAt(s, i+1, 2*longestNumber); b.end-b.start >= longestNumber && !isNumberLike(s[b.start:b.start+longestNumber]) {
			return i + 1
		}
	}
	v := valueAt(s, i, &sc.last)
	if v.start == v.end {
		return i + 1
	}
	return sc.value(i, v, c)
}

func (sc *scanner) classify(start, end int) class { return sc.judge(sc.s[start:end]) }

// judge is classify but for what is no name at all.
func (sc *scanner) judge(name string) class {
	if len(name) < 2 || isDigit(name[0]) && isDigit(name[len(name)-1]) {
		return harmless // "", a time of day
	}
	return sc.r.classify(name)
}

// escapedName is the class of the name that ends at end where some of its letters are written %77 or \u0077.
func (sc *scanner) escapedName(start, end int) class {
	s := sc.s
	from := start
	for from > 0 && end-from < 4*64 && (charClass[s[from-1]]&(charAlnum|charName) != 0 || s[from-1] == '%' || s[from-1] == '\\') {
		from--
	}
	var buf [4 * 64]byte
	var text [4 * 64]byte
	name := unescape(buf[:0], s[from:end], false)
	if strings.IndexByte(s[from:end], '\\') >= 0 {
		name = appendUnquoted(text[:0], view(name))
	}
	return sc.judge(view(name))
}

// nameBefore is the name that ends before the separator at i, quotes and spaces skipped.
func nameBefore(s string, i int) (start, end int) {
	end = i
	for end > 0 && i-end < 3 && (s[end-1] == ' ' || s[end-1] == '\t' || s[end-1] == ':') {
		end--
	}
	for n := 0; end > 0 && n < 8 && (s[end-1] == '"' || s[end-1] == '\'' || s[end-1] == '`' || s[end-1] == '\\'); n++ {
		end--
	}
	start = end
	for start > 0 && end-start < 64 && charClass[s[start-1]]&(charAlnum|charName) != 0 {
		start--
	}
	if start > 0 && start < end && s[start-1] == '\\' { // \nname
		start++
	}
	return start, end
}

// twoWords judges names such as "api key": the last word alone says too little.
func (sc *scanner) twoWords(start, end int, c class) class {
	switch last := sc.s[start:end]; {
	case foldWord(last, "key"), foldWord(last, "code"), foldWord(last, "number"), foldWord(last, "phrase"), foldWord(last, "id"), foldWord(last, "data"):
	default:
		return c
	}
	if start < 2 || sc.s[start-1] != ' ' {
		return c
	}
	before := start - 1
	for before > 0 && start-before < 32 && isAlnum(sc.s[before-1]) {
		before--
	}
	if two := sc.classify(before, end); two > weak {
		return two
	}
	return c
}

// value is what stands behind a separator.
type value struct {
	start, end int
	quoted     bool
}

// maxGap is how many spaces may stand before a value: tables are aligned with them.
const maxGap = 64

// valueAt finds the value behind the separator at i. last is the one without quotes that was read before in s.
func valueAt(s string, i int, last *run) value {
	v := i + 1
	if b := blockAt(s, v, longestBlock); b.end > 0 {
		return b
	}
	for v < len(s) && v-i < 3 && (s[v] == '=' || s[v] == '>' || s[v] == ':') {
		v++
	}
	for n := 0; v < len(s) && n < maxGap && (s[v] == ' ' || s[v] == '\t'); n++ {
		v++
	}
	if v+1 < len(s) && s[v] == '+' { // a space of a form
		v++
	}
	open := v
	for open < len(s) && open-v < 8 && s[open] == '\\' {
		open++
	}
	if open < len(s) && (s[open] == '"' || s[open] == '\'' || s[open] == '`') {
		return quotedAt(s, open, open-v)
	}
	if v < len(s) && (s[v] == '{' || s[v] == '[') && placeholderAt(s[v:]) == 0 || strings.HasPrefix(s[v:], "//") {
		return value{v, v, false}
	}
	end := v + placeholderAt(s[v:])
	if end >= last.start && end <= last.end { // password:password:password: is read once
		return value{v, last.end, false}
	}
	last.start = end
	for end < len(s) && !endsValue(s, end) {
		end++
	}
	last.end = end
	return value{v, end, false}
}

// quotedAt is what stands in the quotes that open at open, behind that many backslashes.
func quotedAt(s string, open, backslashes int) value {
	const longest = 4096
	quote := s[open]
	if backslashes == 0 && open+3 < len(s) && s[open+1] == quote && s[open+2] == quote { // """x"""
		start := open + 3
		if n := strings.Index(s[start:min(len(s), start+longest)], s[open:start]); n >= 0 {
			return value{start, start + n, true}
		}
	}
	if backslashes == 0 && open+2 < len(s) && s[open+1] == quote && isAlnum(s[open+2]) { // ""x"" within a quoted field of a table
		start := open + 2
		if n := strings.Index(s[start:min(len(s), start+longest)], s[open:start]); n >= 0 {
			return value{start, start + n, true}
		}
	}
	for end := open + 1; end < len(s) && end-open < longest; end++ {
		switch s[end] {
		case '\\':
			if backslashes == 0 {
				end++
			}
		case quote:
			stop := end
			for stop > open+1 && backslashes > 0 && s[stop-1] == '\\' {
				stop--
			}
			if backslashes > 0 && end-stop > backslashes { // a quote within the value
				continue
			}
			return value{open + 1, stop, true}
		}
	}
	end := open + 1
	for end < len(s) && s[end] != '\n' && s[end] != '\r' {
		end++
	}
	return value{open + 1, end, true}
}

// longestBlock is how much of a block is read.
const longestBlock = 4096

// blockAt is a block of YAML behind the colon before i: a | or > and lines that are indented, as far as they begin within longest bytes.
func blockAt(s string, i, longest int) value {
	for i < len(s) && s[i] == ' ' {
		i++
	}
	if i+1 >= len(s) || s[i] != '|' && s[i] != '>' {
		return value{}
	}
	for i++; i < len(s) && (s[i] == '-' || s[i] == '+' || isDigit(s[i]) || s[i] == ' ' || s[i] == '\r'); {
		i++
	}
	if i >= len(s) || s[i] != '\n' {
		return value{}
	}
	start, indent, end := 0, 0, 0
	for line := i + 1; line < len(s) && line-i < longest; {
		text := line
		for text < len(s) && (s[text] == ' ' || s[text] == '\t') {
			text++
		}
		next := len(s)
		if n := strings.IndexByte(s[text:], '\n'); n >= 0 {
			next = text + n
		}
		if blank := text == next; !blank {
			if start == 0 {
				start, indent = text, text-line
			}
			if text-line < indent || indent == 0 {
				break
			}
			end = next
		}
		line = next + 1
	}
	if end == 0 {
		return value{}
	}
	return value{start, end, true}
}

// endsValue tells whether a value without quotes ends at i.
func endsValue(s string, i int) bool {
	switch s[i] {
	case ' ', '\t', '\n', '\r', '"', '\'', '`', '<', '>', '&', ';', '\\':
		return true
	case ',', ')', '}', ']':
		return i+1 == len(s) || strings.IndexByte(" \t\r\n,;)}]\"'\\", s[i+1]) >= 0 || s[i] == ',' && beginsPair(s, i+1)
	}
	return false
}

// beginsPair: in a=b,c=d the value ends at the comma.
func beginsPair(s string, i int) bool {
	end := wordEnd(s, i, charAlnum|charDash|charDot)
	return end > i && end < len(s) && (s[end] == '=' || s[end] == ':')
}

// states are words that stand behind a name to say how things are.
var states = []string{
	"true", "false", "null", "nil", "none", "undefined", "required", "optional", "invalid", "missing", "expired", "empty", "string", "unset", "wrong",
	"incorrect", "must", "is", "not", "bearer", "basic", "<nil>", "yes", "no", "str", "bytes", "int", "bool", "boolean", "number", "object", "any",
}

// longestNumber is how much of a value is looked at that may be a card number.
const longestNumber = 128

// value hides v, which stands behind a name of class c, and returns where to go on.
func (sc *scanner) value(i int, v value, c class) int {
	s := sc.s
	text := s[v.start:v.end]
	if isPlaceholder(text) && c != authorization && c != cookie {
		return v.end
	}
	start, end := nameBefore(s, i)
	name := s[start:end]
	if inner := strings.TrimSuffix(text, ":"); inner != text && !v.quoted && sc.judge(inner).hides() { // auth: password: x
		return i + 1
	}
	switch {
	case sc.isReference(name, v), s[i] == ':' && isPosition(name, text), s[i] == '=' && isDirectory(name, text), isMode(name, text):
		return i + 1
	}
	if !v.quoted {
		for _, w := range states {
			if foldWord(text, w) && (c != authorization || w != "bearer" && w != "basic") {
				return i + 1
			}
		}
	}
	switch c {
	case weak:
		if !looksLikeKey(text) {
			return i + 1
		}
	case number:
		if !isNumberLike(text[:min(len(text), longestNumber)]) {
			return i + 1 // what is a card number is found and masked as such
		}
	case authorization:
		return sc.credentials(v)
	case cookie:
		if !v.quoted {
			v.end = lineEnd(s, v.start)
		}
		if isHidden(s[v.start:v.end]) {
			return v.end
		}
	}
	if at := strings.Index(s[v.start:min(len(s), v.end+1)], "-----BEGIN "); at >= 0 { // a key of several lines, of which the value is but the first
		sc.add(v.start, v.end, c.label(), hide)
		return max(v.end, sc.privateKey(v.start+at))
	}
	return sc.add(v.start, v.end, c.label(), hide)
}

// named is the class of the name on the line before the one of start, as in a list of YAML: "- name: PASSWORD" and "  value: x".
func (sc *scanner) named(start int) class {
	s := sc.s
	line := strings.LastIndexByte(s[max(0, start-128):start], '\n')
	if line < 0 {
		return harmless
	}
	before := s[max(0, start-256) : max(0, start-128)+line]
	before = strings.TrimLeft(before[strings.LastIndexByte(before, '\n')+1:], " -")
	name, value, found := strings.Cut(before, ":")
	if !found || !foldWord(name, "name") && !foldWord(name, "key") {
		return harmless
	}
	return sc.r.classify(strings.Trim(value, " \"'\r"))
}

// isDirectory: the shell's PWD=/app.
func isDirectory(name, text string) bool {
	return (name == "PWD" || name == "OLDPWD") && text[0] == '/'
}

// isMode: fetch(url, {credentials: "include"}).
func isMode(name, text string) bool {
	return name == "credentials" && (text == "include" || text == "same-origin" || text == "omit")
}

// credentials hides the value of an Authorization field in running text, up to the end of its line. The scheme stays.
func (sc *scanner) credentials(v value) int {
	s := sc.s
	start := v.start + schemeLength(s[v.start:min(len(s), v.start+64)])
	if !v.quoted {
		v.end = lineEnd(s, start)
	}
	if start >= v.end || isHidden(s[start:v.end]) {
		return max(v.end, start+placeholderAt(s[start:]))
	}
	return sc.add(start, v.end, labelAuthorization, hide)
}

// isHidden tells whether s is a placeholder and at most some punctuation.
func isHidden(s string) bool {
	n := placeholderAt(s)
	return n > 0 && strings.Trim(s[n:], " \t,;)]}") == ""
}

// lineEnd is where the line or the quotes around i end. What is quoted behind a =, as in Digest's response="…", is a part of it.
func lineEnd(s string, i int) int {
	for start := i; i < len(s); i++ {
		switch s[i] {
		case '\n', '\r', '\\', '\'', '`':
			return i
		case '"':
			if i == start || s[i-1] != '=' {
				return i
			}
			n := strings.IndexAny(s[i+1:], "\"\r\n")
			if n < 0 || s[i+1+n] != '"' {
				return i
			}
			i += 1 + n
		case '<':
			if n := placeholderAt(s[i:]); n > 0 {
				i += n - 1
			} else if i+1 < len(s) && (s[i+1] == '/' || isAlnum(s[i+1]) && strings.IndexByte(s[i:min(len(s), i+64)], '>') > 0) {
				return i // a tag
			}
		}
	}
	return i
}

// userinfo hides the user of the URL whose authority begins at i.
func (sc *scanner) userinfo(i int) int {
	s := sc.s
	i = min(i, len(s))
	most := min(len(s), i+1024)
	sc.host = i
	if !sc.cut && strings.IndexByte(s[i:most], '@') < 0 {
		return i
	}
	at := -1
	end := i
scan:
	for end < most {
		switch s[end] {
		case '@':
			at = end
		case '/', '?', '#', '"', '\'', '`', '<', '>', ' ', '\t', '\n', '\r', '\\':
			break scan
		}
		end++
	}
	if at < 0 && sc.cut && end == len(s) {
		if colon := strings.IndexByte(s[i:end], ':'); colon >= 0 && !isPort(s[i+colon+1:end]) {
			return sc.add(i, end, labelUserinfo, hide)
		}
	}
	if at <= i || isPlaceholder(s[i:at]) {
		return i
	}
	return sc.add(i, at, labelUserinfo, hide)
}

// portAt tells whether a port and nothing more of a host stands at i.
func portAt(s string, i int) bool {
	end := wordEnd(s[:min(len(s), i+6)], i, charDigit)
	return end > i && end-i <= 5 && (end == len(s) || s[end] == '/')
}

func isPort(s string) bool { return len(s) <= 5 && countDigits(s) == len(s) }

// schemes are the words of authentication schemes.
var schemes = []string{
	"bearer", "basic", "digest", "token", "apikey", "api-key", "key", "negotiate", "ntlm", "hawk", "hmac", "oauth", "dpop", "signature", "hoba", "mutual",
	"aws4-hmac-sha256", "aws4-ecdsa-p256-sha256", "aws", "sharedkey", "sharedkeylite", "sharedaccesssignature", "ssws", "splunk", "genie", "genie-key",
	"goog4-rsa-sha256", "goog4-hmac-sha256", "privatetoken", "bot", "client", "googlelogin", "vapid", "websession", "jwt", "hmac-sha256", "zoho-oauthtoken",
}

// schemeLength is the length of the scheme's word and the spaces after it at the beginning of credentials, 0 where there is no known one.
func schemeLength(s string) int {
	end := wordEnd(s, 0, charAlnum|charDash)
	if end == 0 || end >= len(s) || s[end] != ' ' {
		return 0
	}
	for _, w := range schemes {
		if foldWord(s[:end], w) {
			for end < len(s) && s[end] == ' ' {
				end++
			}
			return end
		}
	}
	return 0
}
