package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var bothMasked = Mask{Cards: true, Secrets: true}

const (
	planted      = "4111111111111111"
	plantedToken = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
	plantedKey   = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq98mJ0s3v0mC1xkR2l5nQXyUzvTt0f4rYd0u3b8s9x2w1k\nq5YzKk3v\n-----END RSA PRIVATE KEY-----"
)

func TestScreen(t *testing.T) {
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	for _, c := range []struct{ in, want string }{
		{`{"number":"4111 1111 1111 1111","n":4111111111111111}`, `{"number":"411111******1111","n":"411111******1111"}`},
		{`{"a":"x, 4111111111111111, y","b":[4111111111111111,5555555555554444]}`, `{"a":"x, 411111******1111, y","b":["411111******1111","555555******4444"]}`},
		{`{"cvv":123,"x":{"cvc":"1234"},"card_verification_value":"987"}`, `{"cvv":"***","x":{"cvc":"***"},"card_verification_value":"***"}`},
		{`{"a":"\u0034111111111111111"}`, `{"a":"411111******1111"}`},
		{`{"a":"he said \"hi\" 4111-1111-1111-1111\\"}`, `{"a":"he said \"hi\" 411111******1111\\"}`},
		{`card=4111+1111+1111+1111&cvv=123&x=1`, `card=411111******1111&cvv=***&x=1`},
		{`card=4111%201111%201111%201111&x=1`, `card=411111******1111&x=1`},
		{`card=%34%31%31%31111111111111&x=1`, `card=411111******1111&x=1`},
		{`card=%2534%2531%2531%2531111111111111&x=1`, `card=411111******1111&x=1`},
		{`<card><number>4111111111111111</number><cvv>123</cvv></card>`, `<card><number>411111******1111</number><cvv>***</cvv></card>`},
		{`<n>&#52;111111111111111</n>`, `<n>411111******1111</n>`},
		{`{"n":"4111\u202f1111\u202f1111\u202f1111","m":"4111\u00a01111\u00a01111\u00a01111"}`, `{"n":"411111******1111","m":"411111******1111"}`},
		{`<p>4111&nbsp;1111&nbsp;1111&nbsp;1111</p>`, `<p>411111******1111</p>`},
		// What a token holds may be spelt with escapes.
		{`{"a":"\u00e9 whsec_MfKQ9r8GKYqrTwjUPD8\u002BILPZIo2LaLaSw\/x\u003d\u003D, \/ ghp_16C7e42F292c6912E7710c838347Ae178B4a\""}`, `{"a":"\u00e9 REDACTED, \/ REDACTED\""}`},
		{`<k>whsec_MfKQ9r8GKYqrTwjUPD8&#43;ILPZIo2LaLaSw&#x2F;x= &amp;</k>`, `<k>REDACTED &amp;</k>`},
		{`/v1/s%6B_liv%65_4eC39HqLyjWDarjtT1zdp7dc/x?k=g%68p%5f16C7e42F292c6912E7710c838347Ae178B4%61`, `/v1/REDACTED/x?k=REDACTED`},
		// An escape that is none in this syntax hides no other one.
		{`x=1&limit=10&card=4111%201111%201111%201111`, `x=1&limit=10&card=411111******1111`},
		{`{"a":"R&lt;D \u0034111111111111111"}`, `{"a":"R&lt;D 411111******1111"}`},
		{`R&lt;D &#x; &#38; %34111111111111111`, `R&lt;D &#x; &#38; 411111******1111`},
		// What stands around a find stays as it is spelt.
		{`{"a":"C++ \/ \u0034111111111111111 \ud800 \u00e9 \ud83d\ude00 \"\u0035555555555554444\""}`, `{"a":"C++ \/ 411111******1111 \ud800 \u00e9 \ud83d\ude00 \"555555******4444\""}`},
		{`<p>&#38;&amp;&eacute;&lt;b&gt; &#x1F600;&#52;111111111111111&#38;&amp;</p>`, `<p>&#38;&amp;&eacute;&lt;b&gt; &#x1F600;411111******1111&#38;&amp;</p>`},
		{`/a+b@c:%204111%201111+1111%201111%20x+y%2fz/C++%3A4111111111111111`, `/a+b@c:%20411111******1111%20x+y%2fz/C++%3A411111******1111`},
		{`a+b%253A%25204111111111111111%2526c+d`, `a+b%253A%2520411111******1111%2526c+d`},
		{`{"a":"\u0025204111111111111111+\u0025\/\u00e9"}`, `{"a":"\u002520411111******1111+\u0025\/\u00e9"}`},
		{`{"a":"x+\u0063vv=123 \/ \u0073k_live_4eC39HqLyjWDarjtT1zdp7dc \/"}`, `{"a":"x+\u0063vv=*** \/ REDACTED \/"}`},
		{"--b\r\nContent-Disposition: form-data; name=\"cvv\"\r\n\r\n123\r\n--b--", "--b\r\nContent-Disposition: form-data; name=\"cvv\"\r\n\r\n***\r\n--b--"},
		{"x %B4111111111111111^DOE/JOHN^25121011234500000000? y", "x REDACTED y"},
		{";4111111111111111=25121011234500000000?", "REDACTED"},
		{`{"key":"` + plantedToken + `","jwt":"` + jwt + `"}`, `{"key":"REDACTED","jwt":"REDACTED"}`},
		{`{"pem":"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIB\n-----END PRIVATE KEY-----\n","b":1}`, `{"pem":"REDACTED\n","b":1}`},
		{"a\n" + plantedKey + "\nb", "a\nREDACTED\nb"},
		// What is none stays to its last byte.
		{`{"password":"hunter2 and more","token":"opaque-1234567890abcdef1234","Authorization":"Bearer abcdefghijklmnopqrstuvwxyz012345"}`, ""},
		{"\xff\xfe raw \x80 bytes 4111111111111112", ""},
		{`{"id":"41111111-1111-1111-1111-411111111111","at":1700000000000,"n":1234567890123456}`, ""},
		{"the marker -----BEGIN PRIVATE KEY----- opens a key", ""},
		{`{"pin_code":"560001","zip":"123"}`, ""},
	} {
		want := c.want
		if want == "" {
			want = c.in
		}
		var n Counts
		syntax := Plain
		if c.in[0] == '{' {
			syntax = JSON
		}
		sn := NewScreen(true, true, nil)
		for _, size := range []int{1, 2, 3, 5, 7, 16, len(c.in)} {
			v := sn.NewSieve("", "api.example.com", bothMasked)
			var out []byte
			for rest := []byte(c.in); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				out = v.Append(out, rest[:min(size, len(rest))])
				if size == 3 {
					out = v.Flush(out)
				}
			}
			if out = v.End(out); string(out) != want {
				t.Errorf("in pieces of %d:\n%q\nbecame\n%q; want\n%q", size, c.in, out, want)
			}
			if (v.Counts().Total() > 0) != (c.want != "") {
				t.Errorf("%q: counts %d", c.in, v.Counts().Total())
			}
		}
		if syntax == Plain {
			if got := sn.Text(c.in, Plain, "", bothMasked, &n); got != want {
				t.Errorf("%q became %q; want %q", c.in, got, want)
			}
		}
		// What is only looked for is counted, and stays.
		v := sn.NewSieve("", "", Mask{})
		if out := v.End(v.Append(nil, []byte(c.in))); string(out) != c.in || (v.Counts().Total() > 0) != (c.want != "") {
			t.Errorf("%q became %q, counted %d", c.in, out, v.Counts().Total())
		}
	}
}

func TestScreenByKind(t *testing.T) {
	text := "card 4111111111111111 key " + plantedToken + " end"
	for _, c := range []struct {
		cards, secrets bool
		want           string
	}{
		{true, false, "card 411111******1111 key " + plantedToken + " end"},
		{false, true, "card 4111111111111111 key REDACTED end"},
	} {
		if got := NewScreen(c.cards, c.secrets, nil).Text(text, Plain, "", bothMasked, nil); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	for host, want := range map[string]string{"api.stripe.com": plantedToken, "stripe.com": plantedToken, "notstripe.com": "REDACTED", "stripe.com.evil.example": "REDACTED", "": "REDACTED"} {
		if got := NewScreen(true, true, nil).Text(plantedToken, Plain, host, bothMasked, nil); got != want {
			t.Errorf("at %q: %q", host, got)
		}
	}
}

func TestScreenSkips(t *testing.T) {
	sn := NewScreen(true, true, []string{"card_token"})
	for in, judged := range map[string]bool{
		`{"card_token":"4111111111111111"}`: false, `{"cardToken": 4111111111111111}`: false, `{"token":"4111111111111111"}`: true,
		`a=1&card_token=4111111111111111`: false, `card_token=1&a=4111111111111111`: true, `<card-token>4111111111111111</card-token>`: false,
		`<a>4111111111111111</a>`: true, "Content-Disposition: form-data; name=\"card_token\"\r\n\r\n4111111111111111\r\n": false,
		"Content-Disposition: form-data; name=\"other\"\r\n\r\n4111111111111111\r\n": true, `{"card_token":"x","y":"4111111111111111"}`: true,
		`card_token=%34111111111111111`: false,
	} {
		if got := sn.Text(in, JSON, "", bothMasked, nil); (got != in) != judged {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestSieveAtAnyPlace: wherever a find stands, and however the text is cut, it is found, and nothing else changes.
func TestSieveAtAnyPlace(t *testing.T) {
	sn := NewScreen(true, true, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, secret := range []string{planted, "5555 5555 5555 4444", plantedToken, plantedKey} {
		for _, at := range []int{0, 1, 511, 512, 513, sieveWindow - sieveAhead - 9, sieveWindow - sieveAhead, sieveWindow - 9, sieveWindow - 1, sieveWindow, 3*sieveWindow - 7, 70_000} {
			text := strings.Repeat("some text. ", at/11+1)[:at] + " " + secret + " " + strings.Repeat("more text. ", 5000)
			v := sn.NewSieve("text/plain", "", bothMasked)
			var out []byte
			for rest := []byte(text); len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(5000))
				out = v.Append(out, rest[:n])
				rest = rest[n:]
			}
			out = v.End(out)
			mask := maskedSecret
			if isDigit(secret[0]) {
				mask = string(appendMasked(nil, secret))
			}
			if want := strings.Replace(text, secret, mask, 1); string(out) != want {
				t.Errorf("%q at %d: not as wanted (%d bytes; want %d), counted %d", secret[:8], at, len(out), len(want), v.Counts().Total())
			}
		}
	}
}

func TestSieveBinary(t *testing.T) {
	sn := NewScreen(true, true, nil)
	in := "\x00\x00\x00\x00\x20\x0a\x104111111111111111\x12\x205555 5555 5555 4444\x00" + plantedToken + "\x00"
	v := sn.NewSieve("application/grpc", "", bothMasked)
	out := v.End(v.Append(nil, []byte(in)))
	if len(out) != len(in) || bytes.Contains(out, []byte(planted)) || bytes.Contains(out, []byte("5555 5555")) || bytes.Contains(out, []byte("sk_live")) {
		t.Errorf("%q", out)
	}
	// Bytes that cannot wait: what is cut in two is found with its second part.
	v = sn.NewSieve("application/grpc", "", bothMasked)
	out = v.Release(v.Append(nil, []byte("\x00\x00411111111")))
	out = v.End(v.Append(out, []byte("1111111\x00")))
	if string(out) != "\x00\x00411111111*******\x00" || v.Counts().Total() != 1 {
		t.Errorf("%q, counted %d", out, v.Counts().Total())
	}
}

// TestSieveEndlessKey: what looks like a key without an end takes a bounded part of the text with it.
func TestSieveEndlessKey(t *testing.T) {
	sn := NewScreen(true, true, nil)
	text := "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEF\n", 20_000)
	v := sn.NewSieve("", "", bothMasked)
	out := v.End(v.Append(nil, []byte(text)))
	if !bytes.HasPrefix(out, []byte(maskedSecret)) || len(out) < len(text)-2*sieveWindow-keyMost {
		t.Errorf("%d bytes of %d are left", len(out), len(text))
	}
}

func FuzzSieve(f *testing.F) {
	f.Add([]byte(`{"a":"`), []byte(`","b":1}`), uint64(1))
	f.Add([]byte("a=%41&b="), []byte("&c=%"), uint64(2))
	f.Add([]byte("\x00\xff\\u0041 "), []byte(" \\\""), uint64(3))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nabc"), []byte("-----END"), uint64(4))
	f.Add([]byte("411111111111"), []byte("1111"), uint64(5))
	f.Fuzz(func(t *testing.T, before, after []byte, seed uint64) {
		sn := NewScreen(true, true, nil)
		rng := rand.New(rand.NewPCG(seed, 0))
		run := func(in []byte, mask Mask, flush bool) ([]byte, int) {
			v := sn.NewSieve("", "", mask)
			var out []byte
			for rest := in; len(rest) > 0; {
				n := min(len(rest), 1+rng.IntN(1+rng.IntN(300)))
				out = v.Append(out, rest[:n])
				rest = rest[n:]
				if flush {
					out = v.Flush(out)
				}
			}
			return v.End(out), v.Counts().Total()
		}
		// The planted number stands apart from what is around it.
		in := append(append(bytes.Clone(before), "\n\"| 5105105105105100 |\"\n"...), after...)
		flush := rng.IntN(2) == 0
		out, n := run(in, bothMasked, flush)
		if n == 0 || bytes.Contains(out, []byte("| 5105105105105100 |")) {
			t.Errorf("the number is let through: %q", out)
		}
		if out, _ := run(in, Mask{}, flush); !bytes.Equal(out, in) {
			t.Errorf("%q became %q, and nothing is masked", in, out)
		}
		if whole := sn.Text(string(before), Plain, "", bothMasked, nil); whole == string(before) {
			if out, n := run(before, bothMasked, false); n == 0 && !bytes.Equal(out, before) {
				t.Errorf("%q became %q, and nothing was found", before, out)
			}
		}
	})
}

func BenchmarkSieve(b *testing.B) {
	var doc []map[string]any
	for i := range 500 {
		doc = append(doc, map[string]any{"id": i, "name": fmt.Sprint("customer ", i), "email": "a@example.com", "amount": 12345 + i, "created": 1700000000 + i, "note": "ships on Monday, see order 10034"})
	}
	clean, _ := json.Marshal(doc)
	doc[250]["card"] = "4111 1111 1111 1111"
	dirty, _ := json.Marshal(doc)
	for name, data := range map[string][]byte{"clean": clean, "card": dirty} {
		b.Run(name, func(b *testing.B) {
			sn := NewScreen(true, true, nil)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				v := sn.NewSieve("application/json", "", bothMasked)
				out = v.End(v.Append(out[:0], data))
			}
		})
	}
}

// TestScreenEscapesFarApart has a find anywhere behind an escape: what is decoded in one go is bounded.
func TestScreenEscapesFarApart(t *testing.T) {
	sn := NewScreen(true, true, nil)
	for _, c := range []struct{ find, want string }{
		{`\u0034111111111111111`, "411111******1111"}, {`\u0073k_live_4eC39HqLyjWDarjtT1zdp7dc`, "REDACTED"}, {plantedToken, "REDACTED"},
	} {
		for n := 1900; n < 2300; n++ {
			before := `\u00e9 ` + strings.Repeat("x", n) + " "
			if got := sn.Text(before+c.find+" y", Plain, "", bothMasked, nil); got != before+c.want+" y" {
				t.Fatalf("behind %d bytes %s became %q", n, c.find, got[len(before):])
			}
			before = `\u00e9 \u0035555555555554444 ` + strings.Repeat("x", n) + " "
			if got, want := sn.Text(before+c.find+" y", Plain, "", bothMasked, nil), c.want+" y"; !strings.HasSuffix(got, " "+want) {
				t.Fatalf("behind %d bytes and a find %s became %q", n, c.find, got)
			}
		}
	}
}

// TestScreenLeavesTheRest plants a card number, spelt at random, among escapes of every kind: but for the number not a byte changes.
func TestScreenLeavesTheRest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 11))
	around := []string{"+", "%2B", "%2f", "%25", `\u00e9`, `\u2019`, `\/`, `\\`, `\n`, `\ud800`, `\ud83d\ude00`, "&amp;", "&#233;", "&eacute;", "@", " ", "é", "\xff", "C++", ", ", "%zz", `\u00`, "&#;", "'", "~"}
	spell := map[string]func(c byte) string{
		"%": func(c byte) string { return fmt.Sprintf("%%%02x", c) }, "%%": func(c byte) string { return fmt.Sprintf("%%25%02X", c) },
		`\`: func(c byte) string { return fmt.Sprintf(`\u%04x`, c) }, "&": func(c byte) string { return fmt.Sprintf("&#%d;", c) },
		"&x": func(c byte) string { return fmt.Sprintf("&#x%x;", c) },
	}
	junk := func() string {
		var b strings.Builder
		for range rnd.IntN(12) {
			b.WriteString(around[rnd.IntN(len(around))])
		}
		return b.String()
	}
	sn := NewScreen(true, true, nil)
	for range 3000 {
		for name, escaped := range spell {
			var number strings.Builder
			for i := range len(planted) {
				if i == 0 || rnd.IntN(3) == 0 {
					number.WriteString(escaped(planted[i]))
				} else {
					number.WriteByte(planted[i])
				}
			}
			before, after := junk()+" ,", ", "+junk()
			in, want := before+number.String()+after, before+"411111******1111"+after
			if got := sn.Text(in, Plain, "", bothMasked, nil); got != want {
				t.Fatalf("%s: %q became\n%q; want\n%q", name, in, got, want)
			}
		}
	}
}
