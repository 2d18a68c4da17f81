package redact

import "strings"

// isReference tells whether what stands behind name is no value but tells where one comes from, or that one was taken out: password=${DB_PASSWORD},
// password=%s, token: e.token, password=[FILTERED], password=****.
func (sc *scanner) isReference(name string, v value) bool {
	s := sc.s
	text := s[v.start:v.end]
	if text == "" {
		return false
	}
	switch c := text[0]; {
	case c == '*' || c == 'x' || c == 'X':
		return len(text) >= 3 && strings.TrimLeft(text, text[:1]) == "" && (c == '*' || len(text) >= 6)
	case c == '[' || c == '<':
		return isBlank(text)
	case c == '%':
		return len(text) == 2 && charClass[text[1]]&charAlpha != 0
	case c == '?':
		return len(text) == 1
	case c == '$':
		return sc.isVariable(name, text, v)
	case v.quoted:
		return false
	case v.start > 0 && s[v.start-1] == ':' && text == name: // password=:password
		return true
	case charClass[c]&charAlpha != 0 || c == '_':
		return sc.isCode(name, text)
	}
	return false
}

// blanks are what programs write where they took something out.
var blanks = []string{"filtered", "redacted", "masked", "hidden", "protected", "secret", "removed", "scrubbed"}

func isBlank(text string) bool {
	if end := text[len(text)-1]; len(text) < 3 || end != ']' && end != '>' {
		return false
	}
	for _, w := range blanks {
		if foldWord(text[1:len(text)-1], w) {
			return true
		}
	}
	return false
}

// isVariable: ${NAME}, ${{ secrets.NAME }}, $1, and $NAME where the name says what it holds.
func (sc *scanner) isVariable(name, text string, v value) bool {
	if strings.HasPrefix(text, "${") {
		if text == "${{" {
			return true
		}
		end := 2 + wordEnd(text[2:], 0, charAlnum|charDash|charDot)
		return end > 2 && (end == len(text) && v.end < len(sc.s) && sc.s[v.end] == '}' || end == len(text)-1 && text[end] == '}')
	}
	if len(text) < 2 || wordEnd(text, 1, charAlnum|charDash) < len(text) {
		return false
	}
	if variable := text[1:]; len(text) > 3 || !isID(variable) { // $DB_PASSWORD, or $password behind password=, but no password such as $Secret1
		shell := strings.IndexByte(variable, '_') > 0 && strings.ToUpper(variable) == variable && sc.judge(variable).hides()
		return shell || sameWord(variable, name[strings.LastIndexByte(name, '.')+1:])
	}
	return true
}

// getters are functions and tables from which programs take settings.
var getters = []string{"os.getenv", "os.Getenv", "os.environ", "os.environ.get", "os.LookupEnv", "System.getenv", "process.env", "getenv", "ENV", "ENV.fetch"}

// makers are words with which the names of functions begin.
var makers = []string{"get", "generate", "make", "create", "read", "load", "fetch", "new", "encrypt", "decrypt", "hash", "next", "ask", "prompt"}

// isCode: req.body.password behind password=, os.getenv(…, getToken().
func (sc *scanner) isCode(name, text string) bool {
	end := wordEnd(text, 0, charAlnum|charDot)
	for end < len(text) && text[end] == '_' {
		end = wordEnd(text, end+1, charAlnum|charDot)
	}
	path, rest := text[:end], text[end:]
	if rest != "" && strings.IndexByte("([),;", rest[0]) < 0 {
		return false
	}
	if rest != "" && (rest[0] == '(' || rest[0] == '[') {
		for _, g := range getters {
			if path == g {
				return true
			}
		}
		last := path[strings.LastIndexByte(path, '.')+1:]
		for _, w := range makers {
			if rest[0] == '(' && strings.HasPrefix(last, w) && len(last) > len(w) && sc.judge(last).hides() {
				return true
			}
		}
		return false
	}
	dot := strings.LastIndexByte(path, '.')
	return dot > 0 && len(path)-dot > 2 && sameWord(path[dot+1:], name[strings.LastIndexByte(name, '.')+1:])
}

// sameWord compares names without regard to case and separators.
func sameWord(a, b string) bool {
	var x, y squashed
	x.set(a)
	y.set(b)
	return string(x.bytes()) == string(y.bytes())
}

// isScope tells whether the : at i is no separator but half of the :: of Token::new and .cvv::after, or one within the name of a resource of AWS.
func isScope(s string, start, i int) bool {
	if at := i; i > 0 && i+2 < len(s) && (s[i-1] == ':' || s[i+1] == ':') {
		if s[i+1] == ':' {
			at++
		}
		end := wordEnd(s, at+1, charAlpha)
		return end > at+1 && (end == len(s) || !isDigit(s[end]))
	}
	if start == 0 || s[start-1] != ':' {
		return false
	}
	before := s[max(0, start-128):start]
	return strings.Contains(before[strings.LastIndexAny(before, " \"'")+1:], "arn:")
}

// isPosition tells whether what looks like a name and a value is a file and a line: Password.java:42.
func isPosition(name, text string) bool {
	at := strings.LastIndexByte(name, '.')
	if at < 0 || len(name)-at > 6 || text == "" || !isDigit(text[0]) {
		return false
	}
	end := wordEnd(text, 0, charDigit)
	if end > 6 || end < len(text) && text[end] != ':' && text[end] != ')' {
		return false
	}
	switch name[at+1:] {
	case "java", "go", "py", "js", "ts", "jsx", "tsx", "mjs", "rb", "php", "kt", "cs", "scala", "rs", "c", "cc", "cpp", "h", "swift", "ex", "exs":
		return true
	}
	return false
}
