package redact

// stripe looks for what a card's magnetic stripe holds, around the number from i to j: removed as a whole, never masked.
//
// Track 1 is %B number ^ name ^ expiry …?, track 2 is ; number = expiry …? with D in place of = where it comes from a chip. It returns j where
// there is none.
func (sc *scanner) stripe(i, j int) int {
	s := sc.s
	if j >= len(s) || j-i < 12 || j-i > 19 {
		return j
	}
	switch s[j] {
	case '^':
		if end := trackOne(s, j); end > j || sc.cut {
			start := i
			if start > 0 && (s[start-1] == 'B' || s[start-1] == 'b') {
				start--
				if start > 0 && s[start-1] == '%' {
					start--
				}
			}
			if end == j {
				end = len(s)
			}
			return sc.add(start, end, labelTrack, hide)
		}
	case '=', 'D', 'd':
		end := wordEnd(s, j+1, charDigit)
		if sentinel := i > 0 && s[i-1] == ';'; end-j-1 >= 4 && isMonth(s[j+3:j+5]) && (sentinel || issued(s[i:j]) && end-j-1 >= 7) {
			start := i
			if sentinel {
				start--
			}
			if end < len(s) && (s[end] == 'F' || s[end] == 'f') {
				end++
			}
			if end < len(s) && s[end] == '?' {
				end++
			}
			return sc.add(start, end, labelTrack, hide)
		}
	}
	return j
}

// trackOne is where track 1 ends whose first ^ is at j, or j.
func trackOne(s string, j int) int {
	const longestName, longest = 32, 90
	second := j + 1
	for second < len(s) && second-j < longestName && s[second] != '^' {
		if s[second] == '\n' || s[second] == '"' {
			return j
		}
		second++
	}
	if second >= len(s) || s[second] != '^' {
		return j
	}
	end := second + 1
	for end < len(s) && end-second < longest && (isAlnum(s[end]) || s[end] == ' ') {
		end++
	}
	if end-second < 5 {
		return j
	}
	if end < len(s) && s[end] == '?' {
		end++
	}
	return end
}

func isMonth(s string) bool {
	return s[0] == '0' && s[1] >= '1' && s[1] <= '9' || s[0] == '1' && s[1] >= '0' && s[1] <= '2'
}

// securityCode hides the digits from i to j where the words before them say what they are.
func (sc *scanner) securityCode(i, j int) int {
	s := sc.s
	if i < 4 || j < len(s) && isAlnum(s[j]) {
		return j
	}
	at, told, of := i, false, ""
	for range 3 {
		end := at
		for end > 0 && at-end < 8 && isFiller(s[end-1]) {
			if s[end-1] == ':' || s[end-1] == '=' {
				told = true
			}
			end--
		}
		start := end
		for start > 0 && end-start < 12 && isAlnum(s[start-1]) {
			start--
		}
		if end == at && at != i || start == end || !maybeCode[s[end-1]] {
			return j
		}
		word := s[start:end]
		switch {
		case foldWord(word, "is"), foldWord(word, "was"):
			told = true
		case foldWord(word, "code"), foldWord(word, "number"), foldWord(word, "no"), foldWord(word, "value"):
			of = word
		case foldWord(word, "cvv"), foldWord(word, "cvc"), foldWord(word, "cvn"), foldWord(word, "cvv2"), foldWord(word, "cvc2"), foldWord(word, "cvn2"),
			foldWord(word, "csc"), foldWord(word, "cav2"):
			return sc.add(i, j, labelCVV, hide)
		case foldWord(word, "security"), foldWord(word, "verification"):
			if of != "" && foldWord(of, "code") && foldWord(word, "security") {
				return sc.add(i, j, labelCVV, hide)
			}
			return j
		case foldWord(word, "pin"):
			if told {
				return sc.add(i, j, labelCVV, hide)
			}
			return j
		default:
			return j
		}
		at = start
	}
	return j
}

// maybeCode are the last letters of the words that securityCode knows.
var maybeCode = func() (t [256]bool) {
	for _, c := range []byte("svcneroy2SVCNEROY") {
		t[c] = true
	}
	return t
}()

func isFiller(c byte) bool {
	switch c {
	case ' ', '\t', ':', '=', '"', '\'', '#', '(', '[', '\\', '-', '_', '>':
		return true
	}
	return false
}

func foldWord(s, lower string) bool { return len(s) == len(lower) && foldPrefix(s, lower) }

// afterCard hides the security code of a line such as 4111111111111111|12|2027|123: month, year and code right behind a number. It returns where
// to go on.
func (sc *scanner) afterCard(j int) int {
	s := sc.s
	month := nextGroup(s, j)
	year := nextGroup(s, month.end)
	last := nextGroup(s, year.end)
	if n := month.end - month.start; n < 1 || n > 2 || n == 2 && !isMonth(s[month.start:month.end]) {
		return j
	}
	if n := year.end - year.start; n != 2 && n != 4 {
		return j
	}
	if n := last.end - last.start; n != 3 && n != 4 || last.end < len(s) && isAlnum(s[last.end]) {
		return j
	}
	return sc.add(last.start, last.end, labelCVV, hide)
}

// nextGroup is the run of digits behind i, where nothing but a separator stands between.
func nextGroup(s string, i int) hit {
	start := i
	for start < len(s) && start-i < 3 {
		if c := s[start]; c != '|' && c != ',' && c != ';' && c != '/' && c != ':' && c != ' ' && c != '\t' && c != '-' {
			break
		}
		start++
	}
	if start == i {
		return hit{start: i, end: i}
	}
	return hit{start: start, end: wordEnd(s, start, charDigit)}
}

// botToken is a number, a colon and 35 characters more.
func (sc *scanner) botToken(i, j int) int {
	end := wordEnd(sc.s, j+1, charAlnum|charDash)
	if n := end - j - 1; n >= 34 && n <= 40 || sc.cut && end == len(sc.s) && n >= 8 {
		return sc.add(i, end, labelTelegram, hide)
	}
	return j
}
