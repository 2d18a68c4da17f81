package redact

import (
	"strings"
	"testing"
)

// TestEachDefence has a text for each defence that the rates of the corpus are too coarse for.
func TestEachDefence(t *testing.T) {
	const secret = "Wq7xTz93kLm2"
	bearer := strings.Repeat("A", 21) + "uFyoCKkOREizfPDPHTGSqZ%2F" + secret + "%3DZVWgcrtSoAajnwj9CsUO0S60mGVv5cPTCG367qe8"
	for _, c := range []struct{ as, text string }{
		{"header:X-Debug", `{"credentials":{"user":"` + secret + `"}}`}, {"header:X-Debug", `{"env":[{"name":"DB_PASSWORD","value":"` + secret + `"}]}`},
		{"text", "used " + bearer + " today"}, {"text", "Bearer abcdefgh12345678%2F" + secret}, {"text", `user.setPassword("` + secret + `")`},
		{"text", "- name: DB_PASSWORD\n  value: " + secret + "\n"}, {"application/json", `[{"op":"replace","path":"/password","value":"` + secret + `"}]`},
		{"", "gh" + "p_4eC39HqLyjWDarjtT1zdp7dc=" + secret}, {"text", "password=$" + secret}, {"text", "password=$Secret1" + secret}, {"text", "password=getaway(" + secret},
		{"text", "auth: password: " + secret}, {"text", "soap <a:password>" + secret + "</a:password> end"}, {"text", "curl -u bob:" + secret + " https://x.example.com"},
		{"text", "password: |\n  " + secret + "\nport: 1"}, {"text/csv", "user,password\nbob," + secret + "\n"}, {"text", "password::" + secret},
		{"text/xml", "<member><name>password</name><value>" + secret + "</value></member>"}, {"text/xml", "<creditCard><password>" + secret + "</password></creditCard>"},
	} {
		var n Counts
		if out := redacted(c.as, c.text, &n); strings.Contains(out, secret) || n.Total() == 0 {
			t.Errorf("%s: %q shows %q", c.as, c.text, out)
		}
	}
	for _, c := range []struct{ as, text string }{
		{"text", "IBAN ES22 5233 3548 3211 0219 1338"}, {"application/x-www-form-urlencoded", "ref=ES70+5333+2438+7424+1790+7886&lang=en"}, {"text", "Token::new and .cvv::after"},
		{"text", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:db"}, {"text", "password=$DB_PASSWORD"}, {"text", "password=${DB_PASSWORD}"},
		{"text", "password = os.getenv(\"DB_PASSWORD\")"}, {"text", "docker run -u 1000:1000 --rm app"}, {"text", "at Password.java:42"}, {"text", "(PasswordEncoder.java:42)"},
		{"text", "objects are identified by 'name'"}, {"text", "PWD=/app"}, {"text", "fetch(u, {credentials: 'include'})"}, {"header:Access-Control-Allow-Credentials", "true"},
	} {
		if out := redacted(c.as, c.text, nil); out != c.text {
			t.Errorf("%s: %q became %q", c.as, c.text, out)
		}
	}
}
