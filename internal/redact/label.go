package redact

import "strings"

// label says what a hidden value is. It stands in the placeholder and, unlike a Kind, in no metric.
type label uint8

// The labels that no vendor gives.
const (
	labelSecret label = iota // by its name
	labelAuthorization
	labelCookie
	labelUserinfo
	labelBearer
	labelBasic
	labelToken // of a shape that no vendor claims
	labelWebToken
	labelPrivateKey
	labelKnown   // one of the Literals
	labelEncoded // encoded too often to be looked into
	labelPattern
	labelPAN
	labelCVV
	labelTrack
	labelEmail
	labelIBAN
	labelPhone
	labelNationalID
	labelTelegram
	labelMailchimp
	firstVendor
)

// labelNames has the vendors' ones behind it.
var labelNames = func() []string {
	list := []string{
		labelSecret: "secret", labelAuthorization: "authorization", labelCookie: "cookie", labelUserinfo: "userinfo", labelBearer: "bearer-token",
		labelBasic: "basic-credentials", labelToken: "token", labelWebToken: "jwt", labelPrivateKey: "private-key", labelKnown: "known-secret",
		labelEncoded: "encoded", labelPattern: "pattern", labelPAN: "pan", labelCVV: "cvv", labelTrack: "track", labelEmail: "email", labelIBAN: "iban",
		labelPhone: "phone", labelNationalID: "national-id", labelTelegram: "telegram-token", labelMailchimp: "mailchimp-key",
	}
	for _, v := range vendors {
		list = append(list, v.name)
	}
	return list
}()

var knownLabels = func() map[string]struct{} {
	m := make(map[string]struct{}, len(labelNames))
	for _, name := range labelNames {
		m[name] = struct{}{}
	}
	return m
}()

// kind is what a value of this label counts as.
func (l label) kind() kind {
	switch l {
	case labelPAN:
		return kindPAN
	case labelCVV:
		return kindCVV
	case labelTrack:
		return kindTrack
	case labelPattern:
		return kindPattern
	case labelEmail, labelIBAN, labelPhone, labelNationalID:
		return kindPersonal
	}
	return kindSecret
}

// label is what a value is that a name of this class hides.
func (c class) label() label {
	switch c {
	case authorization:
		return labelAuthorization
	case cookie:
		return labelCookie
	case number:
		return labelPAN
	case code:
		return labelCVV
	case track:
		return labelTrack
	case address:
		return labelEmail
	case telephone:
		return labelPhone
	case bankAccount:
		return labelIBAN
	case nationalID:
		return labelNationalID
	}
	return labelSecret
}

// vendors name the shapes by how their prefixes begin.
var vendors = []struct {
	name     string
	prefixes []string
}{
	{"stripe-key", []string{"sk_live_", "sk_test_", "rk_live_", "rk_test_"}}, {"webhook-secret", []string{"whsec_"}},
	{"github-token", []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"}}, {"gitlab-token", []string{"gl"}},
	{"slack-token", []string{"xox", "xapp-"}}, {"slack-webhook", []string{"hooks.slack.com/"}}, {"discord-webhook", []string{"discord"}},
	{"aws-key", []string{"AKIA", "ASIA", "ABIA", "ACCA", "amzn.mws."}}, {"google-key", []string{"AIza", "ya29.", "GOCSPX-"}},
	{"anthropic-key", []string{"sk-ant-"}}, {"openai-key", []string{"sk-proj-", "sk-svcacct-", "sk-admin-"}}, {"sendgrid-key", []string{"SG."}},
	{"twilio-key", []string{"SK", "AC"}}, {"shopify-token", []string{"shp"}}, {"npm-token", []string{"npm_"}}, {"pypi-token", []string{"pypi-"}},
	{"ruby-gem-key", []string{"rubygems_"}}, {"digitalocean-token", []string{"dop_v1_", "doo_v1_", "dor_v1_"}}, {"huggingface-token", []string{"hf_"}},
	{"square-token", []string{"sq0", "EAAA"}}, {"facebook-token", []string{"EAACEdEose0cBA"}}, {"mailgun-key", []string{"key-"}},
	{"braintree-token", []string{"access_token$"}}, {"brevo-key", []string{"xkeysib-"}}, {"postman-key", []string{"PMAK-"}},
	{"vault-token", []string{"hvs.", "hvb.", "hvr."}}, {"docker-token", []string{"dckr_"}}, {"atlassian-token", []string{"ATATT3", "ATCTT3"}},
	{"grafana-token", []string{"glsa_", "glc_"}}, {"sentry-token", []string{"sntry"}}, {"tailscale-key", []string{"tskey-"}}, {"linear-key", []string{"lin_api_"}},
	{"notion-token", []string{"ntn_"}}, {"planetscale-token", []string{"pscale_"}}, {"supabase-key", []string{"sbp_", "sb_secret_"}},
	{"doppler-token", []string{"dp."}}, {"plaid-token", []string{"access-production-", "access-sandbox-", "access-development-"}},
	{"razorpay-key", []string{"rzp_"}}, {"hubspot-token", []string{"pat-"}}, {"databricks-token", []string{"dapi"}}, {"alibaba-key", []string{"LTAI"}},
	{"easypost-key", []string{"EZAK", "EZTK"}}, {"shippo-token", []string{"shippo_"}}, {"age-key", []string{"AGE-SECRET-KEY-"}},
	{"airtable-token", []string{"pat"}}, {"newrelic-key", []string{"NRAK-"}}, {"heroku-key", []string{"HRKU-"}}, {"dropbox-token", []string{"sl."}},
	{"tencent-key", []string{"AKID"}},
}

// vendorOf is the label of the shape with this prefix: that of the longest beginning that a vendor has.
func vendorOf(prefix string) label {
	found, longest := labelToken, 0
	for i, v := range vendors {
		for _, p := range v.prefixes {
			if len(p) > longest && strings.HasPrefix(prefix, p) {
				found, longest = firstVendor+label(i), len(p)
			}
		}
	}
	return found
}

// tokenLabel is the label of the token that s is as a whole, labelSecret where it is none.
func tokenLabel(s string) label {
	if len(s) < 8 || s[0] >= 0x80 {
		return labelSecret
	}
	if s[0] == 'e' && strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") >= 1 {
		return labelWebToken
	}
	for k := range shapesOf[s[0]] {
		sh := &shapesOf[s[0]][k]
		if s[1] != sh.prefix[1] || sh.rule == behind || !strings.HasPrefix(s, sh.prefix) {
			continue
		}
		n := wordEnd(s, len(sh.prefix), sh.set) - len(sh.prefix)
		if len(sh.prefix)+n == len(s) && n >= sh.min && (sh.max == 0 || n <= sh.max) {
			return sh.label
		}
	}
	return labelSecret
}
