package redact

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSensitiveName(t *testing.T) {
	r, err := New(Config{Headers: []string{"X-Customer"}, Fields: []string{"iban"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"api_key", "API-KEY", "apiKey", "X-Api-Key", "apikey", "client_secret", "clientSecret", "DB_PASSWORD", "HTTPOWERD_ADMIN_TOKEN", "BILLING_PW",
		"password", "passwd", "pwd", "user[password]", "password_confirmation", "newPassword2", "APIKey", "access_token", "accesstoken", "refreshToken",
		"user_token", "vendor_token", "helper_token", "send_token", "X-Auth-Token", "X-CSRF-Token", "Private-Token", "X-Vault-Token", "Authorization",
		"Proxy-Authorization", "Cookie", "Set-Cookie", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "AWSAccessKeyId", "Signature", "sig",
		"X-Goog-Signature", "Ocp-Apim-Subscription-Key", "x-functions-key", "DD-APPLICATION-KEY", "AccountKey", "SharedAccessKey", "connectionString",
		"cvv", "CVV2", "cvc", "cvn", "card_cvv", "security_code", "pin", "card_pin", "pinBlock", "ssn", "social_security", "credit_card", "creditCard",
		"card_number", "cardNumber", "pan", "track_data", "otp", "session_id", "PHPSESSID", "jwt", "passphrase", "private_key", "db_pass",
		"Stripe-Signature", "X-Hub-Signature-256", "secret_id", "IBAN", "i-ban", "x_customer", "aws_secret_access_key", "encryption-key", "mfa_code",
	} {
		if !r.SensitiveName(name) {
			t.Errorf("%s is not sensitive", name)
		}
	}
	for _, name := range []string{
		"", "a", "id", "tokens_used", "max_tokens", "total_tokens", "token_type", "tokenizer", "monkey", "author", "authority", "keyboard", "idempotency-key",
		"Idempotency-Key", "next_page_token", "nextToken", "pageToken", "continuation_token", "password_policy", "password_expires_at", "secretary",
		"secret_name", "api_key_id", "public_key", "publishable_key", "key", "code", "cache_key", "primary_key", "sort_key", "Sec-WebSocket-Key", "pinned",
		"shipping", "spin", "japan", "company", "expand", "passenger", "compass", "bypass", "cvc_check", "signature_version", "config", "design", "cookie_policy",
		"session", "description", "Content-Type", "User-Agent", "x-request-id", "track", "status_code", "postal_code", "zip", "WWW-Authenticate", "eos_token",
		"X-RateLimit-Remaining-Tokens", "credential_type", "passwordless", "account_id", "number", "track2",
	} {
		if r.SensitiveName(name) {
			t.Errorf("%s is sensitive", name)
		}
	}
}

func TestURL(t *testing.T) {
	key := "sk_" + "live_" + "abcdefghijklmnop"
	for in, want := range map[string]string{
		"https://api.example.com/v1/x?limit=10":         "https://api.example.com/v1/x?limit=10",
		"https://user:pa55@api.example.com/x":           "https://[redacted]@api.example.com/x",
		"https://[redacted]@api.example.com/x":          "https://[redacted]@api.example.com/x",
		"http://user:pa/ss?w#d@api.example.com/x":       "http://[redacted]@api.example.com/x",
		"http://user@[2001:db8::1]:8080/x":              "http://[redacted]@[2001:db8::1]:8080/x",
		"http://[2001:db8::1]:8080/users/a@example.com": "http://[2001:db8::1]:8080/users/a@example.com",
		"http://[2001:db8::1]/users/a@example.com":      "http://[2001:db8::1]/users/a@example.com",
		"http://token:8080/x":                           "http://token:8080/x",
		"https://token:44321":                           "https://token:44321",
		"http://token:443216":                           "http://token:[redacted]",
		"http://token=44321":                            "http://token=[redacted]",
		"http://x/token:8080":                           "http://x/token:[redacted]",
		"user:pa55@api.example.com:443":                 "[redacted]@api.example.com:443",
		"api.example.com:443":                           "api.example.com:443",
		`http:\\user:pa55@api.example.com\x`:            `http:\\[redacted]@api.example.com\x`,
		"//user:pa55@api.example.com/x":                 "//[redacted]@api.example.com/x",
		"mailto:ada@example.com":                        "mailto:ada@example.com",
		"/users/ada@example.com":                        "/users/ada@example.com",
		"/x?api_key=k&a=1":                              "/x?api_key=[redacted]&a=1",
		"/x?api_key=&a=1":                               "/x?api_key=&a=1",
		"/x?%61pi%5fkey=k":                              "/x?%61pi%5fkey=[redacted]",
		"/x?a=1;password=k":                             "/x?a=1;password=[redacted]",
		"/x;jsessionid=ABCDEF?a=1":                      "/x;jsessionid=[redacted]?a=1",
		"/x?X-Amz-Credential=A%2FB&X-Amz-Date=2024&X-Amz-Signature=abc&X-Amz-Security-Token=x": "/x?X-Amz-Credential=[redacted]&X-Amz-Date=2024&" +
			"X-Amz-Signature=[redacted]&X-Amz-Security-Token=[redacted]",
		"/x?AWSAccessKeyId=a&Signature=b&Expires=1":                    "/x?AWSAccessKeyId=[redacted]&Signature=[redacted]&Expires=1",
		"/x?sv=2022&se=2024&sig=a%2Fb":                                 "/x?sv=2022&se=2024&sig=[redacted]",
		"/x?X-Goog-Signature=ab":                                       "/x?X-Goog-Signature=[redacted]",
		"/x?key=PROJ-1":                                                "/x?key=PROJ-1",
		"/x?key=a1b2c3d4e5f6a7b8c9d0":                                  "/x?key=[redacted]",
		"/v1/" + key + "/x":                                            "/v1/[redacted]/x",
		"/v1/s%6B_" + "live%5fabcdefghijklmno%70/x":                    "/v1/[redacted]/x",
		"/v1/" + strings.ToUpper("pk_") + "live_x":                     "/v1/PK_live_x",
		"/cards/4111111111111111/x":                                    "/cards/411111******1111/x",
		"/cards/4111%201111%201111%201111":                             "/cards/411111******1111",
		"/x?n=4111+1111+1111+1111":                                     "/x?n=411111******1111",
		"/x?next=https%3A%2F%2Fu%3Ap%40b.example.com%2F%3Ftoken%3Dabc": "/x?next=https%3A%2F%2F[redacted]%40b.example.com%2F%3Ftoken%3D[redacted]",
		"/x?a=%257B%2522password%2522%253A%2522hunter2%2522%257D":      "/x?a=%257B%2522password%2522%253A%2522[redacted]%2522%257D",
		"/cb#access_token=abc&token_type=bearer":                       "/cb#access_token=[redacted]&token_type=bearer",
		"/#/cb?id_token=abc":                                           "/#/cb?id_token=[redacted]",
		"/bot123456789:" + strings.Repeat("a", 35) + "/getMe":          "/bot[redacted]/getMe",
		"https://hooks.slack.com/services/T000000/B000000/abcdefghij":  "https://hooks.slack.com/services/[redacted]",
		"/x?%":                                "/x?%",
		"/x?%B4111111111111111^A/B^2512101?=": "/x?%B4[redacted]=",
		"":                                    "",
		"\xff?a=\xfe":                         "\uFFFD?a=\uFFFD",
	} {
		got := string(Default().AppendURL([]byte("> "), in, nil))
		if strings.HasPrefix(in, "/x?%B4") {
			if strings.Contains(got, "111111") || strings.Contains(got, "2512101") {
				t.Errorf("%s: %s", in, got)
			}
			continue
		}
		if plain(got) != "> "+want {
			t.Errorf("%s:\ngot  %s\nwant > %s", in, got, want)
		}
		if again := string(Default().AppendURL(nil, got[2:], nil)); again != got[2:] && !strings.Contains(in, "%25") {
			t.Errorf("%s: a second pass makes %s", got, again)
		}
	}
}

// TestUUIDHoldsNothing: what is not searched for being a UUID is what a search finds nothing in.
func TestUUIDHoldsNothing(t *testing.T) {
	r, random := Default(), rand.New(rand.NewPCG(1, 2))
	for _, digits := range []string{"0123456789", "0123456789abcdefABCDEF", "0", "41", "0fb"} {
		for range 20_000 {
			id := []byte("00000000-0000-0000-0000-000000000000")
			for i := range id {
				if id[i] != '-' {
					id[i] = digits[random.IntN(len(digits))]
				}
			}
			s := string(id)
			if !r.holdsNothing(s, options{}) {
				t.Fatalf("%s is searched", s)
			}
			m := borrow()
			sc := m.scanner(r, options{})
			if hits := sc.scan(s); len(hits) > 0 {
				t.Fatalf("%s: %+v", s, hits)
			}
			m.giveScanner(sc)
			m.release()
			id[random.IntN(len(id))] = "g=:% "[random.IntN(5)]
			if r.holdsNothing(string(id), options{}) {
				t.Fatalf("%s is not searched", id)
			}
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"password=hunter2, user=bob":                   "password=[redacted], user=bob",
		`{"password":"hunter2","a":1}`:                 `{"password":"[redacted]","a":1}`,
		`{\"password\":\"hunter2\",\"a\":1}`:           `{\"password\":\"[redacted]\",\"a\":1}`,
		`password => 'hun\'ter2', b`:                   `password => '[redacted]', b`,
		"api key: abc":                                 "api key: [redacted]",
		"token: expired":                               "token: expired",
		"tokens: 12, max_tokens=5":                     "tokens: 12, max_tokens=5",
		"Server=db;Password=p@ss;Database=x":           "Server=db;Password=[redacted];Database=x",
		"AccountName=x;AccountKey=abc/def==;E=1":       "AccountName=x;AccountKey=[redacted];E=1",
		"dial postgres://u:p@db.example.com/x: failed": "dial postgres://[redacted]@db.example.com/x: failed",
		"Authorization: Bearer abc def\r\nHost: x":     "Authorization: Bearer [redacted]\r\nHost: x",
		"Authorization: abc\nHost: x":                  "Authorization: [redacted]\nHost: x",
		"Cookie: a=b; c=d\nHost: x":                    "Cookie: [redacted]\nHost: x",
		"bearer of bad news":                           "bearer of bad news",
		"Basic authentication is needed":               "Basic authentication is needed",
		"Basic dXNlcjpwYXNz":                           "Basic [redacted]",
		"got 'Bearer abc123def'":                       "got 'Bearer [redacted]'",
		"cvv: 123":                                     "cvv: [redacted]",
		"CVV 123":                                      "CVV [redacted]",
		"security code is 1234.":                       "security code is [redacted].",
		"pin is 1234":                                  "pin is [redacted]",
		"pin 2024":                                     "pin 2024",
		"status code 200":                              "status code 200",
		"card 4111-1111-1111-1111 ok":                  "card 411111******1111 ok",
		"4111 1111 1111 1111 4242 4242 4242 4242":      "411111******1111 424242******4242",
		"card4111111111111111":                         "card411111******1111",
		"4111111111111111.00":                          "411111******1111.00",
		"4111111111111112":                             "4111111111111112",
		"94111111111111111":                            "94111111111111111",
		"a4111111111111111":                            "a4111111111111111",
		"4111111111111111|12|2027|123":                 "411111******1111|12|2027|[redacted]",
		"%B4111111111111111^DOE/J^25121010000000?x":    "[redacted]x",
		"B4111111111111111^DOE/J^25121010000000":       "[redacted]",
		";4111111111111111=25121010000?x":              "[redacted]x",
		"4111111111111111D25121010000F":                "[redacted]",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----":          "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
		"x -----BEGIN RSA PRIVATE KEY-----\nA\n-----END RSA PRIVATE KEY----- y": "x [redacted] y",
		"x -----BEGIN PRIVATE KEY-----\\nAAAA":                                  "x [redacted]",
		"key: \"-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY----- z":    "key: \"[redacted] z",
		"000000000000^^ gh" + "p_4eC39HqLyjWDarjt z":                            "[redacted] z",
		"caf\xe9 password=x": "caf\uFFFD password=[redacted]",
	} {
		if got := Default().Text(in); plain(got) != want {
			t.Errorf("%q:\ngot  %q\nwant %q", in, got, want)
		} else if again := Default().Text(got); again != got {
			t.Errorf("%q: a second pass makes %q", got, again)
		}
	}
}

// TestKeyInQuotes: a key that is longer than a value is looked at.
var anyPlaceholder = regexp.MustCompile(`(<|&lt;)redacted:[a-z0-9-]+(:[0-9a-f]{4})?(>|&gt;)`)

// plain is s without what placeholders say of the value.
func plain(s string) string { return anyPlaceholder.ReplaceAllString(s, "[redacted]") }

func TestKeyInQuotes(t *testing.T) {
	inside := strings.Repeat("QUJD", 2000)
	if got := Default().Text("private_key: \"-----BEGIN PRIVATE KEY-----\nA" + inside + "\n-----END PRIVATE KEY-----\" z"); plain(got) != "private_key: \"[redacted]\" z" {
		t.Errorf("got %s", got)
	}
}

func TestHeader(t *testing.T) {
	in := http.Header{
		"Authorization": {"Bearer abc", "Digest username=\"a\", response=\"b\"", "abc"}, "X-Api-Key": {"k"}, "Cookie": {"a=1; b; c=\"x=y\""},
		"Set-Cookie": {"id=5; Path=/x; HttpOnly; Max-Age=5; Odd=1"}, "Location": {"https://u:p@x.example.com/?token=t&a=1"},
		"Link": {`<https://x.example.com/?page=2&api_key=k>; rel="next", <https://x.example.com/?page=9>; rel="last"`}, "Refresh": {"5; url=/x?token=t"},
		"X-Note": {"card 4111111111111111", "fine"}, "Accept": {"*/*"}, "Idempotency-Key": {"order-1"}, "Card-Number": {"4111111111111111", "123456789012"},
		"Referer": {"/x?password=p"}, "Cvv": {"123"}, "X-Empty": {}, "Token": {""}, "X-Odd": {"caf\xe9"},
	}
	want := http.Header{
		"Authorization": {"Bearer [redacted]", "Digest [redacted]", "[redacted]"}, "X-Api-Key": {"[redacted]"}, "Cookie": {"a=[redacted]; [redacted]; c=[redacted]"},
		"Set-Cookie": {"id=[redacted]; Path=/x; HttpOnly; Max-Age=5; Odd=[redacted]"}, "Location": {"https://[redacted]@x.example.com/?token=[redacted]&a=1"},
		"Link":    {`<https://x.example.com/?page=2&api_key=[redacted]>; rel="next", <https://x.example.com/?page=9>; rel="last"`},
		"Refresh": {"5; url=/x?token=[redacted]"}, "X-Note": {"card 411111******1111", "fine"}, "Accept": {"*/*"}, "Idempotency-Key": {"order-1"},
		"Card-Number": {"411111******1111", "[redacted]"}, "Referer": {"/x?password=[redacted]"}, "Cvv": {"[redacted]"}, "X-Empty": {}, "Token": {""},
		"X-Odd": {"caf\uFFFD"},
	}
	before := in.Clone()
	var c Counts
	got := Default().Header(in, &c)
	for name := range want {
		var values []string
		for _, v := range got[name] {
			values = append(values, plain(v))
		}
		if !slices.Equal(values, want[name]) {
			t.Errorf("%s: got %q want %q", name, got[name], want[name])
		}
	}
	if !reflect.DeepEqual(in, before) {
		t.Error("the original was changed")
	}
	counted := map[Kind]int{}
	c.Each(func(k Kind, n int) { counted[k] = n })
	if want := map[Kind]int{Hidden: 14, PAN: 3, CVV: 1}; !maps.Equal(counted, want) || c.Total() != 18 {
		t.Errorf("counted %v, want %v", counted, want)
	}
	if again := Default().Header(got, nil); !reflect.DeepEqual(again, got) {
		t.Errorf("a second pass makes %v", again)
	}
	clean := http.Header{"Accept": {"*/*"}}
	if out := Default().Header(clean, nil); reflect.ValueOf(out).Pointer() != reflect.ValueOf(clean).Pointer() {
		t.Error("a copy without need")
	}
}

func TestBody(t *testing.T) {
	for _, c := range []struct{ kind, in, want string }{
		{"application/json", `{"password":"a","n":4111111111111111,"cvv":123,"x":{"secret":{"a":[1,true,null,"s",""]}},"t":"12"}`,
			`{"password":"[redacted]","n":"411111******1111","cvv":"[redacted]","x":{"secret":{"a":["[redacted]",true,null,"[redacted]",""]}},"t":"12"}`},
		{"application/json", `{"pass\u0077ord":"a\"b","card_number":"123456789012","a":"\u0034111111111111111"}`,
			`{"pass\u0077ord":"[redacted]","card_number":"[redacted]","a":"411111******1111"}`},
		{"application/json", `{"headers":[{"name":"Authorization","value":"Bearer abc"},{"name":"Accept","value":"abc"}]}`,
			`{"headers":[{"name":"Authorization","value":"Bearer [redacted]"},{"name":"Accept","value":"abc"}]}`},
		{"application/json", `{"n":4111111111111111.0}`, `{"n":"411111******1111.0"}`},
		{"", "\ufeff" + `{"password":"a"}`, `{"password":"[redacted]"}`},
		{"application/json", `{password: hunter2, "a": "b"}`, `{password: "[redacted]", "a": "b"}`},
		{"application/xml", `<a><ns:password x="1">p</ns:password><b token='t'/>c &#52;111111111111111</a>`,
			`<a><ns:password x="1">[redacted]</ns:password><b token='[redacted]'/>c 411111******1111</a>`},
		{"text/xml", `<credentials><user>u</user><x><y>z</y></x></credentials><z>z</z>`,
			`<credentials><user>[redacted]</user><x><y>[redacted]</y></x></credentials><z>z</z>`},
		{"text/html", `<form><input type=password name=password value=hunter2><p>text</p></form>`,
			`<form><input type=password name=password value=[redacted]><p>text</p></form>`},
		{"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\np\r\n--B\r\nContent-Disposition: form-data; " +
			"name=\"f\"; filename=\"x\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\x00\xff\r\n--B--", "--B\r\nContent-Disposition: form-data; name=\"password\"" +
			"\r\n\r\n[redacted]\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Type: image/png\r\n\r\n[binary content, 6 bytes]\r\n--B--"},
		{"application/octet-stream", "\x00\x01\x02", "[binary content, 3 bytes]"},
		{"application/json", "\x1f\x8b\x08\x00\x00\x00", "[binary content, 6 bytes]"},
		{"image/png", `{"password":"a"}`, `{"password":"[redacted]"}`},
		{"text/plain; charset=utf-7", "+AHAAYQBz-", "[binary content, 10 bytes]"},
		{"text/plain", "\xff\xfep\x00=\x00", "p="},
		{"text/plain; charset=latin1", "caf\xe9", "café"},
		{"text/plain", "", ""},
	} {
		got := string(Default().Body(c.kind, []byte(c.in), false, nil))
		if plain(got) != c.want {
			t.Errorf("%s %q:\ngot  %q\nwant %q", c.kind, c.in, got, c.want)
		}
	}
}

func TestPatterns(t *testing.T) {
	r, err := New(Config{Fields: []string{"iban"}, Patterns: []string{"CUST-[0-9]{8}", "(?i)project [a-z]+"}})
	if err != nil {
		t.Fatal(err)
	}
	var c Counts
	got := string(r.Body("application/json", []byte(`{"iban":"DE1","a":"CUST-12345678 and Project Blue, 4111111111111111"}`), false, &c))
	if want := `{"iban":"[redacted]","a":"[redacted] and [redacted], 411111******1111"}`; plain(got) != want {
		t.Errorf("got %s", got)
	}
	if !slices.Equal(kindsOf(&c), []Kind{Hidden, PAN, Pattern}) {
		t.Errorf("counted %v", kindsOf(&c))
	}
	if got := r.Text("sk_" + "live_CUST-12345678"); strings.Contains(got, "CUST") {
		t.Errorf("got %s", got)
	}
}

func TestConfig(t *testing.T) {
	long := strings.Repeat("x", 2000)
	c := Config{Headers: []string{"X-Fine", "X Bad", "", "${LITERAL}", "Colon:"}, Fields: []string{"fine", "--", long},
		Patterns: []string{"(", "x*", "a|", `\b`, "fine", long, "(?:ab)+", "^"}}
	var got []string
	for _, f := range c.Validate() {
		got = append(got, f.Key)
		if len(f.Message) > 200 {
			t.Errorf("%s: a long message: %s", f.Key, f.Message)
		}
	}
	want := []string{"headers[1]", "headers[2]", "headers[4]", "fields[1]", "fields[2]", "patterns[0]", "patterns[1]", "patterns[2]", "patterns[3]", "patterns[5]",
		"patterns[7]"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if r, err := New(c); err == nil || r != nil {
		t.Error("New takes what is not valid")
	}
	if f := (Config{Fields: make([]string, maxNames+1)}).Validate(); f[0].Key != "fields" {
		t.Errorf("%v", f[0])
	}
	if (Config{}).Validate() != nil {
		t.Error("an empty one has faults")
	}
}

func TestSecret(t *testing.T) {
	s := NewSecret("hunter2")
	type holder struct {
		Public Secret
		hidden Secret
		ptr    *Secret
	}
	h := holder{s, s, &s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, s, &s, h, []any{s, map[string]Secret{"a": s}})
	}
	for _, v := range []any{s, h, &h, map[string]any{"a": s}} {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
	}
	x, err := xml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(x)
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s); err != nil {
		t.Fatal(err)
	}
	y, _ := s.MarshalYAML()
	fmt.Fprint(&out, b.String(), y, errors.New(s.String()))
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "a", s, "b", h)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "a", s, "b", h)
	if strings.Contains(out.String(), "hunter") || strings.Contains(out.String(), fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("shown in %s", out.String())
	}
	if fmt.Sprint(s) != Placeholder || s.Reveal() != "hunter2" || !s.Equal(NewSecret("hunter2")) || s.Equal(NewSecret("x")) || s.IsZero() {
		t.Error("a Secret is not itself")
	}
	if !NewSecret("").IsZero() || (Secret{}).Reveal() != "" || !(Secret{}).Equal(NewSecret("")) || !reflect.DeepEqual(s, NewSecret("hunter2")) {
		t.Error("the zero Secret")
	}
}

func TestSafeText(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain", 10, "plain"}, {"plain", 3, "pla"}, {"a\r\nb\tc", 10, "a  b c"}, {"a\x1b[31mb\x00", 10, "a[31mb"}, {"a\u202eb\u2066c\u200bd", 10, "abcd"},
		{"\xff\xfea", 10, "a"}, {"äöü", 5, "äö"}, {"a\u2028b", 10, "a b"}, {"x", 0, ""}, {"x", -1, ""}, {"\uFFFD", 5, "\uFFFD"},
	} {
		if got := SafeText(c.in, c.limit); got != c.want {
			t.Errorf("%q, %d: %q", c.in, c.limit, got)
		}
	}
}

func TestCounts(t *testing.T) {
	var none *Counts
	none.Add(PAN, 1)
	none.Each(func(Kind, int) { t.Error("counted") })
	if none.Total() != 0 {
		t.Error("counted")
	}
	var c Counts
	c.Add(PAN, 2)
	c.Add("unheard of", 1)
	if c.Total() != 3 || !slices.Equal(kindsOf(&c), []Kind{Hidden, PAN}) {
		t.Errorf("%v", c)
	}
}

// TestNothingFoundNothingAllocated also says what the counters of a hot path may rely on.
func TestNothingFoundNothingAllocated(t *testing.T) {
	r, h, data := Default(), cleanHeader(), cleanJSON(4<<10)
	dst := make([]byte, 0, 4096)
	for what, f := range map[string]func(){
		"URL":     func() { r.AppendURL(dst[:0], "https://api.example.com/v1/items?limit=10&after=x", nil) },
		"encoded": func() { r.AppendURL(dst[:0], typicalURL, nil) },
		"text":    func() { r.AppendText(dst[:0], "an ordinary line: 12 of 20 done", nil) },
		"header":  func() { r.Header(h, nil) },
		"body":    func() { r.Body("application/json", data, false, nil) },
		"name":    func() { r.SensitiveName("X-Request-Id") },
	} {
		if n := testing.AllocsPerRun(200, f); n >= 1 && !raceEnabled() {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// raceEnabled: the race detector makes pools forget.
func raceEnabled() bool {
	return testing.AllocsPerRun(1, func() {
		for range 200 {
			borrow().release()
		}
	}) > 0
}
