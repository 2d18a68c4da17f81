package redact

import (
	"slices"
	"strings"
)

// What Config.Hide may name.
const (
	HideCards       = "cards"       // card numbers as a whole, instead of masking them
	HideEmail       = "email"       // e-mail addresses
	HideIBAN        = "iban"        // account numbers by ISO 13616, with the right check digits
	HidePhone       = "phone"       // telephone numbers: with a +, or under a name such as mobile
	HideNationalIDs = "national_id" // numbers that states give to people: by their shape and check digits, or by name
)

var hideable = []string{HideCards, HideEmail, HideIBAN, HidePhone, HideNationalIDs}

// personal finds what identifies a person. It runs only where the configuration asks.
type personal struct{ email, iban, phone, nationalID bool }

func (p personal) any() bool { return p.email || p.iban || p.phone || p.nationalID }

// names under which a value is personal, whatever it looks like.
var personalNames = map[string]struct {
	class class
	names []string
}{
	HideEmail: {address, []string{"email", "emailaddress", "useremail", "customeremail", "contactemail", "billingemail", "receiptemail"}},
	HidePhone: {telephone, []string{"phone", "phonenumber", "mobile", "mobilenumber", "mobilephone", "telephone", "telephonenumber", "tel", "fax", "faxnumber",
		"msisdn", "cellphone", "homephone", "workphone", "customerphone", "contactphone", "billingphone", "shippingphone"}},
	HideIBAN: {bankAccount, []string{"iban", "ibannumber"}},
	HideNationalIDs: {nationalID, []string{"nationalid", "nationalidnumber", "nationalidentitynumber", "nationalinsurancenumber", "nino", "taxid", "taxidnumber",
		"taxpayerid", "tin", "itin", "passport", "passportnumber", "driverslicense", "driverslicensenumber", "driverlicense", "drivinglicence", "idnumber", "idcardnumber",
		"cpf", "curp", "nif", "dni", "codicefiscale", "fiscalcode", "pesel", "bsn", "personnummer", "aadhaar", "aadhaarnumber", "steueridentifikationsnummer"}},
}

// find appends a hit for each personal value in s.
func (p personal) find(s string, hits []hit) []hit {
	for i := 0; i < len(s); {
		n, l := 0, labelEmail
		start := i
		switch c := s[i]; {
		case c == '@' && p.email:
			start, n = emailAround(s, i)
		case c == '+' && p.phone:
			n, l = phoneAt(s, i), labelPhone
		case isAlnum(c) && (i == 0 || !isAlnum(s[i-1])):
			if p.iban {
				n, l = ibanAt(s, i), labelIBAN
			}
			if n == 0 && p.nationalID {
				n, l = nationalIDAt(s, i), labelNationalID
			}
		}
		if n == 0 {
			i++
			continue
		}
		hits = append(hits, hit{start: start, end: start + n, label: l})
		i = start + n
	}
	return hits
}

// emailAround is the address whose @ is at i (RFC 5321, as people write them: no quotes, no literals).
func emailAround(s string, i int) (start, n int) {
	start = i
	for start > 0 && i-start < 64 && (isAlnum(s[start-1]) || strings.IndexByte("._%+-'!#$&*/=?^`{|}~", s[start-1]) >= 0) {
		start--
	}
	for start < i && !isAlnum(s[start]) { // a quote or a bracket before it
		start++
	}
	for at := start; at < i; at++ { // name=a@b.example.com, the path before
		if strings.IndexByte("=/&?{|", s[at]) >= 0 {
			start = at + 1
		}
	}
	end, dot := i+1, 0
	for end < len(s) && end-i < 254 && (isAlnum(s[end]) || s[end] == '.' || s[end] == '-' || s[end] >= 0x80) {
		if s[end] == '.' {
			dot = end
		}
		end++
	}
	for end > i && (s[end-1] == '.' || s[end-1] == '-') {
		end--
	}
	if dot >= end {
		dot = i + strings.LastIndexByte(s[i:end], '.')
	}
	if start == i || dot <= i+1 || end-dot < 3 || charClass[s[dot+1]]&charAlpha == 0 && s[dot+1] < 0x80 {
		return i, 0
	}
	return start, end - start
}

// phoneAt is the length of the number in international form (E.164, 8 to 15 digits) that begins at i.
func phoneAt(s string, i int) int {
	if i > 0 && (isAlnum(s[i-1]) || s[i-1] == '+') || i+1 >= len(s) || s[i+1] < '1' || s[i+1] > '9' {
		return 0
	}
	digits, end := 0, i+1
	for at := i + 1; at < len(s) && digits <= 15; at++ {
		switch {
		case isDigit(s[at]):
			digits++
			end = at + 1
			continue
		case strings.IndexByte(" -.()/", s[at]) >= 0 && at-end < 2:
			continue
		}
		break
	}
	if digits < 8 || digits > 15 || end < len(s) && isAlnum(s[end]) {
		return 0
	}
	return end - i
}

// ibanLengths are the lengths of the countries that have one (the SWIFT registry of ISO 13616).
var ibanLengths = map[string]int{
	"AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28,
	"CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
	"GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32,
	"LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18,
	"NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19,
	"SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}

// ibanAt is the length of the account number that begins at i, in one piece or in groups of four.
func ibanAt(s string, i int) int {
	if i+15 > len(s) || charClass[s[i]]&charAlpha == 0 || charClass[s[i+1]]&charAlpha == 0 || !isDigit(s[i+2]) || !isDigit(s[i+3]) {
		return 0
	}
	want := ibanLengths[strings.ToUpper(s[i:i+2])]
	if want == 0 {
		return 0
	}
	var text [34]byte
	n, end := 0, i
	for ; end < len(s) && n < want; end++ {
		switch c := s[end]; {
		case isAlnum(c):
			if charClass[c]&charLower != 0 {
				c -= 0x20
			}
			text[n] = c
			n++
		case (c == ' ' || c == '-') && n > 0 && n%4 == 0 && s[end-1] != c:
		default:
			return 0
		}
	}
	if n < want || end < len(s) && isAlnum(s[end]) || !checksIBAN(text[:n]) {
		return 0
	}
	return end - i
}

// checksIBAN checks ISO 7064's check digits.
func checksIBAN(text []byte) bool {
	rest := 0
	for k := range text {
		rest = mod97(rest, text[(k+4)%len(text)])
	}
	return rest == 1
}

// nationalIDAt is the length of the number of a person that begins at i. Only numbers that their form or a check digit tells from others are known:
// of the USA, the United Kingdom, Spain, Italy, France, Brazil, Sweden and India.
func nationalIDAt(s string, i int) int {
	for _, id := range nationalIDs {
		if n := matchForm(s, i, id.form); n > 0 && (i+n == len(s) || !isAlnum(s[i+n])) {
			compact := strings.Map(func(r rune) rune {
				if r < 0x80 && isAlnum(byte(r)) {
					return r
				}
				return -1
			}, strings.ToUpper(s[i:i+n]))
			if id.valid(compact) && !(n < len(s)-i-1 && (s[i+n] == '-' || s[i+n] == '.') && isDigit(s[i+n+1])) && !(i > 1 && (s[i-1] == '-' || s[i-1] == '.') && isDigit(s[i-2])) {
				return n
			}
		}
	}
	return 0
}

// nationalIDs by their form: 9 is a digit, A a letter, anything else itself; what follows ~ may be missing.
var nationalIDs = []struct {
	form  string
	valid func(string) bool
}{
	{"999-99-9999", isSSN}, {"AA~ 99~ 99~ 99~ A", isNINO}, {"99999999A", isDNI}, {"A9999999A", isDNI}, {"AAAAAA99A99A999A", isCodiceFiscale},
	{"9~ 99~ 99~ 99~ 999~ 999~ 99", isNIR}, {"999.999.999-99", isCPF}, {"999999-9999", isPersonnummer}, {"9999 9999 9999", verhoeff},
}

// matchForm is the length of what fits the form at i.
func matchForm(s string, i int, form string) int {
	at := i
	for k := 0; k < len(form); k++ {
		f := form[k]
		if f == '~' {
			if k++; at < len(s) && s[at] == form[k] {
				at++
			}
			continue
		}
		if at >= len(s) {
			return 0
		}
		switch c := s[at]; f {
		case '9':
			if !isDigit(c) {
				return 0
			}
		case 'A':
			if charClass[c]&charAlpha == 0 {
				return 0
			}
		default:
			if c != f {
				return 0
			}
		}
		at++
	}
	return at - i
}

// isSSN: no area 000, 666 or 900 and up, no group 00, no serial 0000 (SSA, since 2011).
func isSSN(d string) bool {
	return d[:3] != "000" && d[:3] != "666" && d[0] != '9' && d[3:5] != "00" && d[5:] != "0000"
}

func isNINO(d string) bool {
	return strings.IndexByte("DFIQUV", d[0]) < 0 && strings.IndexByte("DFIOQUV", d[1]) < 0 && strings.IndexByte("ABCD", d[8]) >= 0 &&
		!slices.Contains([]string{"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"}, d[:2])
}

// isDNI checks the letter of a Spanish DNI or NIE.
func isDNI(d string) bool {
	n := 0
	for i := range 8 {
		c := d[i]
		if i == 0 && (c == 'X' || c == 'Y' || c == 'Z') {
			c = c - 'X' + '0'
		}
		if !isDigit(c) {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return "TRWAGMYFPDXBNJZSQVHLCKE"[n%23] == d[8]
}

// isCodiceFiscale checks the last letter.
func isCodiceFiscale(d string) bool {
	const odd = "\x01\x00\x05\x07\x09\x0d\x0f\x11\x13\x15\x02\x04\x12\x14\x0b\x03\x06\x08\x0c\x0e\x10\x0a\x16\x19\x18\x17"
	sum := 0
	for i := range 15 {
		v := int(d[i] - 'A')
		if isDigit(d[i]) {
			v = int(d[i] - '0')
		}
		if i%2 == 0 {
			v = int(odd[v])
		}
		sum += v
	}
	return d[15] == 'A'+byte(sum%26)
}

// isNIR checks the key of a French number.
func isNIR(d string) bool {
	n := 0
	for i := range 13 {
		n = (n*10 + int(d[i]-'0')) % 97
	}
	return (d[0] == '1' || d[0] == '2') && 97-n == int(d[13]-'0')*10+int(d[14]-'0')
}

// isCPF checks the two last digits of a Brazilian number.
func isCPF(d string) bool {
	for last := 9; last < 11; last++ {
		sum := 0
		for i := range last {
			sum += int(d[i]-'0') * (last + 1 - i)
		}
		if sum*10%11%10 != int(d[last]-'0') {
			return false
		}
	}
	return strings.Count(d, d[:1]) < 11
}

// isPersonnummer: a Swedish number begins with a date and ends with a check digit.
func isPersonnummer(d string) bool { return isMonth(d[2:4]) && d[4] <= '9' && luhn(d) }

// verhoeff checks the digit that an Indian Aadhaar number ends with; none begins with 0 or 1.
func verhoeff(d string) bool {
	if d[0] < '2' {
		return false
	}
	// Of the group of a pentagon's symmetries: 0 to 4 turn it, 5 to 9 turn it over.
	times := func(a, b int) int {
		switch {
		case a < 5 && b < 5:
			return (a + b) % 5
		case a < 5:
			return 5 + (a+b)%5
		case b < 5:
			return 5 + (a-b)%5
		}
		return (a - b + 5) % 5
	}
	permuted := func(n, v int) int {
		for range n % 8 {
			v = [10]int{1, 5, 7, 6, 2, 8, 3, 0, 9, 4}[v]
		}
		return v
	}
	check := 0
	for i := range len(d) {
		check = times(check, permuted(i, int(d[len(d)-1-i]-'0')))
	}
	return check == 0
}
