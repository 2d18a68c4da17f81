package test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// canaries are made-up secrets, one for each place where real ones are found. Each is spelt so that a search for it finds nothing else.
type canaries map[string]string

func (c canaries) make(place, prefix string) string {
	secret := prefix + strings.ToUpper(place) + strings.Repeat("x7Kq", 6)
	c[place] = secret
	return secret
}

// TestCanaries plants secrets in every place of a request and its answer, records headers and bodies, logs all there is to log, and then looks
// for them in everything that the daemon writes or shows.
func TestCanaries(t *testing.T) {
	secrets := canaries{}
	ca := newAuthority(t)
	answer := leakyAnswer{secrets.make("setcookie", "sess"), secrets.make("responsetoken", "gh"+"p_"), secrets.make("responsekey", "sk_"+"live_")}
	plain, encrypted := serve(t, nil, false, answer), serve(t, ca, true, answer)
	upstreamPassword := secrets.make("parentproxy", "parent")
	configured := secrets.make("admintoken", "adm")
	d := start(t, fmt.Sprintf(`log: {level: debug}
admin: {token: "%s"}
defaults: {audit: {headers: true, bodies: all, max_body: 64KiB}}
hosts:
  plain.example.com: {upstream: {resolve: {plain.example.com: "%s"}}}
  intercept.example.com: {tls: intercept, upstream: {resolve: {intercept.example.com: "%s"}, ca: %s}}
  closed.example.com: {upstream: {resolve: {closed.example.com: "127.0.0.1:9"}}}
  parent.example.com: {upstream: {proxy: "http://user:%s@127.0.0.1:9"}}
`, configured, plain, encrypted, ca.certFile, upstreamPassword))
	client := proxied(t, d, ca)
	var shown strings.Builder // what the daemon itself answered
	for _, base := range []string{"http://plain.example.com", "https://intercept.example.com", "http://parent.example.com", "http://closed.example.com"} {
		for _, r := range leakyRequests(t, base, secrets) {
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			content := body(t, resp)
			if resp.Header.Get("Httpowerd-Error") != "" {
				fmt.Fprintln(&shown, resp.Header, content)
			} else if !strings.Contains(content, answer.key) {
				t.Errorf("the client's own answer was changed: %s", content)
			}
		}
	}
	shown.WriteString(rawRefusals(t, d, secrets))
	pages := map[string]string{"error answers": shown.String()}
	for _, path := range []string{"/", "/metrics", "/api/v1/config", "/api/v1/hosts", "/api/v1/breakers", "/api/v1/limits"} {
		pages[path] = askWith(t, d, path, configured)
	}
	d.stop()
	audit, err := os.ReadFile(d.audit)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(audit), "request_headers") || !strings.Contains(string(audit), "response_body") {
		t.Error("headers and bodies were not recorded, so this test shows nothing")
	}
	if strings.Count(d.log.String(), "DEBUG") == 0 {
		t.Error("nothing was logged at debug, so this test shows nothing")
	}
	pages["the audit file"], pages["the log"] = string(audit), d.log.String()
	secrets.search(t, pages)
}

// search looks for each secret as it is and in the spellings that hide it from a quick look.
func (c canaries) search(t *testing.T, pages map[string]string) {
	t.Helper()
	for page, text := range pages {
		if text == "" {
			t.Errorf("%s is empty, so nothing was searched", page)
		}
		for place, secret := range c {
			spellings := []string{secret, base64.StdEncoding.EncodeToString([]byte("user:" + secret)), url.QueryEscape(secret)}
			for _, s := range spellings {
				if i := strings.Index(text, s); i >= 0 {
					t.Errorf("the secret in %q shows in %s: …%s", place, page, text[max(0, i-120):min(len(text), i+len(s)+40)])
					break
				}
			}
		}
	}
}

// leakyRequests carry a secret in every place of a request.
func leakyRequests(t *testing.T, base string, c canaries) []*http.Request {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_secret": {c.make("form", "cs_")}, "password": {c.make("formpassword", "pw")}}
	requests := []struct{ method, path, kind, body string }{
		{"GET", "/v1/items?api_key=" + c.make("query", "key") + "&access_token=" + c.make("querytoken", "tok"), "", ""},
		{"GET", "/hooks/" + c.make("path", "xo"+"xb-"+"000000000000-000000000000-") + "/send", "", ""},
		{"GET", "/redirect?next=" + url.QueryEscape("https://user:"+c.make("userinfo", "ui")+"@api.example.com/"), "", ""},
		{"POST", "/oauth/token", "application/x-www-form-urlencoded", form.Encode()},
		{"POST", "/v1/login", "application/json", fmt.Sprintf(`{"user": "a", "password": "%s", "nested": {"list": [{"clientSecret": "%s"}]}, "text": "%s"}`,
			c.make("json", "pw"), c.make("jsonnested", "ns"), c.make("jsonvalue", "sk_"+"live_"))},
	}
	var out []*http.Request
	for _, q := range requests {
		r, err := http.NewRequest(q.method, base+q.path, strings.NewReader(q.body))
		if err != nil {
			t.Fatal(err)
		}
		if q.kind != "" {
			r.Header.Set("Content-Type", q.kind)
		}
		r.Header.Set("Authorization", "Bearer "+c.make("authorization", "at"))
		r.Header.Set("X-Api-Key", c.make("header", "hk"))
		r.Header.Set("Cookie", "session="+c.make("cookie", "ck"))
		r.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("user:"+c.make("proxyauth", "pa"))))
		r.Header.Set("X-Note", "see "+c.make("headervalue", "sk_"+"live_"))
		out = append(out, r)
	}
	return out
}

// leakyAnswer is an upstream that puts secrets into the head and the body of its answers.
type leakyAnswer struct{ cookie, token, key string }

func (a leakyAnswer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Set-Cookie", "session="+a.cookie+"; HttpOnly")
	w.Header().Set("X-Auth-Token", a.token)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token": "%s", "note": "your key is %s"}`, a.token, a.key)
}

// rawRefusals sends what no library would, and returns the answers.
func rawRefusals(t *testing.T, d *daemon, c canaries) string {
	t.Helper()
	var out strings.Builder
	for _, head := range []string{
		"GET http://user:" + c.make("rawuserinfo", "ru") + "@plain.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\n\r\n",
		"GET /" + c.make("rawpath", "sk_"+"live_") + " HTTP/1.1\r\nHost: plain.example.com\r\n\r\n",
		"CONNECT user:" + c.make("rawconnect", "rc") + "@plain.example.com:443 HTTP/1.1\r\nHost: plain.example.com:443\r\n\r\n",
		"GET http://plain.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\nBad Header: " + c.make("rawheader", "rh") + "\r\n\r\n",
		"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\nProxy-Authorization: Bearer " + c.make("rawbearer", "rb") + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", d.proxy)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, head)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if resp.StatusCode < 400 {
			t.Errorf("%q was answered %s", head, resp.Status)
		}
		fmt.Fprintln(&out, resp.Status, resp.Header, body(t, resp))
		conn.Close()
	}
	return out.String()
}

func askWith(t *testing.T, d *daemon, path, token string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+d.admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", path, resp.Status)
	}
	return body(t, resp)
}
