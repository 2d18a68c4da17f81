package redact

import (
	"slices"
	"strings"
)

// judge is for names that hold none of the stems. name is squashed, word its last word; digits at the end are gone.
func judge(name, word string) class {
	switch name[len(name)-1] {
	case 'y':
		return judgeKey(name)
	case 'n':
		return judgeN(name, word)
	case 'd':
		return judgeD(name, word)
	case 'e':
		return judgeE(name, word)
	case 'v', 'c':
		return judgeCode(name, word)
	case 'r', 'k', 'b', 'm', 'o':
		return judgeCard(name)
	case 'h':
		if word == "auth" || name == "xauth" || strings.HasSuffix(name, "basicauth") || strings.HasSuffix(name, "proxyauth") {
			return secret
		}
	case 's':
		return judgeS(name, word)
	case 'g':
		if word == "sig" || strings.HasSuffix(name, "connectionstring") || name == "xsig" {
			return secret
		}
	case 'w':
		if word == "pw" {
			return secret
		}
	case 'p':
		if word == "otp" || word == "totp" {
			return secret
		}
	case 'a':
		if strings.HasSuffix(name, "trackdata") || name == "track1data" || name == "track2data" {
			return track
		}
		if strings.HasSuffix(name, "hmacsha") { // x-shopify-hmac-sha256
			return secret
		}
	case 't':
		if word == "jwt" || word == "pat" && word != name || name == "idtokenhint" {
			return secret
		}
	}
	return harmless
}

// keys are what makes a key a secret one; behind any other word it is an index, an address or public.
var keys = []string{
	"access", "account", "admin", "app", "application", "auth", "client", "consumer", "crypt", "decryption", "encryption", "functions", "hmac",
	"integration", "license", "master", "rsa", "sas", "security", "service", "session", "shared", "sharedaccess", "signing", "signature", "ssh", "storage",
	"subscription", "token", "transaction", "user", "webhook", "write",
	// vendors whose NAME_KEY is one
	"anthropic", "aws", "azure", "cloudflare", "cohere", "datadog", "fastly", "gemini", "github", "gitlab", "groq", "mailchimp", "mailgun", "mistral",
	"openai", "paypal", "postmark", "sendgrid", "sentry", "stripe", "supabase", "twilio", "zendesk",
}

func judgeKey(name string) class {
	switch name {
	case "socialsecurity":
		return secret
	case "key":
		return weak
	}
	before, ok := strings.CutSuffix(name, "key")
	if !ok {
		return harmless
	}
	for _, k := range keys {
		if strings.HasSuffix(before, k) {
			return secret
		}
	}
	return harmless
}

// markers are tokens that open nothing: they page through lists, or are about language.
var markers = []string{
	"page", "next", "continuation", "sync", "cursor", "pagination", "idempotency", "skip", "scroll", "bos", "eos", "pad", "unk", "stop", "start", "end",
	"per", "mask", "sep", "cls", "max", "min", "resume", "resumption", "paging",
}

func judgeN(name, word string) class {
	if before, ok := strings.CutSuffix(name, "token"); ok {
		if slices.Contains(markers, before) {
			return harmless
		}
		return secret
	}
	switch {
	case word == "pin":
		return code
	case strings.HasSuffix(name, "cvn"):
		return code
	case word == "pan" || strings.HasSuffix(name, "cardpan"):
		return number
	case word == "ssn", name == "assertion", strings.HasSuffix(name, "clientassertion"):
		return secret
	case strings.HasSuffix(name, "authorization") && !strings.HasSuffix(name, "preauthorization"):
		return authorization
	case name == "session":
		return weak
	}
	return harmless
}

func judgeD(name, word string) class {
	switch {
	case word == "pwd", strings.HasSuffix(name, "pwd"), strings.HasSuffix(name, "sessionid"), strings.HasSuffix(name, "sessid"), name == "connectsid":
		return secret
	case strings.HasSuffix(name, "accesskeyid"):
		return secret
	case name == "appid":
		return weak // OpenWeather's key
	case name == "creditcard", name == "debitcard", name == "card":
		return number
	}
	return harmless
}

func judgeE(name, word string) class {
	switch word {
	case "signature", "passcode", "mnemonic":
		return secret
	case "cookie":
		return cookie
	}
	switch {
	case strings.HasSuffix(name, "signature"), strings.HasSuffix(name, "passcode"), strings.HasSuffix(name, "seedphrase"):
		return secret
	case strings.HasSuffix(name, "securitycode"), strings.HasSuffix(name, "verificationvalue"), name == "cardcode", name == "cardverificationcode",
		name == "pincode" && word == "code":
		return code
	case strings.HasSuffix(name, "cookie"):
		return cookie
	case strings.HasSuffix(name, "magstripe"), strings.HasSuffix(name, "magneticstripe"):
		return track
	case strings.HasSuffix(name, "otpcode"), strings.HasSuffix(name, "mfacode"), strings.HasSuffix(name, "factorcode"), strings.HasSuffix(name, "authcode"),
		strings.HasSuffix(name, "authorizationcode"), strings.HasSuffix(name, "recoverycode"), name == "devicecode", name == "samlresponse":
		return secret
	case name == "code":
		return weak
	}
	return harmless
}

func judgeCode(name, word string) class {
	switch word {
	case "cvv", "cvc", "csc":
		return code
	case "hmac", "mnemonic":
		return secret
	}
	if strings.HasSuffix(name, "cvv") || strings.HasSuffix(name, "cvc") {
		return code
	}
	return harmless
}

func judgeCard(name string) class {
	switch name {
	case "track":
		return harmless // a song, a parcel
	case "pinnumber", "pinnbr":
		return code
	case "codeverifier":
		return secret
	case "socialsecuritynumber", "securitynumber":
		return secret
	case "primaryaccountnumber", "ccnumber", "ccnum", "ccno", "cardno", "cardnum", "xcardnum":
		return number
	}
	if strings.HasSuffix(name, "cardnumber") || strings.HasSuffix(name, "cardnum") || strings.HasSuffix(name, "cardnr") {
		return number
	}
	if strings.HasSuffix(name, "pinblock") {
		return code
	}
	if strings.HasSuffix(name, "bearer") {
		return secret
	}
	return harmless
}

// passes are whose *_pass is a password; a pass alone is also a test that went well.
var passes = []string{
	"admin", "auth", "basic", "db", "email", "ftp", "http", "key", "ldap", "login", "mail", "mongo", "mysql", "pg", "postgres", "proxy", "rabbitmq",
	"redis", "root", "service", "smtp", "sql", "ssh", "user", "usr", "vpn",
}

func judgeS(name, word string) class {
	switch {
	case name == "cookies":
		return secret
	case strings.HasSuffix(name, "accesstokens"), strings.HasSuffix(name, "refreshtokens"), strings.HasSuffix(name, "recoverycodes"),
		strings.HasSuffix(name, "backupcodes"), strings.HasSuffix(name, "accesskeys"):
		return secret
	}
	if word != "pass" && !strings.HasSuffix(name, "pass") {
		return harmless
	}
	before := strings.TrimSuffix(name, "pass")
	if before == "" {
		return secret
	}
	for _, p := range passes {
		if before == p || strings.HasSuffix(before, p) && word == "pass" {
			return secret
		}
	}
	return harmless
}
