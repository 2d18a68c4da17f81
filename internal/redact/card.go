package redact

import "strings"

// digits looks at the run of digits that begins at i: a card number, a magnetic stripe, a security code by what stands before it, a bot's token.
func (sc *scanner) digits(i int) int {
	s := sc.s
	j := i + 2
	for j < len(s) && isDigit(s[j]) {
		j++
	}
	if skip := escapeDigits(s, i); skip > 0 && (!isCard(s[i:j]) || s[i:i+2] == "25") { // %22 or \u0022, and a number right behind it
		if i = min(i+skip, j); i == j {
			return j
		}
	}
	switch n := j - i; {
	case n < 3:
		return j
	case n == 3:
		return sc.securityCode(i, j)
	case n == 4 || n == 6 || n == 8:
		if n == 4 {
			if sc.securityCode(i, j); len(sc.hits) > 0 && sc.hits[len(sc.hits)-1].end == j {
				return j
			}
		}
		if k := j + separatorAt(s, j); k > j && k < len(s) && isDigit(s[k]) {
			return sc.grouped(i, j)
		}
		if n == 8 && j < len(s) && s[j] == ':' {
			return sc.botToken(i, j)
		}
		if n == 8 {
			return sc.cutDigits(i, j)
		}
	case n < 12:
		if j < len(s) && s[j] == ':' {
			return sc.botToken(i, j)
		}
		return sc.cutDigits(i, j)
	case n <= 19:
		return sc.contiguous(i, j)
	}
	return j
}

// separatorAt is the length of what separates groups of digits at i: a space, dash or dot, the wider ones of typeset text among them, or 0.
func separatorAt(s string, i int) int {
	if i >= len(s) {
		return 0
	}
	switch s[i] {
	case ' ', '-', '.', '+', '_':
		return 1
	case '&': // the same in HTML
		if strings.HasPrefix(s[i:], "&nbsp;") {
			return len("&nbsp;")
		}
	case 0xc2: // the no-break space
		if i+1 < len(s) && s[i+1] == 0xa0 {
			return 2
		}
	case 0xe2: // figure, thin and narrow no-break spaces, hyphens, the figure and en dashes
		if i+2 < len(s) && s[i+1] == 0x80 && (s[i+2] >= 0x87 && s[i+2] <= 0x8a || s[i+2] >= 0x90 && s[i+2] <= 0x93 || s[i+2] == 0xaf) {
			return 3
		}
	}
	return 0
}

// contiguous looks at a run of digits without separators.
func (sc *scanner) contiguous(i, j int) int {
	if end := sc.stripe(i, j); end > j {
		return end
	}
	if !isCard(sc.s[i:j]) || !sc.standsAlone(i, j) {
		return sc.cutDigits(i, j)
	}
	sc.add(i, j, labelPAN, mask)
	return sc.afterCard(j)
}

// escapeDigits is how many digits at i belong to an escape that began before it: %22, \u0022.
func escapeDigits(s string, i int) int {
	if i >= 1 && s[i-1] == '%' {
		return 2
	}
	if i >= 2 && s[i-2] == '\\' {
		switch s[i-1] {
		case 'u':
			return 4
		case 'x':
			return 2
		}
	}
	return 0
}

// cardWords may stand right before a number.
var cardWords = []string{"card", "pan", "visa", "amex", "cc", "ccn", "number", "num", "no", "nr", "acct", "account", "discover", "jcb", "diners"}

// standsAlone tells whether the digits from i to j are a number of their own, and no part of a hash, an identifier, a decimal or a telephone number.
func (sc *scanner) standsAlone(i, j int) bool {
	s := sc.s
	if j < len(s) {
		if charClass[s[j]]&charAlpha != 0 && !foldPrefix(s[j:], "exp") && !foldPrefix(s[j:], "cv") {
			return false
		}
		if s[j] == '.' && j+1 < len(s) && isDigit(s[j+1]) && !onlyZeros(s, j+1) {
			return false
		}
	}
	if i == 0 {
		return true
	}
	switch before := s[i-1]; {
	case before == '.':
		return i < 2 || !isDigit(s[i-2])
	case before == '+':
		return j-i > 15
	case before == '-' && i >= 6 && s[i-6] == '-' && j-i == 12: // the end of a UUID
		return !isHex(s[i-2]) || !isHex(s[i-3]) || !isHex(s[i-4]) || !isHex(s[i-5])
	case charClass[before]&charAlpha == 0 || boundaryBefore(s, i):
		return true
	}
	start := i
	for start > 0 && i-start < 16 && charClass[s[start-1]]&charAlpha != 0 {
		start--
	}
	if i-start == 2 && isIBAN(s, start) {
		return false
	}
	for _, w := range cardWords {
		if i-start >= len(w) && foldPrefix(s[i-len(w):i], w) && (i-start == len(w) || len(w) > 3) {
			return true
		}
	}
	return false
}

// inIBAN tells whether the group of digits at i stands within an account number: two letters, two check digits, groups of four.
func inIBAN(s string, i int) bool {
	for start := i - 5; start >= 0 && i-start <= 40; start -= 5 {
		if s[start+4] != ' ' && s[start+4] != '+' {
			return false
		}
		if charClass[s[start]]&charUpper != 0 && charClass[s[start+1]]&charUpper != 0 && isDigit(s[start+2]) && isDigit(s[start+3]) && boundaryBefore(s, start) {
			return isIBAN(s, start)
		}
	}
	return false
}

// isIBAN tells whether an account number with valid check digits begins at start.
func isIBAN(s string, start int) bool {
	if start+15 > len(s) || charClass[s[start]]&charUpper == 0 || charClass[s[start+1]]&charUpper == 0 || !isDigit(s[start+2]) || !isDigit(s[start+3]) {
		return false
	}
	remainder := 0
	for i, n := start+4, 4; n < 34; n++ {
		if n%4 == 0 && i+1 < len(s) && (s[i] == ' ' || s[i] == '+') {
			i++
		}
		if i >= len(s) || charClass[s[i]]&(charDigit|charUpper) == 0 {
			return false
		}
		remainder = mod97(remainder, s[i])
		if i++; n < 14 || i < len(s) && isAlnum(s[i]) {
			continue
		}
		whole := remainder // the country and the check digits come last
		for _, c := range []byte(s[start : start+4]) {
			whole = mod97(whole, c)
		}
		if whole == 1 {
			return true
		}
	}
	return false
}

// mod97 goes on with one more character; a letter stands for two digits.
func mod97(remainder int, c byte) int {
	if isDigit(c) {
		return (remainder*10 + int(c-'0')) % 97
	}
	return (remainder*100 + int(c-'A') + 10) % 97
}

// onlyZeros: some programs write a card number as the float that their table made of it.
func onlyZeros(s string, i int) bool {
	for i < len(s) && s[i] == '0' {
		i++
	}
	return i == len(s) || !isAlnum(s[i])
}

// groupings are the ways in which card numbers are printed.
var groupings = [][]uint8{
	{4, 4, 4, 4, 3}, {4, 4, 4, 4, 2}, {4, 4, 4, 4, 1}, {4, 4, 4, 4}, {4, 6, 5}, {4, 6, 4}, {4, 4, 4, 3}, {4, 4, 4, 2}, {4, 4, 4, 1}, {4, 4, 5},
	{4, 3, 3, 3}, {4, 4, 4}, {6, 13}, {6, 10}, {8, 8}, {4, 4, 8}, {4, 4, 6}, {4, 5, 6},
}

// grouped looks at digits in groups; the first reaches from i to j.
func (sc *scanner) grouped(i, j int) int {
	s := sc.s
	separator := s[j : j+separatorAt(s, j)]
	var sizes [5]uint8
	var ends [5]int
	var number [24]byte
	groups, total := 0, 0
	for at := i; groups < len(sizes); {
		end := at
		for end < len(s) && isDigit(s[end]) && end-at <= 13 {
			end++
		}
		if end == at || total+end-at > 19 {
			break
		}
		copy(number[total:], s[at:end])
		sizes[groups], ends[groups] = uint8(end-at), end
		total += end - at
		groups++
		if at = end + len(separator); at >= len(s) || !strings.HasPrefix(s[end:], separator) {
			break
		}
	}
	if skip := parcel(s, i); skip > j {
		return skip
	}
	for g := groups; g >= 2 && total >= leastCard; g-- {
		end := ends[g-1]
		if plausible(sizes[:g], separator[0]) && isCard(string(number[:total])) && sc.groupsStandAlone(i, end, separator[0]) {
			sc.add(i, end, labelPAN, mask)
			return sc.afterCard(end)
		}
		total -= int(sizes[g-1])
	}
	if groups > 0 && ends[groups-1] == len(s) && groups > 1 {
		return max(j, sc.cutDigits(i, len(s)))
	}
	return j
}

func plausible(sizes []uint8, separator byte) bool {
	for _, g := range groupings {
		if string(g) == string(sizes) {
			return separator != '.' || len(g) >= 4 // dots elsewhere make decimals and versions
		}
	}
	return false
}

func (sc *scanner) groupsStandAlone(i, end int, separator byte) bool {
	s := sc.s
	if end < len(s) && isAlnum(s[end]) && !foldPrefix(s[end:], "exp") && !foldPrefix(s[end:], "cv") {
		return false
	}
	if separator == '-' && end < len(s)-1 && s[end] == '-' && isHex(s[end+1]) && i >= 9 && s[i-1] == '-' && isHex(s[i-2]) && isHex(s[i-9]) {
		return false // the middle of a UUID
	}
	if separator == '.' && i > 0 && s[i-1] == '.' {
		return false
	}
	if (separator == ' ' || separator == '+') && inIBAN(s, i) {
		return false
	}
	return boundaryBefore(s, i) || charClass[s[i-1]]&charAlpha != 0 && !isHex(s[i-1]) || sc.standsAlone(i, end)
}

// parcel is where a postal tracking number that begins at i ends, 0 where there is none: 91 to 95 and 20 digits or more, in groups of four.
func parcel(s string, i int) int {
	if s[i] != '9' || s[i+1] < '1' || s[i+1] > '5' {
		return 0
	}
	n, end := 0, i
	for end < len(s) && n < 40 {
		switch {
		case isDigit(s[end]):
			n++
		case s[end] != ' ' && s[end] != '+' || end+1 >= len(s) || !isDigit(s[end+1]):
			if n >= 20 {
				return end
			}
			return 0
		}
		end++
	}
	if n >= 20 {
		return end
	}
	return 0
}

// cutDigits hides what may be the beginning of a card number, where the text was cut off behind it.
func (sc *scanner) cutDigits(i, j int) int {
	if !sc.cut || j != len(sc.s) || j-i < 7 || j-i > 23 || sc.s[i] < '2' || sc.s[i] == '7' || !boundaryBefore(sc.s, i) {
		return j
	}
	return sc.add(i, j, labelPAN, hide)
}

// The fewest and the most digits of a card number.
const leastCard, mostCard = 12, 19

// isCard tells whether digits are a card number: of an issuer, of that issuer's lengths, with the right check digit.
func isCard(digits string) bool {
	return len(digits) >= leastCard && len(digits) <= mostCard && issued(digits) && luhn(digits)
}

// luhn checks the check digit.
func luhn(digits string) bool {
	const doubled = "0246813579"
	sum := 0
	for i := range len(digits) {
		c := digits[len(digits)-1-i]
		if i&1 == 1 {
			c = doubled[c-'0']
		}
		sum += int(c - '0')
	}
	return sum%10 == 0
}

// issuer is a range of leading digits and the lengths that go with it.
type issuer struct {
	first, last uint16 // of the first four digits
	lengths     uint32 // bit n: n digits
}

func lengths(list ...int) (set uint32) {
	for _, n := range list {
		set |= 1 << n
	}
	return set
}

// issuers in the order of their ranges; they may overlap.
var issuers = []issuer{
	{2014, 2014, lengths(15)}, {2149, 2149, lengths(15)}, // Diners enRoute
	{2131, 2131, lengths(15)},                                                                                                  // JCB, old
	{2200, 2205, lengths(16, 17, 18, 19)},                                                                                      // Mir
	{2221, 2720, lengths(16)},                                                                                                  // Mastercard
	{3000, 3059, lengths(14, 16)}, {3095, 3095, lengths(14, 16)}, {3600, 3699, lengths(14, 16)}, {3800, 3999, lengths(14, 16)}, // Diners
	{3400, 3499, lengths(15)}, {3700, 3799, lengths(15)}, // American Express
	{3528, 3589, lengths(16, 17, 18, 19)}, // JCB, RuPay
	{4000, 4999, lengths(13, 16, 19)},     // Visa
	{5000, 5099, lengths(16, 17, 18, 19)}, // Maestro, RuPay, Verve, Elo
	{5018, 5018, maestro}, {5020, 5020, maestro}, {5038, 5038, maestro}, {5893, 5893, maestro},
	{5100, 5599, lengths(16)}, // Mastercard
	{5600, 5899, lengths(16, 17, 18, 19)},
	{6000, 6099, lengths(16)}, // Discover, RuPay
	{6011, 6011, lengths(16, 17, 18, 19)},
	{6200, 6299, lengths(16, 17, 18, 19)}, // UnionPay
	{6304, 6304, maestro}, {6759, 6759, maestro}, {6761, 6763, maestro},
	{6300, 6399, lengths(16, 17, 18, 19)}, // Maestro, InstaPayment, Elo, Hipercard
	{6440, 6599, lengths(16, 17, 18, 19)}, // Discover, RuPay, Troy, Verve
	{6700, 6799, lengths(16, 17, 18, 19)}, // Maestro
	{8100, 8299, lengths(16, 17, 18, 19)}, // UnionPay, RuPay
	{9792, 9792, lengths(16)},             // Troy
}

const maestro = 1<<12 | 1<<13 | 1<<14 | 1<<15 | 1<<16 | 1<<17 | 1<<18 | 1<<19

func issued(digits string) bool {
	four := uint16(digits[0]-'0')*1000 + uint16(digits[1]-'0')*100 + uint16(digits[2]-'0')*10 + uint16(digits[3]-'0')
	for _, r := range issuers {
		if four < r.first || four > r.last {
			continue
		}
		if r.lengths>>len(digits)&1 == 1 {
			return true
		}
	}
	return false
}

// appendMasked appends a card number with its first six and last four digits (PCI DSS 4.0.1, 3.4.1). Of a short one the last four alone stay: with six
// more the check digit would leave but a thousand numbers to try. Separators go: they would tell nothing.
func appendMasked(dst []byte, s string) []byte {
	total := 0
	for i := range len(s) {
		if isDigit(s[i]) {
			total++
		}
	}
	first := 6
	if total < 15 {
		first = 0
	}
	n := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			continue
		}
		if n < first || n >= total-4 {
			dst = append(dst, s[i])
		} else {
			dst = append(dst, '*')
		}
		n++
	}
	return dst
}
