package redact

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
)

// sensitive make the values that texts of the corpus name between ‹ and ›, and that must not survive. What a value counts as stands before it.
var sensitive = map[string]struct {
	kind Kind
	make func(m maker) string
}{
	"card": {PAN, func(m maker) string { return m.card(brands[m.IntN(len(brands))]) }},
	"visa": {PAN, func(m maker) string {
		return m.pick("4111111111111111", "4242424242424242", "4012888888881881", "4000056655665556", m.card(brands[0]))
	}},
	"amex":    {PAN, func(m maker) string { return m.pick("378282246310005", "371449635398431", m.card(brands[3])) }},
	"printed": {PAN, func(m maker) string { return m.separated(m.card(brands[m.IntN(len(brands))]), m.pick(" ", "-")) }},
	"spaced":  {PAN, func(m maker) string { return m.separated(m.card(brands[m.IntN(2)]), " ") }},
	"formed":  {PAN, func(m maker) string { return m.separated(m.card(brands[m.IntN(3)+1]), "+") }},
	"wide":    {PAN, func(m maker) string { return m.separated(m.card(brands[m.IntN(3)+1]), m.pick(wideSeparators...)) }},
	"cvv":     {CVV, func(m maker) string { return m.from(digitSet, 3) }},
	"cid":     {CVV, func(m maker) string { return m.from(digitSet, 4) }},
	"track1": {Track, func(m maker) string {
		return "%B" + m.card(brands[m.IntN(4)]) + "^" + m.pick("DOE/JANE", "ROE/RICHARD A") + "^2" + m.from("5678", 1) + "12101" + m.from(digitSet, 9) + "?"
	}},
	"track2": {Track, func(m maker) string {
		return ";" + m.card(brands[m.IntN(4)]) + "=2" + m.from("5678", 1) + "12101" + m.from(digitSet, 9) + "?"
	}},
	"chip": {Track, func(m maker) string {
		return m.card(brands[m.IntN(4)]) + "D2" + m.from("5678", 1) + "12201" + m.from(digitSet, 9) + "F"
	}},
	"pw":      {Hidden, func(m maker) string { return m.password() }},
	"plainpw": {Hidden, func(m maker) string { return m.from(lowerSet, 4) + m.from(alnumSet, 6) + m.from(digitSet, 2) }},
	"phrase": {Hidden, func(m maker) string {
		return m.from(lowerSet, 6) + " " + m.from(lowerSet, 5) + ", " + m.from(lowerSet, 7) + " " + m.from(digitSet, 2)
	}},
	"opaque":  {Hidden, func(m maker) string { return m.from(alnumSet, 22) + m.from(digitSet, 2) + m.from(lowerSet, 2) }},
	"hexkey":  {Hidden, func(m maker) string { return m.from(hexSet, 30) + "a7" }},
	"b64key":  {Hidden, func(m maker) string { return base64.StdEncoding.EncodeToString([]byte(m.from(alnumSet, 64))) }},
	"uuidkey": {Hidden, func(m maker) string { return uuid(m, hexSet) }},
	"jwt":     {Hidden, webTokenOf},
	"basic": {Hidden, func(m maker) string {
		return base64.StdEncoding.EncodeToString([]byte("svc-" + m.from(lowerSet, 4) + ":" + m.from(alnumSet, 11)))
	}},
	"userpass": {Hidden, func(m maker) string { return m.pick("app", "deploy", "root") + ":" + m.from(alnumSet, 12) }},
	"userinfo": {Hidden, func(m maker) string { return m.pick("app", "deploy", "root", "") + ":" + m.from(alnumSet, 12) }},
	"otp":      {Hidden, func(m maker) string { return m.from(digitSet, 6) }},
	"ssn": {Hidden, func(m maker) string {
		return m.from("12345678", 3) + "-" + m.from("1234", 2) + "-" + m.from(digitSet, 4)
	}},
	"pem":      {Hidden, func(m maker) string { return tokens["private key"](m) }},
	"telegram": {Hidden, func(m maker) string { return tokens["telegram"](m) }},
	"pinblock": {CVV, func(m maker) string { return m.from(hexSet, 14) + "a7" }},
	"stripe":   {Hidden, func(m maker) string { return tokens["stripe live"](m) }},
	"token":    {Hidden, func(m maker) string { return vendorTokens[m.IntN(len(vendorTokens))].make(m) }},
}

// wideSeparators stand between the groups of card numbers in typeset text.
var wideSeparators = []string{"\u00a0", "\u2009", "\u202f", "\u2007", "\u2013", "\u2011", "\u2010"}

func (m maker) separated(card, separator string) string {
	for range 50 {
		if s := m.grouped(card); s != card {
			return strings.NewReplacer(" ", separator, "-", separator).Replace(s)
		}
	}
	return card
}

func (m maker) password() string {
	return m.from(lowerSet, 1+m.IntN(4)) + m.from("ABCDEFGH", 1) + m.from("!@*.-_$^~", 1) + m.from(alnumSet, 4+m.IntN(8)) + m.from(digitSet, 2)
}

// vendorTokens are of more vendors than vendors_test.go knows. No prefix stands here in one piece.
var vendorTokens = []struct {
	name string
	make func(m maker) string
}{
	{"aws", tokens["aws"]}, {"google", tokens["google"]}, {"google oauth", tokens["google oauth"]}, {"github", tokens["github"]},
	{"github fine", tokens["github fine"]}, {"gitlab", tokens["gitlab"]}, {"slack", tokens["slack"]}, {"slack app", tokens["slack app"]},
	{"stripe", tokens["stripe live"]}, {"stripe test", tokens["stripe test"]}, {"stripe restricted", tokens["stripe restricted"]},
	{"stripe webhook", tokens["stripe webhook"]}, {"openai", tokens["openai"]}, {"openai project", tokens["openai project"]},
	{"anthropic", tokens["anthropic"]}, {"sendgrid", tokens["sendgrid"]}, {"twilio", tokens["twilio"]}, {"shopify", tokens["shopify"]},
	{"npm", tokens["npm"]}, {"pypi", tokens["pypi"]}, {"digitalocean", tokens["digitalocean"]}, {"hugging face", tokens["hugging face"]},
	{"square", tokens["square"]}, {"mailgun", tokens["mailgun"]}, {"telegram", tokens["telegram"]}, {"vault", tokens["vault"]}, {"jwt", webTokenOf},
	{"google client", func(m maker) string { return "GOC" + "SPX-" + m.from(alnumSet, 28) }},
	{"gitlab runner", func(m maker) string { return "gl" + "rt-" + m.from(alnumSet, 20) }},
	{"gitlab deploy", func(m maker) string { return "gl" + "dt-" + m.from(alnumSet, 20) }},
	{"gitlab app", func(m maker) string { return "glo" + "as-" + m.from(hexSet, 64) }},
	{"gitlab mail", func(m maker) string { return "gli" + "mt-" + m.from(alnumSet, 25) }},
	{"square secret", func(m maker) string { return "sq0" + "csp-" + m.from(alnumSet, 43) }},
	{"square access", func(m maker) string { return "EA" + "AA" + m.from(alnumSet, 60) }},
	{"braintree", func(m maker) string {
		return "access_" + "token$production$" + m.from(alnumSet, 16) + "$" + m.from(hexSet, 32)
	}},
	{"braintree sandbox", func(m maker) string {
		return "access_" + "token$sandbox$" + m.from(alnumSet, 16) + "$" + m.from(hexSet, 32)
	}},
	{"mailchimp", func(m maker) string { return m.from(hexSet, 32) + "-" + "us" + m.pick("1", "7", "12", "21") }},
	{"rubygems", func(m maker) string { return "ruby" + "gems_" + m.from(hexSet, 48) }},
	{"docker", func(m maker) string { return "dckr" + "_pat_" + m.from(urlSet, 26) + "x" }},
	{"docker org", func(m maker) string { return "dckr" + "_oat_" + m.from(alnumSet, 32) }},
	{"heroku", func(m maker) string { return "HR" + "KU-" + m.pick(uuid(m, hexSet), "AA"+m.from(alnumSet, 58)) }},
	{"netlify", func(m maker) string { return "nf" + "p_" + m.from(alnumSet, 36) }},
	{"vercel blob", func(m maker) string {
		return "vercel_" + "blob_rw_" + m.from(alnumSet, 16) + "_" + m.from(alnumSet, 30)
	}},
	{"cloudflare origin", func(m maker) string { return "v1" + ".0-" + m.from(hexSet, 24) + "-" + m.from(hexSet, 146) }},
	{"new relic", func(m maker) string { return "NR" + "AK-" + m.from(upperSet, 27) }},
	{"new relic insert", func(m maker) string { return "NR" + "II-" + m.from(urlSet, 31) + "x" }},
	{"sentry", func(m maker) string { return "sntry" + "s_eyJ" + m.from(alnumSet, 80) + "_" + m.from(alnumSet, 43) }},
	{"sentry user", func(m maker) string { return "sntry" + "u_" + m.from(hexSet, 64) }},
	{"grafana", func(m maker) string { return "gl" + "sa_" + m.from(alnumSet, 32) + "_" + m.from(hexSet, 8) }},
	{"grafana cloud", func(m maker) string { return "gl" + "c_" + m.from(alnumSet, 60) + "==" }},
	{"grafana old", func(m maker) string { return "eyJ" + "rIjoi" + m.from(alnumSet, 80) + "==" }},
	{"pagerduty", func(m maker) string {
		return "pd" + "us+_0X" + m.from(upperSet, 4) + "_" + m.from(alnumSet, 8) + "-" + m.from(alnumSet, 20)
	}},
	{"linear", func(m maker) string { return "lin_" + "api_" + m.from(alnumSet, 40) }},
	{"linear oauth", func(m maker) string { return "lin_" + "oauth_" + m.from(hexSet, 64) }},
	{"notion", func(m maker) string { return "nt" + "n_" + m.from(digitSet, 11) + m.from(alnumSet, 35) }},
	{"airtable", func(m maker) string { return "pa" + "t" + m.from(alnumSet, 14) + "." + m.from(hexSet, 64) }},
	{"atlassian", func(m maker) string {
		return "ATA" + "TT3xFfGF0" + m.from(alnumSet, 170) + "=" + m.from("0123456789ABCDEF", 8)
	}},
	{"bitbucket", func(m maker) string { return "AT" + "BB" + m.from(alnumSet, 24) + m.from("0123456789ABCDEF", 8) }},
	{"dropbox", func(m maker) string { return "sl" + ".u." + m.from(urlSet, 130) + "x" }},
	{"facebook", func(m maker) string { return "EA" + m.pick("AM", "AC", "AG") + m.from(alnumSet, 160) }},
	{"twitter", func(m maker) string {
		return strings.Repeat("A", 21) + m.from(alnumSet, 30) + "%2F" + m.from(alnumSet, 18) + "%3D" + m.from(alnumSet, 42)
	}},
	{"databricks", func(m maker) string { return "da" + "pi" + m.from(hexSet, 32) }},
	{"terraform", func(m maker) string { return m.from(alnumSet, 14) + ".atlas" + "v1." + m.from(alnumSet, 66) }},
	{"doppler", func(m maker) string { return "dp" + ".pt." + m.from(alnumSet, 43) }},
	{"doppler service", func(m maker) string { return "dp" + ".st.prd." + m.from(alnumSet, 43) }},
	{"doppler account", func(m maker) string { return "dp" + ".sa." + m.from(alnumSet, 43) }},
	{"1password service", func(m maker) string { return "ops" + "_eyJ" + m.from(alnumSet, 250) }},
	{"1password", func(m maker) string {
		return "A3" + "-" + m.from(upperSet, 6) + "-" + m.from(upperSet, 6) + "-" + m.from(upperSet, 5) + "-" + m.from(upperSet, 5) + "-" + m.from(upperSet, 5) + "-" +
			m.from(digitSet, 5)
	}},
	{"tailscale", func(m maker) string {
		return "ts" + "key-auth-k" + m.from(alnumSet, 10) + "CNTRL-" + m.from(alnumSet, 30)
	}},
	{"fly", func(m maker) string { return "fm" + "2_lJPE" + m.from(alnumSet, 120) + "==" }},
	{"fly old", func(m maker) string { return "fo" + "1_" + m.from(alnumSet, 43) }},
	{"planetscale", func(m maker) string { return "pscale" + "_tkn_" + m.from(alnumSet, 43) }},
	{"planetscale password", func(m maker) string { return "pscale" + "_pw_" + m.from(alnumSet, 43) }},
	{"planetscale oauth", func(m maker) string { return "pscale" + "_oauth_" + m.from(alnumSet, 43) }},
	{"supabase", func(m maker) string { return "sb" + "p_" + m.from(hexSet, 40) }},
	{"supabase secret", func(m maker) string { return "sb" + "_secret_" + m.from(alnumSet, 31) }},
	{"postman", func(m maker) string { return "PM" + "AK-" + m.from(hexSet, 24) + "-" + m.from(hexSet, 34) }},
	{"brevo", func(m maker) string { return "xkey" + "sib-" + m.from(hexSet, 64) + "-" + m.from(alnumSet, 16) }},
	{"brevo mail", func(m maker) string { return "xsmtp" + "sib-" + m.from(hexSet, 64) + "-" + m.from(alnumSet, 16) }},
	{"alibaba", func(m maker) string { return "LT" + "AI5t" + m.from(alnumSet, 16) + m.from(digitSet, 2) }},
	{"tencent", func(m maker) string { return "AK" + "ID" + m.from(alnumSet, 32) }},
	{"yandex", func(m maker) string { return "AQ" + "VN" + m.from(urlSet, 33) + "07x" }},
	{"yandex session", func(m maker) string { return "t1." + "9eu" + m.from(urlSet, 60) + "." + m.from(urlSet, 86) + "7x" }},
	{"yandex oauth", func(m maker) string { return "y0" + "_AgAA" + m.from(urlSet, 54) + "x" }},
	{"azure", func(m maker) string {
		return m.from(alnumSet, 3) + m.from(digitSet, 1) + "Q~" + m.from(alnumSet+"-_.", 33) + "x"
	}},
	{"age", func(m maker) string { return "AGE-" + "SECRET-KEY-1" + m.from(upperSet, 58) }},
	{"adafruit", func(m maker) string { return "ai" + "o_" + m.from(alnumSet, 26) + m.from(digitSet, 2) }},
	{"buildkite", func(m maker) string { return "bk" + "ua_" + m.from(hexSet, 40) }},
	{"contentful", func(m maker) string { return "CF" + "PAT-" + m.from(alnumSet, 43) }},
	{"clojars", func(m maker) string { return "CLOJ" + "ARS_" + m.from(hexSet, 60) }},
	{"dynatrace", func(m maker) string { return "dt0" + "c01." + m.from(upperSet, 24) + "." + m.from(upperSet, 64) }},
	{"duffel", func(m maker) string { return "duffel" + "_live_" + m.from(alnumSet, 43) }},
	{"easypost", func(m maker) string { return "EZ" + "AK" + m.from(alnumSet, 54) }},
	{"figma", func(m maker) string { return "fi" + "gd_" + m.from(alnumSet, 40) }},
	{"frame.io", func(m maker) string { return "fio" + "-u-" + m.from(alnumSet, 62) + "07" }},
	{"groq", func(m maker) string { return "gs" + "k_" + m.from(alnumSet, 52) }},
	{"hugging face org", func(m maker) string { return "api" + "_org_" + m.from(alnumSet, 34) }},
	{"hubspot", func(m maker) string { return "pat" + "-na1-" + uuid(m, hexSet) }},
	{"infracost", func(m maker) string { return "ico" + "-" + m.from(alnumSet, 30) + "07" }},
	{"openshift", func(m maker) string { return "sha" + "256~" + m.from(urlSet, 42) + "x" }},
	{"perplexity", func(m maker) string { return "pp" + "lx-" + m.from(alnumSet, 48) }},
	{"plaid", func(m maker) string { return "access" + "-production-" + uuid(m, hexSet) }},
	{"prefect", func(m maker) string { return "pn" + "u_" + m.from(alnumSet, 36) }},
	{"pulumi", func(m maker) string { return "pu" + "l-" + m.from(hexSet, 40) }},
	{"razorpay", func(m maker) string { return "rzp" + "_live_" + m.from(alnumSet, 14) }},
	{"readme", func(m maker) string { return "rd" + "me_" + m.from(alnumSet, 70) }},
	{"replicate", func(m maker) string { return "r" + "8_" + m.from(alnumSet, 37) }},
	{"scalingo", func(m maker) string { return "tk" + "-us-" + m.from(alnumSet, 46) + "07" }},
	{"shippo", func(m maker) string { return "shippo" + m.pick("_live_", "_test_") + m.from(hexSet, 40) }},
	{"sourcegraph", func(m maker) string { return "sg" + "p_" + m.from(hexSet, 40) }},
	{"tavily", func(m maker) string { return "tv" + "ly-" + m.from(alnumSet, 30) + "07" }},
	{"typeform", func(m maker) string { return "tf" + "p_" + m.from(alnumSet, 44) }},
	{"xai", func(m maker) string { return "xa" + "i-" + m.from(alnumSet, 80) }},
	{"flutterwave", func(m maker) string { return "FLWSE" + "CK-" + m.from(hexSet, 32) + "-X" }},
}

// harmlessValues make what looks like a secret and is none, beyond the innocents of vendors_test.go.
var harmlessValues = map[string]func(m maker) string{
	"ulid":      func(m maker) string { return "01H" + m.from("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 23) },
	"ksuid":     func(m maker) string { return m.pick("0", "1", "2") + m.from(alnumSet, 26) },
	"objectid":  func(m maker) string { return "65" + m.from(hexSet, 22) },
	"sha512":    func(m maker) string { return m.from(hexSet, 128) },
	"sha256b64": func(m maker) string { return base64.StdEncoding.EncodeToString([]byte(m.from(alnumSet, 32))) },
	"sri": func(m maker) string {
		return "sha384-" + base64.StdEncoding.EncodeToString([]byte(m.from(alnumSet, 48)))
	},
	"digest":      func(m maker) string { return "sha256:" + m.from(hexSet, 64) },
	"short":       func(m maker) string { return m.from("123456789abcdef", 1) + m.from(hexSet, 6) },
	"fedex":       func(m maker) string { return m.notCard("7" + m.from(digitSet, 11)) },
	"fedex smart": func(m maker) string { return "612999" + m.from(digitSet, 16) },
	"dhl":         func(m maker) string { return m.from("123456789", 1) + m.from(digitSet, 9) },
	"jjd":         func(m maker) string { return "JJD" + m.from(digitSet, 18) },
	"upu": func(m maker) string {
		return m.pick("RR", "CP", "EE", "LX") + m.from(digitSet, 9) + m.pick("DE", "GB", "CN")
	},
	"sscc": func(m maker) string { return "00" + m.from(digitSet, 18) },
	"isbn": func(m maker) string { return "978" + m.from(digitSet, 10) },
	"isbn dashed": func(m maker) string {
		return "978-" + m.from(digitSet, 1) + "-" + m.from(digitSet, 2) + "-" + m.from(digitSet, 6) + "-" + m.from(digitSet, 1)
	},
	"ean": func(m maker) string {
		return m.notCard(m.pick("400", "45", "50", "87", "30", "76") + m.from(digitSet, 9))
	},
	"gtin":  func(m maker) string { return m.notCard("1" + m.from(digitSet, 13)) },
	"imei":  func(m maker) string { return m.luhnOf(m.pick("35", "86", "01", "99"), 15) },
	"iccid": func(m maker) string { return m.luhnOf("89"+m.pick("01", "49", "44"), 19) },
	"imsi":  func(m maker) string { return "26201" + m.from(digitSet, 10) },
	"mmsi":  func(m maker) string { return "211" + m.from(digitSet, 6) },
	"vin":   func(m maker) string { return "WVWZZZ" + m.from("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", 11) },
	"ipv6": func(m maker) string {
		return "2001:db8:" + m.from(hexSet, 4) + "::" + m.from(hexSet, 4) + ":" + m.from(hexSet, 3)
	},
	"cidr": func(m maker) string { return "10." + m.pick("1", "22", "133") + ".0.0/16" },
	"mac": func(m maker) string {
		return "02:" + m.from(hexSet, 2) + ":" + m.from(hexSet, 2) + ":" + m.from(hexSet, 2) + ":" + m.from(hexSet, 2) + ":0a"
	},
	"coordinates": func(m maker) string { return "48." + m.from(digitSet, 15) + ",-2." + m.from(digitSet, 14) },
	"float":       func(m maker) string { return "4." + m.from(digitSet, 15) },
	"long float":  func(m maker) string { return m.from("123456789", 4) + "." + m.from(digitSet, 12) },
	"exponent":    func(m maker) string { return "5." + m.from(digitSet, 14) + "e-" + m.from("123456789", 1) },
	"money": func(m maker) string {
		return m.from("123456789", 3) + "," + m.from(digitSet, 3) + "." + m.from(digitSet, 2)
	},
	"money eu": func(m maker) string {
		return m.from("123456789", 2) + "." + m.from(digitSet, 3) + "." + m.from(digitSet, 3) + "," + m.from(digitSet, 2) + " €"
	},
	"semver": func(m maker) string {
		return m.from("123456789", 1) + "." + m.from(digitSet, 1) + "." + m.from("123456789", 2) + "+build." + m.from("123456789", 4)
	},
	"pod": func(m maker) string {
		return "payments-api-" + m.from("bcdfghjklmnpqrstvwxz2456789", 10) + "-" + m.from("bcdfghjklmnpqrstvwxz2456789", 5)
	},
	"s3 key": func(m maker) string {
		return "exports/2024/06/15/part-" + m.from(digitSet, 5) + "-" + uuid(m, hexSet) + ".snappy.parquet"
	},
	"arn": func(m maker) string {
		return "arn:aws:sqs:eu-west-1:" + m.notCard(m.from("1", 1)+m.from(digitSet, 11)) + ":orders-" + m.from(lowerSet, 5)
	},
	"trace": func(m maker) string { return "00-" + m.from(hexSet, 31) + "a-" + m.from(hexSet, 15) + "b-01" },
	"xray": func(m maker) string {
		return "Root=1-" + m.from(hexSet, 8) + "-" + m.from(hexSet, 24) + ";Parent=" + m.from(hexSet, 15) + "f;Sampled=1"
	},
	"cursor": func(m maker) string {
		return base64.StdEncoding.EncodeToString([]byte(`{"id":` + m.from(digitSet, 8) + `,"dir":"next"}`))
	},
	"base64": func(m maker) string { return base64.StdEncoding.EncodeToString([]byte(m.from(alnumSet, 150))) },
	"zeros":  func(m maker) string { return base64.StdEncoding.EncodeToString(make([]byte, 40+m.IntN(400))) },
	"ssh public": func(m maker) string {
		return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + m.from(alnumSet, 43) + " ops@example.com"
	},
	"public pem": func(m maker) string {
		return "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" + m.from(alnumSet, 32) + "\n-----END PUBLIC KEY-----"
	},
	"certificate": func(m maker) string {
		return "-----BEGIN CERTIFICATE-----\nMIID" + m.from(alnumSet+"+/", 60) + "\n-----END CERTIFICATE-----"
	},
	"publishable": func(m maker) string { return "pk" + "_test_" + m.from(alnumSet, 24) },
	"long id": func(m maker) string {
		return m.pick("txn_", "sub_", "price_", "in_", "acct_", "seti_", "prod_") + m.from(alnumSet, 24)
	},
	"iban valid":  func(m maker) string { return m.iban(m.pick("DE", "NL", "BE", "NO", "ES", "GB")) },
	"iban spaced": func(m maker) string { return m.spaced(m.iban(m.pick("DE", "NL", "BE", "NO", "ES", "GB"))) },
	"bic":         func(m maker) string { return "COBADE" + m.from(upperSet, 2) + "XXX" },
	"account":     func(m maker) string { return m.notCard(m.from("123456789", 1) + m.from(digitSet, 9+m.IntN(3))) },
	"routing":     func(m maker) string { return "0" + m.from(digitSet, 8) },
	"unlucky":     func(m maker) string { return m.unlucky() },
	"unlucky spaced": func(m maker) string {
		s := m.unlucky()
		return s[:4] + " " + s[4:8] + " " + s[8:12] + " " + s[12:]
	},
	"long run": func(m maker) string { return m.from("123456789", 1) + m.card(brands[0]) + m.from(digitSet, 6) },
	"in hex": func(m maker) string {
		return m.from("abcdef", 2) + "4111111111111111" + m.from("abcdef", 4) + m.from(hexSet, 10)
	},
	"in decimal": func(m maker) string { return "0.4111111111111111" },
	"in uuid":    func(m maker) string { return m.from(hexSet, 8) + "-4111-1111-a111-" + m.from("123456789", 12) },
	"epoch":      func(m maker) string { return "17" + m.from(digitSet, 8) },
	"rfc2822":    func(m maker) string { return "Sat, 15 Jun 2024 12:34:" + m.from("012345", 2) + " +0000" },
	"compact":    func(m maker) string { return "20240615T123456" + m.from(digitSet, 3) + "Z" },
	"phone de": func(m maker) string {
		return "0" + m.from("123456789", 3) + " " + m.from(digitSet, 4) + "-" + m.from(digitSet, 3)
	},
	"phone fr": func(m maker) string {
		return "+33 6 " + m.from(digitSet, 2) + " " + m.from(digitSet, 2) + " " + m.from(digitSet, 2) + " " + m.from(digitSet, 2)
	},
	"masked": func(m maker) string {
		return m.pick("**** **** **** ", "xxxx-xxxx-xxxx-", "411111******", "•••• ") + m.from(digitSet, 4)
	},
	"branch": func(m maker) string { return "feature/PAY-" + m.from("123456789", 4) + "-token-bucket-rate-limits" },
	"class": func(m maker) string {
		return "com.example.security.PasswordEncoder" + m.pick("Factory", "Test", "Config")
	},
	"locale": func(m maker) string { return m.pick("en_US.UTF-8", "de_DE@euro", "zh-Hans-CN") },
	"mime": func(m maker) string {
		return "application/vnd.example.v" + m.from("123456789", 1) + "+json; charset=utf-8"
	},
	"color":    func(m maker) string { return "#" + m.from(hexSet, 6) },
	"hex dump": func(m maker) string { return "0x" + m.from(hexSet, 16) },
	"wallet":   func(m maker) string { return "0x" + m.from(hexSet, 39) + "a" },
}

// notCard is s, its last digit changed where s would be a card number.
func (m maker) notCard(s string) string {
	for isCard(s) {
		s = s[:len(s)-1] + m.from(digitSet, 1)
	}
	return s
}

// luhnOf is a number of n digits with a valid check digit.
func (m maker) luhnOf(prefix string, n int) string {
	s := prefix + m.from(digitSet, n-1-len(prefix))
	for d := range 10 {
		if c := s + digitSet[d:d+1]; luhn(c) {
			return c
		}
	}
	panic("no check digit fits")
}

// unlucky is a card number with a wrong check digit, of which no part is a valid one.
func (m maker) unlucky() string {
	for {
		s := m.card(brand{"", []string{"4", "51", "6011", "3530"}, []int{16}})
		s = s[:15] + digitSet[(s[15]-'0'+1+byte(m.IntN(8)))%10:][:1]
		if !luhn(s) && !luhn(s[:13]) && !luhn(s[:14]) && !luhn(s[:15]) && !luhn(s[:12]) {
			return s
		}
	}
}

// iban is a number with valid check digits.
func (m maker) iban(country string) string {
	bban := map[string]string{"DE": m.from(digitSet, 18), "NL": "ABNA" + m.from(digitSet, 10), "BE": m.from(digitSet, 12), "NO": m.from(digitSet, 11),
		"ES": m.from(digitSet, 20), "GB": "NWBK" + m.from(digitSet, 14)}[country]
	var digits strings.Builder
	for _, c := range []byte(bban + country + "00") {
		if isDigit(c) {
			digits.WriteByte(c)
		} else {
			fmt.Fprint(&digits, c-'A'+10)
		}
	}
	n, _ := new(big.Int).SetString(digits.String(), 10)
	return fmt.Sprintf("%s%02d%s", country, 98-new(big.Int).Mod(n, big.NewInt(97)).Int64(), bban)
}

func (m maker) spaced(s string) string {
	var parts []string
	for len(s) > 4 {
		parts, s = append(parts, s[:4]), s[4:]
	}
	return strings.Join(append(parts, s), " ")
}
