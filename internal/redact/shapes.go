package redact

import (
	"encoding/base64"
	"strings"
)

// shape is a kind of token that its prefix gives away.
type shape struct {
	prefix   string
	set      uint8 // what may follow
	min, max int   // how much must follow, and how much can (0: any length)
	rule     rule
	label    label
}

// rule refines a shape.
type rule uint8

const (
	word        rule = iota // a token that begins at the beginning of a word
	anywhere                // a prefix so particular that it may stand behind other letters
	digital                 // a word that holds two digits, so that hyphenated words are none
	dotted                  // a word with a dot
	exact                   // a word that ends where the token does
	hexadecimal             // hex digits only, and exact
	behind                  // the prefix itself is harmless and stays
)

const (
	tokenChars = charAlnum | charDash
	base64Any  = charAlnum | charDash | charExtra
	dotChars   = charAlnum | charDash | charDot
)

// shapes are tokens of vendors. Public keys (Stripe's pk_, for one) are no secrets.
var shapes = []shape{
	{"sk_live_", tokenChars, 8, 0, anywhere, 0}, {"sk_test_", tokenChars, 8, 0, anywhere, 0}, {"rk_live_", tokenChars, 8, 0, anywhere, 0}, // Stripe
	{"rk_test_", tokenChars, 8, 0, anywhere, 0}, {"whsec_", base64Any, 16, 0, anywhere, 0}, {"sk_", tokenChars, 20, 0, digital, 0}, {"rk_", tokenChars, 20, 0, digital, 0},
	{"ghp_", tokenChars, 16, 0, anywhere, 0}, {"gho_", tokenChars, 16, 0, anywhere, 0}, {"ghu_", tokenChars, 16, 0, anywhere, 0}, // GitHub
	{"ghs_", tokenChars, 16, 0, anywhere, 0}, {"ghr_", tokenChars, 16, 0, anywhere, 0}, {"github_pat_", tokenChars, 16, 0, anywhere, 0},
	{"glpat-", dotChars, 16, 0, anywhere, 0}, {"gldt-", dotChars, 16, 0, word, 0}, {"glrt-", dotChars, 16, 0, word, 0}, {"glptt-", dotChars, 16, 0, word, 0}, // GitLab
	{"glcbt-", dotChars, 16, 0, word, 0}, {"glft-", dotChars, 16, 0, word, 0}, {"glsoat-", dotChars, 16, 0, word, 0}, {"glagent-", dotChars, 16, 0, word, 0},
	{"xoxa-", tokenChars, 10, 0, anywhere, 0}, {"xoxb-", tokenChars, 10, 0, anywhere, 0}, {"xoxc-", tokenChars, 10, 0, anywhere, 0}, // Slack
	{"xoxd-", base64Any, 10, 0, anywhere, 0}, {"xoxe-", tokenChars, 10, 0, anywhere, 0}, {"xoxe.", dotChars, 10, 0, anywhere, 0},
	{"xoxp-", tokenChars, 10, 0, anywhere, 0}, {"xoxr-", tokenChars, 10, 0, anywhere, 0}, {"xoxs-", tokenChars, 10, 0, anywhere, 0},
	{"xapp-", tokenChars, 16, 0, word, 0}, {"hooks.slack.com/services/", base64Any, 20, 0, behind, 0}, {"hooks.slack.com/workflows/", base64Any, 20, 0, behind, 0},
	{"discord.com/api/webhooks/", base64Any, 20, 0, behind, 0}, {"discordapp.com/api/webhooks/", base64Any, 20, 0, behind, 0},
	{"AKIA", charDigit | charUpper, 16, 16, exact, 0}, {"ASIA", charDigit | charUpper, 16, 16, exact, 0}, {"ABIA", charDigit | charUpper, 16, 16, exact, 0}, // AWS
	{"ACCA", charDigit | charUpper, 16, 16, exact, 0}, {"amzn.mws.", tokenChars, 30, 0, word, 0},
	{"AIza", tokenChars, 30, 0, word, 0}, {"ya29.", dotChars, 20, 0, word, 0}, {"GOCSPX-", tokenChars, 20, 0, word, 0}, // Google
	{"sk-ant-", tokenChars, 10, 0, word, 0}, {"sk-proj-", tokenChars, 16, 0, word, 0}, {"sk-svcacct-", tokenChars, 16, 0, word, 0}, // Anthropic, OpenAI
	{"sk-admin-", tokenChars, 16, 0, word, 0}, {"sk-", tokenChars, 20, 0, digital, 0},
	{"SG.", dotChars, 32, 0, dotted, 0}, {"SK", charHex, 32, 32, hexadecimal, 0}, {"AC", charHex, 32, 32, hexadecimal, 0}, // SendGrid, Twilio
	{"shpat_", charAlnum, 16, 0, anywhere, 0}, {"shpss_", charAlnum, 16, 0, anywhere, 0}, {"shpca_", charAlnum, 16, 0, anywhere, 0}, // Shopify
	{"shppa_", charAlnum, 16, 0, anywhere, 0}, {"npm_", charAlnum, 30, 0, word, 0}, {"pypi-Ag", tokenChars, 16, 0, word, 0}, {"rubygems_", charHex, 32, 0, word, 0},
	{"dop_v1_", charAlnum, 32, 0, word, 0}, {"doo_v1_", charAlnum, 32, 0, word, 0}, {"dor_v1_", charAlnum, 32, 0, word, 0}, // DigitalOcean
	{"hf_", charAlnum, 30, 0, word, 0}, {"gsk_", charAlnum, 30, 0, word, 0}, {"xai-", charAlnum, 40, 0, word, 0}, {"pplx-", charAlnum, 32, 0, word, 0}, // models
	{"r8_", charAlnum, 30, 0, word, 0}, {"nvapi-", tokenChars, 30, 0, word, 0}, {"lsv2_", tokenChars, 30, 0, word, 0}, {"jina_", charAlnum, 30, 0, word, 0},
	{"sq0atp-", tokenChars, 20, 0, word, 0}, {"sq0csp-", tokenChars, 20, 0, word, 0}, {"EAAA", tokenChars, 56, 64, exact, 0}, // Square
	{"EAACEdEose0cBA", charAlnum, 10, 0, word, 0}, {"access_token$production$", charAlnum | charExtra, 16, 0, behind, 0},
	{"key-", charHex, 32, 32, hexadecimal, 0}, {"xkeysib-", tokenChars, 32, 0, word, 0}, {"PMAK-", tokenChars, 24, 0, word, 0}, // Mailgun, Brevo, Postman
	{"hvs.", dotChars, 20, 0, word, 0}, {"hvb.", dotChars, 20, 0, word, 0}, {"hvr.", dotChars, 20, 0, word, 0}, {"dckr_pat_", tokenChars, 16, 0, word, 0}, // Vault, Docker
	{"ATATT3", base64Any, 20, 0, word, 0}, {"ATCTT3", base64Any, 20, 0, word, 0}, {"lin_api_", charAlnum, 20, 0, word, 0}, {"ntn_", charAlnum, 30, 0, word, 0}, // Atlassian…
	{"secret_", charAlnum, 40, 0, word, 0}, {"sbp_", charHex, 32, 0, word, 0}, {"sb_secret_", tokenChars, 16, 0, word, 0}, {"figd_", tokenChars, 20, 0, word, 0},
	{"pscale_tkn_", dotChars, 20, 0, word, 0}, {"pscale_pw_", dotChars, 20, 0, word, 0}, {"glsa_", tokenChars, 20, 0, word, 0}, {"glc_", base64Any, 32, 0, word, 0},
	{"sntrys_", base64Any, 20, 0, word, 0}, {"sntryu_", charHex, 32, 0, word, 0}, {"phx_", tokenChars, 30, 0, word, 0}, {"tskey-", tokenChars, 16, 0, word, 0},
	{"dp.pt.", charAlnum, 30, 0, word, 0}, {"dp.st.", dotChars, 30, 0, word, 0}, {"nfp_", charAlnum, 30, 0, word, 0}, {"fm2_", base64Any, 40, 0, word, 0},
	{"FLWSECK", tokenChars, 16, 0, word, 0}, {"EZAK", charAlnum, 50, 60, exact, 0}, {"EZTK", charAlnum, 50, 60, exact, 0}, {"shippo_live_", charHex, 30, 0, word, 0},
	{"live_", tokenChars, 30, 0, digital, 0}, {"test_", charAlnum, 30, 0, digital, 0}, {"rzp_live_", charAlnum, 12, 0, word, 0}, // Mollie, GoCardless, Razorpay
	{"access-production-", tokenChars, 32, 0, word, 0}, {"access-sandbox-", tokenChars, 32, 0, word, 0}, {"access-development-", tokenChars, 32, 0, word, 0}, // Plaid
	{"pat-na1-", tokenChars, 32, 0, word, 0}, {"pat-eu1-", tokenChars, 32, 0, word, 0}, {"dapi", charHex, 32, 32, hexadecimal, 0}, {"LTAI", charAlnum, 16, 24, digital, 0},
	{"apify_api_", charAlnum, 30, 0, word, 0}, {"ops_eyJ", base64Any, 40, 0, word, 0}, {"AGE-SECRET-KEY-1", charAlnum, 40, 0, word, 0}, {"CCIPAT_", tokenChars, 30, 0, word, 0},
}

// shapesOf lists the shapes by their first byte, longer prefixes first.
var shapesOf = func() (t [128][]shape) {
	for _, s := range shapes {
		s.label = vendorOf(s.prefix)
		c := s.prefix[0]
		at := 0
		for at < len(t[c]) && len(t[c][at].prefix) >= len(s.prefix) {
			at++
		}
		t[c] = append(t[c][:at:at], append([]shape{s}, t[c][at:]...)...)
	}
	return t
}()

// word looks at what may begin with the letter at i: a token, or the word of an authentication scheme.
func (sc *scanner) word(i int) int {
	s := sc.s
	c := s[i]
	if c >= 0x80 {
		return i + 1
	}
	for k := range shapesOf[c] {
		sh := &shapesOf[c][k]
		if s[i+1] == sh.prefix[1] && strings.HasPrefix(s[i:], sh.prefix) {
			if end := sc.token(i, sh); end > i {
				return end
			}
		}
	}
	switch c | 0x20 {
	case 'e':
		if c == 'e' && i+2 < len(s) && s[i+2] == 'J' {
			return sc.webToken(i)
		}
	case 'b', 't', 'd', 'a':
		return sc.scheme(i)
	}
	return i + 1
}

// decisive is how many characters decide whether something is a token. Without it, a text full of prefixes would be read again for each of them.
const decisive = 128

// token hides a token of that shape at i and returns its end, or i.
func (sc *scanner) token(i int, sh *shape) int {
	s := sc.s
	start := i + len(sh.prefix)
	end := start + wordEnd(s[start:min(len(s), start+decisive)], 0, sh.set)
	if sh.rule != anywhere && sh.rule != behind && (!boundaryBefore(s, i) || i > 0 && charClass[s[i-1]]&charDash != 0 && s[i-1] == '-') {
		return i
	}
	unfinished := sc.cut && end == len(s)
	if n := end - start; !unfinished && (n < sh.min || sh.max > 0 && n > sh.max) {
		return i
	}
	switch sh.rule {
	case digital:
		if !unfinished && countDigits(s[start:end]) < 2 {
			return i
		}
	case dotted:
		if !unfinished && strings.IndexByte(s[start:end], '.') < 0 {
			return i
		}
	case exact, hexadecimal:
		if end < len(s) && isAlnum(s[end]) {
			return i
		}
		if sh.rule == hexadecimal && strings.ToLower(sh.prefix) != sh.prefix && countDigits(s[start:end]) == 0 {
			return i
		}
	case behind:
		i = start
	}
	for end = wordEnd(s, end, sh.set); end > start && s[end-1] == '.'; {
		end--
	}
	return sc.add(i, max(end, i), sh.label, hide)
}

func countDigits(s string) int {
	n := 0
	for i := range len(s) {
		if isDigit(s[i]) {
			n++
		}
	}
	return n
}

// webToken hides a JSON web token: at least two parts of base64, the first of which begins with {".
func (sc *scanner) webToken(i int) int {
	s := sc.s
	if i < sc.noToken {
		return i + 1
	}
	end := wordEnd(s, i, tokenChars)
	unfinished := sc.cut && end == len(s)
	if !unfinished && (end-i < 12 || end >= len(s) || s[end] != '.') {
		sc.noToken = end
		return i + 1
	}
	for end < len(s) && s[end] == '.' {
		end = wordEnd(s, end+1, tokenChars)
	}
	if s[end-1] == '.' {
		end--
	}
	return sc.add(i, end, labelWebToken, hide)
}

// privateKey hides a private key in PEM. Certificates and public keys stay.
func (sc *scanner) privateKey(i int) int {
	const begin, finish = "-----BEGIN ", "-----END "
	s := sc.s
	if !strings.HasPrefix(s[i:], begin) {
		return i + 1
	}
	label := s[i+len(begin) : min(len(s), i+len(begin)+64)]
	at := strings.Index(label, "-----")
	if unfinished := sc.cut && at < 0 && i+len(begin)+64 > len(s); at < 0 && !unfinished {
		return i + 1
	}
	if at >= 0 && !strings.Contains(label[:at], "PRIVATE KEY") {
		return i + len(begin)
	}
	end := strings.Index(s[i:], finish)
	if end < 0 {
		return sc.add(i, len(s), labelPrivateKey, hide)
	}
	end += i + len(finish)
	if tail := strings.Index(s[end:min(len(s), end+64)], "-----"); tail >= 0 {
		end += tail + len("-----")
	}
	return sc.add(i, end, labelPrivateKey, hide)
}

// schemeWords are the words before credentials in running text.
var schemeWords = []struct {
	word  string
	check func(value string) bool
	label label
}{
	{"bearer", isBearer, labelBearer}, {"basic", isBasic, labelBasic}, {"token", isKeyLike, labelToken}, {"apikey", isKeyLike, labelToken},
	{"dpop", isBearer, labelBearer},
}

// scheme hides what follows the word of an authentication scheme.
func (sc *scanner) scheme(i int) int {
	s := sc.s
	for k := range schemeWords {
		w := &schemeWords[k]
		if s[i]|0x20 != w.word[0] || !foldPrefix(s[i:], w.word) {
			continue
		}
		at := i + len(w.word)
		start := at
		for start < len(s) && start-at < 4 && (s[start] == ' ' || s[start] == '\t' || s[start] == '+') {
			start++
		}
		if start == at {
			return i + 1
		}
		end := start + wordEnd(s[start:min(len(s), start+decisive)], 0, base64Any|charDot)
		unfinished := sc.cut && end == len(s) && end > start
		if !boundaryBefore(s, i) || !unfinished && !w.check(s[start:end]) {
			return i + 1
		}
		return sc.add(start, wordEnd(s, end, base64Any|charDot), w.label, hide)
	}
	return i + 1
}

// isBearer: a bearer's value has digits, an inner capital or a length that words do not have.
func isBearer(v string) bool {
	if len(v) < 6 {
		return false
	}
	if len(v) >= 24 || countDigits(v) > 0 {
		return true
	}
	for i := 1; i < len(v); i++ {
		if charClass[v[i]]&charUpper != 0 && charClass[v[i-1]]&charLower != 0 || v[i] == '_' {
			return true
		}
	}
	return false
}

// isBasic: base64 of a text with a colon.
func isBasic(v string) bool {
	if len(v) < 4 {
		return false
	}
	var buf [96]byte
	raw := strings.TrimRight(v, "=")
	raw = raw[:min(len(raw), 128)]
	raw = raw[:len(raw)-len(raw)%4]
	enc := base64.RawStdEncoding
	if strings.ContainsAny(raw, "-_") {
		enc = base64.RawURLEncoding
	}
	n, err := enc.Decode(buf[:], []byte(raw))
	if err != nil {
		return len(v) >= 24
	}
	return strings.IndexByte(string(buf[:n]), ':') >= 0 || len(v) >= 24 && countDigits(v) > 0
}

func isKeyLike(v string) bool { return len(v) >= 16 && countDigits(v) >= 2 }
