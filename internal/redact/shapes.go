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
}

// vendorShape is a shape with the name of its vendor.
type vendorShape struct {
	shape
	label label
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
	middle                  // what stands before the prefix is a part of the token
	halves                  // 14 characters, a dot, 64 hex digits
	varied                  // base64, percent-encoded or not, that does not stand for zeros
)

const (
	tokenChars = charAlnum | charDash
	base64Any  = charAlnum | charDash | charExtra
	dotChars   = charAlnum | charDash | charDot
)

// shapes are tokens of vendors. Public keys (Stripe's pk_, for one) are no secrets.
var shapes = []shape{
	{"sk_live_", tokenChars, 8, 0, anywhere}, {"sk_test_", tokenChars, 8, 0, anywhere}, {"rk_live_", tokenChars, 8, 0, anywhere}, // Stripe
	{"rk_test_", tokenChars, 8, 0, anywhere}, {"whsec_", base64Any, 16, 0, anywhere}, {"sk_", tokenChars, 20, 0, digital}, {"rk_", tokenChars, 20, 0, digital},
	{"ghp_", tokenChars, 16, 0, anywhere}, {"gho_", tokenChars, 16, 0, anywhere}, {"ghu_", tokenChars, 16, 0, anywhere}, // GitHub
	{"ghs_", tokenChars, 16, 0, anywhere}, {"ghr_", tokenChars, 16, 0, anywhere}, {"github_pat_", tokenChars, 16, 0, anywhere},
	{"glpat-", dotChars, 16, 0, anywhere}, {"gldt-", dotChars, 16, 0, word}, {"glrt-", dotChars, 16, 0, word}, {"glptt-", dotChars, 16, 0, word}, // GitLab
	{"glcbt-", dotChars, 16, 0, word}, {"glft-", dotChars, 16, 0, word}, {"glsoat-", dotChars, 16, 0, word}, {"glagent-", dotChars, 16, 0, word},
	{"xoxa-", tokenChars, 10, 0, anywhere}, {"xoxb-", tokenChars, 10, 0, anywhere}, {"xoxc-", tokenChars, 10, 0, anywhere}, // Slack
	{"xoxd-", base64Any, 10, 0, anywhere}, {"xoxe-", tokenChars, 10, 0, anywhere}, {"xoxe.", dotChars, 10, 0, anywhere},
	{"xoxp-", tokenChars, 10, 0, anywhere}, {"xoxr-", tokenChars, 10, 0, anywhere}, {"xoxs-", tokenChars, 10, 0, anywhere},
	{"xapp-", tokenChars, 16, 0, word}, {"hooks.slack.com/services/", base64Any, 20, 0, behind}, {"hooks.slack.com/workflows/", base64Any, 20, 0, behind},
	{"discord.com/api/webhooks/", base64Any, 20, 0, behind}, {"discordapp.com/api/webhooks/", base64Any, 20, 0, behind},
	{"AKIA", charDigit | charUpper, 16, 16, exact}, {"ASIA", charDigit | charUpper, 16, 16, exact}, {"ABIA", charDigit | charUpper, 16, 16, exact}, // AWS
	{"ACCA", charDigit | charUpper, 16, 16, exact}, {"amzn.mws.", tokenChars, 30, 0, word},
	{"AIza", tokenChars, 30, 0, word}, {"ya29.", dotChars, 20, 0, word}, {"GOCSPX-", tokenChars, 20, 0, word}, // Google
	{"sk-ant-", tokenChars, 10, 0, word}, {"sk-proj-", tokenChars, 16, 0, word}, {"sk-svcacct-", tokenChars, 16, 0, word}, // Anthropic, OpenAI
	{"sk-admin-", tokenChars, 16, 0, word}, {"sk-", tokenChars, 20, 0, digital},
	{"SG.", dotChars, 32, 0, dotted}, {"SK", charHex, 32, 32, hexadecimal}, {"AC", charHex, 32, 32, hexadecimal}, // SendGrid, Twilio
	{"shpat_", charAlnum, 16, 0, anywhere}, {"shpss_", charAlnum, 16, 0, anywhere}, {"shpca_", charAlnum, 16, 0, anywhere}, // Shopify
	{"shppa_", charAlnum, 16, 0, anywhere}, {"npm_", charAlnum, 30, 0, word}, {"pypi-Ag", tokenChars, 16, 0, word}, {"rubygems_", charHex, 32, 0, word},
	{"dop_v1_", charAlnum, 32, 0, word}, {"doo_v1_", charAlnum, 32, 0, word}, {"dor_v1_", charAlnum, 32, 0, word}, // DigitalOcean
	{"hf_", charAlnum, 30, 0, word}, {"gsk_", charAlnum, 30, 0, word}, {"xai-", charAlnum, 40, 0, word}, {"pplx-", charAlnum, 32, 0, word}, // models
	{"r8_", charAlnum, 30, 0, word}, {"nvapi-", tokenChars, 30, 0, word}, {"lsv2_", tokenChars, 30, 0, word}, {"jina_", charAlnum, 30, 0, word},
	{"sq0atp-", tokenChars, 20, 0, word}, {"sq0csp-", tokenChars, 20, 0, word}, {"EAAA", tokenChars, 56, 64, exact}, // Square
	{"EAACEdEose0cBA", charAlnum, 10, 0, word}, {"access_token$production$", charAlnum | charName, 16, 0, behind},
	{"key-", charHex, 32, 32, hexadecimal}, {"xkeysib-", tokenChars, 32, 0, word}, {"PMAK-", tokenChars, 24, 0, word}, // Mailgun, Brevo, Postman
	{"hvs.", dotChars, 20, 0, word}, {"hvb.", dotChars, 20, 0, word}, {"hvr.", dotChars, 20, 0, word}, {"dckr_pat_", tokenChars, 16, 0, word}, // Vault, Docker
	{"ATATT3", base64Any, 20, 0, word}, {"ATCTT3", base64Any, 20, 0, word}, {"lin_api_", charAlnum, 20, 0, word}, {"ntn_", charAlnum, 30, 0, word}, // Atlassian…
	{"secret_", charAlnum, 40, 0, word}, {"sbp_", charHex, 32, 0, word}, {"sb_secret_", tokenChars, 16, 0, word}, {"figd_", tokenChars, 20, 0, word},
	{"pscale_tkn_", dotChars, 20, 0, word}, {"pscale_pw_", dotChars, 20, 0, word}, {"glsa_", tokenChars, 20, 0, word}, {"glc_", base64Any, 32, 0, digital},
	{"sntrys_", base64Any, 20, 0, word}, {"sntryu_", charHex, 32, 0, word}, {"phx_", tokenChars, 30, 0, word}, {"tskey-", tokenChars, 16, 0, word},
	{"dp.pt.", charAlnum, 30, 0, word}, {"dp.st.", dotChars, 30, 0, word}, {"nfp_", charAlnum, 30, 0, word}, {"fm2_", base64Any, 40, 0, word},
	{"FLWSECK", tokenChars, 16, 0, word}, {"EZAK", charAlnum, 50, 60, exact}, {"EZTK", charAlnum, 50, 60, exact}, {"shippo_live_", charHex, 30, 0, word},
	{"live_", tokenChars, 30, 0, digital}, {"test_", charAlnum, 30, 0, digital}, {"rzp_live_", charAlnum, 12, 0, word}, // Mollie, GoCardless, Razorpay
	{"access-production-", tokenChars, 32, 0, word}, {"access-sandbox-", tokenChars, 32, 0, word}, {"access-development-", tokenChars, 32, 0, word}, // Plaid
	{"pat-na1-", tokenChars, 32, 0, word}, {"pat-eu1-", tokenChars, 32, 0, word}, {"dapi", charHex, 32, 32, hexadecimal}, {"LTAI", charAlnum, 16, 24, digital},
	{"gloas-", dotChars, 16, 0, word}, {"glimt-", dotChars, 16, 0, word}, {"glrtr-", dotChars, 16, 0, word}, {"dckr_oat_", tokenChars, 16, 0, word},
	{"HRKU-", tokenChars, 30, 0, word}, {"vercel_blob_rw_", tokenChars, 30, 0, word}, {"v1.0-", tokenChars, 120, 0, digital}, // Heroku, Vercel, Cloudflare
	{"NRAK-", charAlnum, 24, 0, word}, {"NRII-", tokenChars, 24, 0, word}, {"eyJrIjoi", base64Any, 60, 0, word}, // New Relic, Grafana
	{"pdus+", tokenChars, 20, 0, word}, {"pdeu+", tokenChars, 20, 0, word}, {"lin_oauth_", charHex, 32, 0, word}, {"pat", dotChars, 79, 0, halves},
	{"ATSTT3", base64Any, 20, 0, word}, {"ATBB", charAlnum, 32, 32, exact}, {"sl.", dotChars, 60, 0, digital}, {"EAA", charAlnum, 90, 0, digital}, // Dropbox…
	{"AAAAAAAAAAAAAAAAAAAA", charAlnum, 8, 0, varied}, {".atlasv1.", tokenChars, 40, 0, middle}, {"Q~", dotChars, 30, 40, middle}, // Twitter…
	{"dp.ct.", charAlnum, 30, 0, word}, {"dp.sa.", charAlnum, 30, 0, word}, {"A3-", tokenChars, 36, 37, digital}, {"fo1_", tokenChars, 40, 0, word},
	{"fm1r_", base64Any, 40, 0, word}, {"fm1a_", base64Any, 40, 0, word}, {"pscale_oauth_", dotChars, 20, 0, word}, {"xsmtpsib-", tokenChars, 32, 0, word},
	{"access_token$sandbox$", charAlnum | charName, 16, 0, behind}, {"rzp_test_", charAlnum, 12, 0, word}, {"shippo_test_", charHex, 30, 0, word},
	{"AKID", charAlnum, 32, 40, exact}, {"AQVN", tokenChars, 35, 40, digital}, {"t1.", dotChars, 100, 0, dotted}, {"y0_", tokenChars, 50, 0, word}, // Tencent, Yandex
	{"aio_", charAlnum, 28, 28, exact}, {"bkua_", charHex, 40, 0, word}, {"CFPAT-", tokenChars, 40, 0, word}, {"CLOJARS_", charAlnum, 60, 0, word},
	{"dt0c01.", dotChars, 60, 0, word}, {"duffel_live_", tokenChars, 40, 0, word}, {"duffel_test_", tokenChars, 40, 0, word}, {"fio-u-", tokenChars, 60, 0, word},
	{"api_org_", charAlnum, 34, 0, word}, {"ico-", charAlnum, 32, 32, digital}, {"sha256~", tokenChars, 43, 43, exact}, {"pnu_", charAlnum, 36, 36, exact},
	{"pul-", charHex, 40, 40, hexadecimal}, {"rdme_", charAlnum, 70, 0, word}, {"tk-us-", tokenChars, 48, 0, digital}, {"sgp_", tokenChars, 40, 0, word},
	{"tvly-", tokenChars, 30, 0, digital}, {"tfp_", tokenChars, 40, 0, word},
	{"apify_api_", charAlnum, 30, 0, word}, {"ops_eyJ", base64Any, 40, 0, word}, {"AGE-SECRET-KEY-1", charAlnum, 40, 0, word}, {"CCIPAT_", tokenChars, 30, 0, word},
}

// shapesOf lists the shapes by their first byte, longer prefixes first.
var shapesOf = func() (t [128][]vendorShape) {
	for _, s := range shapes {
		c := s.prefix[0]
		at := 0
		for at < len(t[c]) && len(t[c][at].prefix) >= len(s.prefix) {
			at++
		}
		t[c] = append(t[c][:at:at], append([]vendorShape{{s, vendorOf(s.prefix)}}, t[c][at:]...)...)
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
func (sc *scanner) token(i int, sh *vendorShape) int {
	s := sc.s
	if sh.rule != anywhere && sh.rule != behind && sh.rule != middle && (!boundaryBefore(s, i) || i > 0 && s[i-1] == '-') {
		return i
	}
	start := i + len(sh.prefix)
	end := start + wordEnd(s[start:min(len(s), start+decisive)], 0, sh.set)
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
	case middle:
		from := i
		for from > 0 && i-from < decisive && charClass[s[from-1]]&sh.set != 0 {
			from--
		}
		if n := i - from; n < 4 || n > 20 {
			return i
		}
		i = from
	case varied:
		if end = max(wordEnd(s[:min(len(s), start+decisive)], start, base64Any), escapedEnd(s[:min(len(s), start+decisive)], start)); !unfinished &&
			(end-start < 60 || end-start-strings.Count(s[start:end], "A") < 30) {
			return i
		}
	case halves:
		if !unfinished && (s[start+14] != '.' || wordEnd(s[start+15:start+79], 0, charHex) < 64) {
			return i
		}
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
		if word := wordEnd(s[:end], start, charLower); s[at] == '+' && (word == end || s[word] == '+') { // bearer+of+news
			return i + 1
		}
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
