package redact

import "strings"

// near is how far back the word is looked for that says what a text is about.
const near = 512

// dash looks at a - : a private key, the flag of a command with its value, or the data center behind a Mailchimp key.
func (sc *scanner) dash(i int) int {
	s := sc.s
	if i+2 >= len(s) {
		return i + 1
	}
	switch c := s[i+1]; {
	case c == 'u' && s[i+2] == 's':
		return sc.mailchimp(i)
	case c == 'u':
		return sc.user(i, i+2)
	case s[i+2] == '-':
		return sc.privateKey(i)
	case i > 0 && s[i-1] == '-':
		return i + 1
	}
	return sc.flag(i)
}

// flag hides the value of --password x. What is written --password=x is a pair.
func (sc *scanner) flag(i int) int {
	s := sc.s
	start := i + 2
	end := start + wordEnd(s[start:min(len(s), start+65)], 0, charAlnum|charDash)
	if end >= len(s) || s[end] != ' ' && s[end] != '=' && s[end] != '+' || end-start < 3 || end-start > 64 {
		return i + 1
	}
	name := s[start:end]
	if name == "user" || name == "proxy-user" {
		return sc.user(i, end)
	}
	if s[end] == '=' {
		return i + 1
	}
	if c := sc.judge(name); !c.hides() {
		return i + 1
	}
	v := argumentAt(s, end, &sc.argument)
	if v.start == v.end || s[v.start] == '-' || !v.quoted && !isArgument(s[v.start:v.end]) || sc.isReference(name, v) {
		return i + 1
	}
	return sc.add(v.start, v.end, labelSecret, hide)
}

// isArgument tells a value from the next word of a sentence about a flag.
func isArgument(s string) bool {
	s, _, _ = strings.Cut(s, "%")
	s = strings.TrimRight(s, ".,;:!?)]}")
	return wordEnd(s, 0, charLower) < len(s) && wordEnd(s, 0, charUpper|charDash) < len(s) // nor PASSWORD of a usage text
}

// user hides the user and password that curl takes after -u or --user.
func (sc *scanner) user(i, end int) int {
	s := sc.s
	if i > 0 && !isSpace(s[i-1]) && s[i-1] != '+' && s[i-1] != '"' && s[i-1] != '\'' {
		return i + 1
	}
	if before := s[max(0, i-near):i]; !strings.Contains(before[strings.LastIndexByte(before, '\n')+1:], "curl") {
		return i + 1
	}
	v := argumentAt(s, end, &sc.argument)
	colon := strings.IndexByte(s[v.start:min(v.end, v.start+4*near)], ':')
	if colon < 0 || isID(s[v.start:v.start+colon]) && isID(s[v.start+colon+1:v.end]) {
		return i + 1
	}
	return sc.add(v.start, v.end, labelUserinfo, hide)
}

// isID: docker run -u 1000:1000.
func isID(s string) bool { return wordEnd(s, 0, charDigit) == len(s) }

// argumentAt is the argument behind the flag that ends at end. last is the one without quotes that was read before in s.
func argumentAt(s string, end int, last *run) value {
	if end >= len(s) {
		return value{}
	}
	v := end
	for n := 0; v < len(s) && n < 4 && (s[v] == ' ' || s[v] == '=' || s[v] == '+'); n++ {
		v++
	}
	open := v
	for open < len(s) && open-v < 4 && s[open] == '\\' {
		open++
	}
	if open < len(s) && (s[open] == '"' || s[open] == '\'') {
		return quotedAt(s, open, open-v)
	}
	formed := s[end] == '+' // a space of a form; another one ends it
	if !formed && v >= last.start && v <= last.end {
		return value{v, last.end, false}
	}
	stop := v
	for stop < len(s) && !isSpace(s[stop]) && !(formed && s[stop] == '+') && s[stop] != '"' && s[stop] != '\'' && s[stop] != '\\' && s[stop] != '`' && s[stop] != '<' {
		stop++
	}
	if !formed {
		*last = run{v, stop}
	}
	return value{v, stop, false}
}

// call hides the text that is given to a function such as setPassword("x") or withToken('x').
func (sc *scanner) call(i int) int {
	s := sc.s
	start := i
	for start > 0 && i-start < 64 && isAlnum(s[start-1]) {
		start--
	}
	name := s[start:i]
	if !strings.HasPrefix(name, "set") && !strings.HasPrefix(name, "with") || !sc.judge(name).hides() {
		return i + 1
	}
	v := quotedAt(s, i+1, 0)
	if v.start == v.end || sc.isReference(name, v) {
		return i + 1
	}
	return sc.add(v.start, v.end, labelSecret, hide)
}

// closing hides what stands before an end tag with a sensitive name, in a text that is no XML as a whole.
func (sc *scanner) closing(i int) int {
	const longest = 4096
	s := sc.s
	end := wordEnd(s, i+2, charAlnum|charDash|charDot)
	if end < len(s) && s[end] == ':' { // a namespace
		i, end = end-2, wordEnd(s, end+1, charAlnum|charDash|charDot)
	}
	if end >= len(s) || s[end] != '>' || end-i-2 > 64 {
		return i + 1
	}
	c := sc.judge(strings.TrimPrefix(s[i+2:end], ":"))
	if !c.hides() {
		return end
	}
	stop := strings.LastIndexByte(s[:i+2], '<')
	start := strings.LastIndexAny(s[max(0, stop-longest):stop], "<>") + 1 + max(0, stop-longest)
	if start == 0 || s[start-1] != '>' {
		return end
	}
	text := s[start:stop]
	if value := strings.TrimSpace(text); value != "" && !isPlaceholder(value) {
		start += strings.Index(text, value)
		sc.add(start, start+len(value), c.label(), hide)
	}
	return end
}

// mailchimp hides 32 hex digits, a dash and us12.
func (sc *scanner) mailchimp(i int) int {
	const length = 32
	s := sc.s
	end := wordEnd(s, i+3, charDigit)
	start := i - length
	if start < 0 || end == i+3 || end > i+5 || end < len(s) && isAlnum(s[end]) || !boundaryBefore(s, start) || wordEnd(s[start:i], 0, charHex) < length {
		return i + 1
	}
	return sc.add(start, end, labelMailchimp, hide)
}

// statement hides the password of an SQL statement, before whose quote the space at i stands: IDENTIFIED BY 'x', PASSWORD 'x'.
func (sc *scanner) statement(i int) int {
	s := sc.s
	switch {
	case endsWith(s, i, "password"):
	case endsWith(s, i, "identified by") && definesUser(s[max(0, i-near):i]):
	default:
		return i + 1
	}
	v := quotedAt(s, i+1, 0)
	if v.start == v.end || sc.isReference("password", v) {
		return i + 1
	}
	return sc.add(v.start, v.end, labelSecret, hide)
}

// endsWith tells whether these words, in lower case here, end at i.
func endsWith(s string, i int, words string) bool {
	start := i - len(words)
	return start >= 0 && foldPrefix(s[start:], words) && boundaryBefore(s, start)
}

// definesUser tells whether an SQL statement about users stands in s.
func definesUser(s string) bool {
	for i := range len(s) {
		switch s[i] | 0x20 {
		case 'c', 'a', 'g':
			if foldPrefix(s[i:], "create user") || foldPrefix(s[i:], "alter user") || foldPrefix(s[i:], "grant ") {
				return true
			}
		}
	}
	return false
}
