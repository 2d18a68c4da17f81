package redact

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// typicalHeader is what a program sends.
func typicalHeader() http.Header {
	return http.Header{
		"Accept": {"application/json"}, "Accept-Encoding": {"gzip, deflate, br"}, "User-Agent": {"python-requests/2.32.3"}, "Content-Type": {"application/json"},
		"Content-Length": {"512"}, "Authorization": {"Bearer " + "sk_" + "test_4eC39HqLyjWDarjtT1zdp7dc"}, "X-Request-Id": {"8c5f1f0e-7d5c-4a3e-9a55-0d6d1b2e8f11"},
		"Idempotency-Key": {"order-2024-000123"}, "Date": {"Tue, 15 Nov 2024 08:12:31 GMT"}, "Host": {"api.example.com"},
	}
}

func cleanHeader() http.Header {
	h := typicalHeader()
	h.Del("Authorization")
	return h
}

const (
	typicalURL = "https://api.example.com/v1/customers/cus_9s6XKzkNRiz8i3/sources?limit=10&starting_after=card_1NfXyz&expand%5B%5D=data.source"
	secretURL  = "https://api.example.com/v1/items?api_key=0123456789abcdef&limit=10"
)

// cleanJSON is n bytes and more of an answer such as APIs give, with nothing to hide.
func cleanJSON(n int) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := 0; b.Len() < n; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"evt_%08dQwErTy","object":"event","created":17%08d,"amount":%d,"currency":"eur","livemode":false,"description":"Order of two `+
			`green lamps and a small table, to be delivered before noon","customer":{"name":"Ada Example","email":"ada%d@example.com","address":`+
			`{"line1":"1 Example Street","city":"Berlin","postal_code":"10%03d","country":"DE"}},"url":"https://www.example.com/orders/%d?lang=en",`+
			`"tags":["retail","web","first order"],"ratio":0.%d}`, i, i, i*7, i, i%1000, i, i+1)
	}
	b.WriteByte(']')
	return b.Bytes()
}

func BenchmarkRequest(b *testing.B) {
	r, h := Default(), typicalHeader()
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		var c Counts
		dst = r.AppendURL(dst[:0], typicalURL, &c)
		p := r.Begin(&c)
		for name, values := range h {
			for _, v := range values {
				p.Field(name, v)
			}
		}
		p.Done()
		if c.Total() != 1 {
			b.Fatal(c.Total())
		}
	}
}

func BenchmarkHeader(b *testing.B) {
	r, h := Default(), typicalHeader()
	b.ReportAllocs()
	for b.Loop() {
		r.Header(h, nil)
	}
}

func BenchmarkHeaderClean(b *testing.B) {
	r, h := Default(), cleanHeader()
	b.ReportAllocs()
	for b.Loop() {
		r.Header(h, nil)
	}
}

func BenchmarkURL(b *testing.B) {
	for name, url := range map[string]string{"clean": typicalURL, "secret": secretURL} {
		b.Run(name, func(b *testing.B) {
			r := Default()
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst = r.AppendURL(dst[:0], url, nil)
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	text := string(cleanJSON(64 << 10))
	sc := new(memory).scanner(Default(), options{})
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if len(sc.scan(text)) > 0 {
			b.Fatal("found something")
		}
	}
}

func BenchmarkBodyJSON(b *testing.B) {
	for name, size := range map[string]int{"1KiB": 1 << 10, "64KiB": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			r, data := Default(), cleanJSON(size)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				r.Body("application/json", data, false, nil)
			}
		})
	}
}

func BenchmarkLiterals(b *testing.B) {
	var l Literals
	for i := range 100 {
		l.Add(NewSecret(fmt.Sprintf("configured-key-number-%d", i)))
	}
	r, text := Shared{Literals: &l}.On(Default()), strings.Repeat("an ordinary line of a log that holds nothing\n", 1000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		r.Text(text)
	}
}

func BenchmarkSensitiveName(b *testing.B) {
	r := Default()
	names := []string{"id", "object", "X-Api-Key", "starting_after", "description", "clientSecret", "Content-Type", "max_tokens"}
	b.ReportAllocs()
	for b.Loop() {
		for _, n := range names {
			r.SensitiveName(n)
		}
	}
}

// BenchmarkHostile: texts that nobody writes cost no more for each byte where they are longer.
func BenchmarkHostile(b *testing.B) {
	r := builtin()
	fields := http.Header{}
	for n := 16; n < 400; n++ { // each begins the next
		fields.Add("X-Api-Key", strings.Repeat("7ca", n)[:n])
	}
	alike := r.Knowing(fields, "")
	for name, c := range map[string]struct {
		unit string
		read func(s string)
	}{
		"names for values": {"pan:", func(s string) { r.AppendText(nil, s, nil) }},
		"masks of names":   {"pan=*", func(s string) { r.AppendText(nil, s, nil) }},
		"arguments":        {"curl+" + strings.Repeat("+-u=", 99), func(s string) { r.AppendText(nil, s, nil) }},
		"blocks":           {"pan:|\n ", func(s string) { r.AppendText(nil, s, nil) }},
		"known values":     {strings.Repeat("7ca", 133) + "b", func(s string) { alike.AppendText(nil, s, nil) }},
		"links":            {"<u>, ", func(s string) { r.Header(http.Header{"Link": {s}}, nil) }},
		"refreshes":        {"url=>", func(s string) { r.Header(http.Header{"Refresh": {s}}, nil) }},
		"part headers": {"Content-Disposition: form-data; name=a\n", func(s string) {
			r.Body("multipart/form-data; boundary=b", []byte("--b\r\n"+s+"\nx\r\n--b--"), false, nil)
		}},
	} {
		for _, size := range []int{64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				s := strings.Repeat(c.unit, size/len(c.unit))
				b.SetBytes(int64(len(s)))
				for b.Loop() {
					c.read(s)
				}
			})
		}
	}
}
