package redact

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
)

// maker makes random values. The seed is fixed: a failure can be repeated.
type maker struct{ *rand.Rand }

func newMaker(seed uint64) maker { return maker{rand.New(rand.NewPCG(seed, 1))} }

const (
	digitSet = "0123456789"
	lowerSet = "abcdefghijklmnopqrstuvwxyz"
	hexSet   = "0123456789abcdef"
	alnumSet = digitSet + lowerSet + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	upperSet = digitSet + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	urlSet   = alnumSet + "-_"
)

func (m maker) from(set string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = set[m.IntN(len(set))]
	}
	return string(b)
}

func (m maker) pick(list ...string) string { return list[m.IntN(len(list))] }

// brand is a card brand: how its numbers begin and how long they are.
type brand struct {
	name    string
	begins  []string
	lengths []int
}

var brands = []brand{
	{"visa", []string{"4"}, []int{13, 16, 19}},
	{"mastercard", []string{"51", "52", "53", "54", "55"}, []int{16}},
	{"mastercard 2", []string{"2221", "2300", "2500", "2699", "2720"}, []int{16}},
	{"amex", []string{"34", "37"}, []int{15}},
	{"discover", []string{"6011", "644", "649", "65"}, []int{16, 19}},
	{"jcb", []string{"3528", "3550", "3589"}, []int{16}},
	{"diners", []string{"300", "305", "36", "38", "39"}, []int{14}},
	{"unionpay", []string{"620", "62", "8100"}, []int{16, 17, 18, 19}},
	{"maestro", []string{"5018", "5020", "5038", "5893", "6304", "6759", "6761", "6763"}, []int{12, 13, 14, 15, 16, 17, 18, 19}},
	{"mir", []string{"2200", "2204"}, []int{16}},
	{"rupay", []string{"508", "60", "81", "82"}, []int{16}},
	{"troy", []string{"9792"}, []int{16}},
}

// card makes a valid number of a brand.
func (m maker) card(b brand) string {
	n := b.lengths[m.IntN(len(b.lengths))]
	s := m.pick(b.begins...)
	s += m.from(digitSet, n-1-len(s))
	for d := range 10 {
		if c := s + digitSet[d:d+1]; luhn(c) {
			return c
		}
	}
	panic("no check digit fits")
}

// grouped is a number as it is printed.
func (m maker) grouped(card string) string {
	separator := m.pick(" ", "-")
	sizes := []int{4, 4, 4, 4, 3}
	switch len(card) {
	case 15:
		sizes = []int{4, 6, 5}
	case 14:
		sizes = []int{4, 6, 4}
	}
	var parts []string
	for _, n := range sizes {
		if card == "" {
			break
		}
		n = min(n, len(card))
		parts, card = append(parts, card[:n]), card[n:]
	}
	return strings.Join(parts, separator)
}

// tokens make one value for each vendor.
var tokens = map[string]func(m maker) string{
	"stripe live":       func(m maker) string { return "sk_" + "live_" + m.from(alnumSet, 24) },
	"stripe long":       func(m maker) string { return "sk_" + "live_" + m.from(alnumSet, 99) },
	"stripe test":       func(m maker) string { return "sk_" + "test_" + m.from(alnumSet, 24) },
	"stripe restricted": func(m maker) string { return "rk_" + "live_" + m.from(alnumSet, 24) },
	"stripe webhook":    func(m maker) string { return "wh" + "sec_" + m.from(alnumSet, 32) },
	"github":            func(m maker) string { return m.pick("ghp", "gho", "ghu", "ghs", "ghr") + "_" + m.from(alnumSet, 36) },
	"github fine":       func(m maker) string { return "github" + "_pat_" + m.from(alnumSet, 22) + "_" + m.from(alnumSet, 59) },
	"slack": func(m maker) string {
		return "xo" + m.pick("xb", "xp", "xa", "xr", "xs") + "-" + m.from(digitSet, 12) + "-" + m.from(digitSet, 12) + "-" + m.from(alnumSet, 24)
	},
	"slack app": func(m maker) string {
		return "xap" + "p-1-A" + m.from(upperSet, 10) + "-" + m.from(digitSet, 13) + "-" + m.from(hexSet, 64)
	},
	"aws":            func(m maker) string { return m.pick("AK", "AS") + "IA" + m.from(upperSet, 16) },
	"google":         func(m maker) string { return "AI" + "za" + m.from(urlSet, 34) + m.from(alnumSet, 1) },
	"google oauth":   func(m maker) string { return "ya" + "29." + m.from(urlSet, 60) + "x" },
	"openai":         func(m maker) string { return "s" + "k-" + m.from(alnumSet, 20) + "T3B" + m.from(alnumSet, 20) + "7q" },
	"openai project": func(m maker) string { return "s" + "k-proj-" + m.from(urlSet, 80) + "1" },
	"anthropic":      func(m maker) string { return "s" + "k-ant-" + "api03-" + m.from(urlSet, 90) + "AA" },
	"sendgrid":       func(m maker) string { return "S" + "G." + m.from(urlSet, 22) + "." + m.from(urlSet, 42) + "x" },
	"twilio":         func(m maker) string { return "S" + "K" + "0" + m.from(hexSet, 31) },
	"shopify":        func(m maker) string { return "shp" + m.pick("at", "ss", "ca", "pa") + "_" + m.from(hexSet, 32) },
	"npm":            func(m maker) string { return "np" + "m_" + m.from(alnumSet, 36) },
	"pypi":           func(m maker) string { return "py" + "pi-AgEIcHlwaS5vcmc" + m.from(urlSet, 60) + "x" },
	"gitlab":         func(m maker) string { return "gl" + "pat-" + m.from(urlSet, 19) + "x" },
	"digitalocean":   func(m maker) string { return "do" + "p_v1_" + m.from(hexSet, 64) },
	"hugging face":   func(m maker) string { return "h" + "f_" + m.from(alnumSet, 34) },
	"square":         func(m maker) string { return "sq0" + "atp-" + m.from(urlSet, 21) + "x" },
	"mailgun":        func(m maker) string { return "ke" + "y-" + m.from(hexSet, 32) },
	"telegram": func(m maker) string {
		return m.from("123456789", 1) + m.from(digitSet, 8) + ":AA" + m.from(urlSet, 32) + "x"
	},
	"vault":     func(m maker) string { return "hv" + "s." + m.from(alnumSet, 24) },
	"web token": webTokenOf,
	"private key": func(m maker) string {
		return "-----BEGIN " + m.pick("RSA ", "EC ", "OPENSSH ", "") + "PRIVATE KEY-----\n" + m.from(alnumSet, 64) + "\n" + m.from(alnumSet, 40) +
			"\n-----END PRIVATE KEY-----"
	},
}

func webTokenOf(m maker) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(`{"sub":"`+m.from(digitSet, 10)+`"}`)) + "." + m.from(urlSet, 42) + "x"
}

// innocents make values that look like secrets and are none.
var innocents = map[string]func(m maker) string{
	"order":  func(m maker) string { return "ORD-2024-" + m.from(digitSet, 8) },
	"uuid":   func(m maker) string { return uuid(m, hexSet) },
	"number": func(m maker) string { return uuid(m, digitSet) },
	"millis": func(m maker) string { return "17" + m.from(digitSet, 11) },
	"micros": func(m maker) string { return "17" + m.from(digitSet, 14) },
	"nanos":  func(m maker) string { return "17" + m.from(digitSet, 17) },
	"stamp":  func(m maker) string { return "2024" + m.pick("01", "12") + "15" + m.from(digitSet, 6) },
	"iso": func(m maker) string {
		return "2024-06-15T12:34:" + m.from("012345", 2) + "." + m.from(digitSet, 9) + "Z"
	},
	"tracking": func(m maker) string { return "1Z" + m.from(upperSet, 16) },
	"parcel":   func(m maker) string { return "94" + m.from(digitSet, 20) },
	"parcels": func(m maker) string {
		return "94" + m.from(digitSet, 2) + strings.Repeat(" "+m.from(digitSet, 4), 4) + " " + m.from(digitSet, 2)
	},
	"md5":       func(m maker) string { return m.from(hexSet, 32) },
	"sha1":      func(m maker) string { return m.from(hexSet, 40) },
	"sha256":    func(m maker) string { return m.from(hexSet, 64) },
	"image":     func(m maker) string { return "data:image/png;base64," + m.from(alnumSet+"+/", 2000) + "==" },
	"phone":     func(m maker) string { return "+49" + m.from(digitSet, 10) },
	"phone us":  func(m maker) string { return "+1 " + m.from(digitSet, 3) + "-555-01" + m.from(digitSet, 2) },
	"decimal":   func(m maker) string { return "0." + m.from(digitSet, 16) },
	"snowflake": func(m maker) string { return "1" + m.from(digitSet, 18) },
	"iban":      func(m maker) string { return "DE" + m.from(digitSet, 20) },
	"public":    func(m maker) string { return "pk_" + "live_" + m.from(alnumSet, 24) },
	"object":    func(m maker) string { return m.pick("cus_", "ch_", "pi_", "evt_", "req_") + m.from(alnumSet, 24) },
	"version":   func(m maker) string { return "v1." + m.from(digitSet, 2) + "." + m.from(digitSet, 3) + "-rc.1" },
	"address":   func(m maker) string { return "198.51.100." + m.pick("7", "12", "255") },
	"words": func(m maker) string {
		return "the task-list-of-the-risk-assessment-board, basically the author of tokens"
	},
	"url": func(m maker) string {
		return "https://www.example.com/a/" + m.from(lowerSet, 8) + "?page=2&sort=name#top"
	},
	"mail": func(m maker) string { return m.from(lowerSet, 8) + "@example.com" },
	"etag": func(m maker) string { return `W/"` + m.from(hexSet, 20) + `"` },
	"git":  func(m maker) string { return "commit " + m.from(hexSet, 40) + " by bearer of news" },
}

func uuid(m maker, set string) string {
	return m.from(set, 8) + "-" + m.from(set, 4) + "-" + m.from(set, 4) + "-" + m.from(set, 4) + "-" + m.from(set, 12)
}
