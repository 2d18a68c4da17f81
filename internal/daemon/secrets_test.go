package daemon

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"httpowerd/internal/policy"
	"httpowerd/internal/redact"
)

// TestKnownSecrets: what the configuration keeps secret, and what a request carries as its credentials, is hidden wherever else it occurs, in any of its
// spellings, in records and in the log; the traffic itself is not touched.
func TestKnownSecrets(t *testing.T) {
	const password, apiKey = "correct-Horse/7 battery", "Vx91-kk02-PPq7"
	var got string
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.URL.RequestURI() + " " + string(body)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "no such thing: " + r.Header.Get("X-Api-Key"), "echo": string(body)})
	}))
	defer upstream.Close()
	b := start(t, fmt.Sprintf("tenants: {shop: {auth: [{basic: {password: %q}}]}}\ndefaults: {audit: {headers: true, bodies: all}}\n", password))
	proxyURL := &url.URL{Scheme: "http", Host: b.ProxyAddrs()[0], User: url.UserPassword("shop", password)}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxyURL), DisableKeepAlives: true}}
	sent := "note=" + url.QueryEscape(password) + "&b64=" + base64.StdEncoding.EncodeToString([]byte("x:"+password))
	req, _ := http.NewRequest("POST", upstream.URL+"/find/"+url.PathEscape(password), strings.NewReader(sent))
	req.Header.Set("X-Api-Key", apiKey)
	req.Header.Set("X-Note", "it was "+password)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(answer), apiKey) || !strings.Contains(got, url.PathEscape(password)) || !strings.Contains(got, sent) {
		t.Errorf("the traffic was changed: %s, %s", got, answer)
	}
	r := b.records(1)[0]
	line, _ := json.Marshal(r)
	encoded := base64.StdEncoding.EncodeToString([]byte("x:" + password))
	for _, s := range []string{password, url.QueryEscape(password), url.PathEscape(password), apiKey, encoded, encoded[4 : len(encoded)-4]} {
		if strings.Contains(string(line), s) {
			t.Errorf("%q stands in the record: %s", s, line)
		}
		if strings.Contains(b.log.String(), s) {
			t.Errorf("%q stands in the log", s)
		}
	}
	body := r.text("response_body")
	key := regexp.MustCompile(`<redacted:[a-z-]+:[0-9a-f]{4}>`).FindString(fmt.Sprint(r["request_headers"].(map[string]any)["X-Api-Key"]))
	if fingerprint := key[strings.LastIndexByte(key, ':'):]; key == "" || !strings.Contains(body, "no such thing: <redacted:known-secret"+fingerprint) {
		t.Errorf("the key is %s in the request's fields, and the answer's body is %s", key, body)
	}
}

// TestTokenAsHost: a token in the place of a host, which resolvers and their errors have in lower case, stands in no log and no record in any case.
func TestTokenAsHost(t *testing.T) {
	const token = "AKIARAMHMURDWAI75T3M"
	b := start(t, "log: {level: debug}\ndefaults: {retry: off}\n")
	proxyURL := &url.URL{Scheme: "http", Host: b.ProxyAddrs()[0]}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxyURL), DisableKeepAlives: true}}
	resp, err := client.Get("http://" + token + ".invalid/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if code := resp.Header.Get("Httpowerd-Error"); code != "upstream_dns" {
		t.Errorf("the answer is %s %s", resp.Status, code)
	}
	line, _ := json.Marshal(b.records(1)[0])
	if log := b.log.String(); strings.Contains(strings.ToUpper(log), token) || !strings.Contains(log, `"msg":"refused"`) || !strings.Contains(log, "<redacted:aws") {
		t.Errorf("the log says %s", log)
	}
	if strings.Contains(strings.ToUpper(string(line)), token) {
		t.Errorf("the record says %s", line)
	}
}

// TestFingerprintsLast: the key of fingerprints is made once, for its owner's eyes, and outlives the process.
func TestFingerprintsLast(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	b := start(t, "")
	path := filepath.Join(filepath.Dir(b.config), "state", redact.KeyFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	before, _ := os.ReadFile(path)
	ask := func(b *box) string {
		t.Helper()
		resp, err := b.client(upstream).Get(upstream.URL + "/?token=abcdefgh12345678")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return b.records(1)[0].text("url")
	}
	first := ask(b)
	if !regexp.MustCompile(`token=<redacted:secret:[0-9a-f]{4}>$`).MatchString(first) {
		t.Errorf("the record says %s", first)
	}
	other := start(t, "")
	state := filepath.Join(filepath.Dir(other.config), "state")
	if after, _ := os.ReadFile(filepath.Join(state, redact.KeyFile)); string(after) == string(before) {
		t.Error("two installations have the same key")
	}
	b.stop()
	hidingIn := func(dir string) (redact.Shared, error) {
		return hiding(policy.Settings{State: policy.StateSettings{Dir: dir}}, Options{})
	}
	again, err := hidingIn(filepath.Dir(path))
	if err != nil || !strings.HasSuffix(first, ":"+again.Key.Fingerprint("abcdefgh12345678")+">") {
		t.Errorf("the next process makes another fingerprint: %v", err)
	}
	const open = "the key of fingerprints can be read or written by others"
	if log := b.log.String(); strings.Contains(log, open) {
		t.Error(log)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	b = b.restart()
	if log := b.log.String(); !strings.Contains(log, open) {
		t.Error(log)
	}
	b.stop()
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken, err := hidingIn(filepath.Dir(path)); err == nil || broken.Key == nil {
		t.Error("a broken key is no reason to say so, or to go without")
	}
}

// TestCodedBodies: what is recorded of a coded body is its text, without its secrets and bounded; the body itself passes as it came.
func TestCodedBodies(t *testing.T) {
	secret := "hunter2-" + "long-enough"
	text := `{"password":"` + secret + `","note":"` + strings.Repeat("n", 5000) + `"}`
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", r.Header.Get("Content-Encoding"))
		_, _ = w.Write(body)
	}))
	defer upstream.Close()
	b := start(t, "defaults: {audit: {bodies: all, max_body: 1KiB}}\n")
	bomb := coded(t, "gzip", strings.Repeat("0", 32<<20))
	n := 0
	for _, c := range []struct {
		encoding string
		body     []byte
		want     string
	}{
		{"gzip", coded(t, "gzip", text), `{"password":"<redacted:`}, {"br", coded(t, "br", text), `{"password":"<redacted:`}, {"zstd", coded(t, "zstd", text), `{"password":"<redacted:`},
		{"gzip", bomb, "0000"}, {"gzip", []byte("\x1f\x8bno gzip \xff"), "[binary content, 11 bytes]"}, {"x-odd", []byte("\x00\x01" + secret), "[binary content"},
	} {
		req, _ := http.NewRequest("POST", upstream.URL, strings.NewReader(string(c.body)))
		req.Header.Set("Content-Encoding", c.encoding)
		req.Header.Set("Accept-Encoding", "gzip, br, zstd")
		resp, err := b.client(upstream).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != string(c.body) || resp.Header.Get("Content-Encoding") != c.encoding {
			t.Errorf("%s: the body was changed: %d bytes of %d", c.encoding, len(got), len(c.body))
		}
		n++
		r := b.records(n)[n-1]
		for _, key := range []string{"request_body", "response_body"} {
			recorded := r.text(key)
			if !strings.HasPrefix(recorded, c.want) || strings.Contains(recorded, secret) || len(recorded) > 1100 {
				t.Errorf("%s: the %s is %.200q, %d bytes", c.encoding, key, recorded, len(recorded))
			}
		}
	}
}

// coded is text in a content coding.
func coded(t *testing.T, coding, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	_, err := io.WriteString(w, text)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRefusedHeaders: where headers are recorded, those of a request that policy refuses are, too.
func TestRefusedHeaders(t *testing.T) {
	b := start(t, "defaults: {audit: {headers: true}, access: deny}\n")
	c := b.dialProxy()
	c.send("GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nX-Batch: 7\r\nAuthorization: Bearer a-token-of-somebody\r\n\r\n")
	refused(t, c.answer(http.MethodGet), 403, "denied")
	r := b.records(1)[0]
	fields, _ := r["request_headers"].(map[string]any)
	if fmt.Sprint(fields["X-Batch"]) != "7" && fmt.Sprint(fields["X-Batch"]) != "[7]" || strings.Contains(fmt.Sprint(r), "a-token-of-somebody") {
		t.Errorf("%v", r)
	}
}

// TestNamesThatHoldSecrets: a card number in the name of a host, or of a quota that an upstream announces, stands in no metric, no page and no record.
func TestNamesThatHoldSecrets(t *testing.T) {
	const card = "4111111111111111"
	origin := newRawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRateLimit-Policy: \""+card+"\";q=10;w=60\r\nRateLimit: \""+card+"\";r=5;t=30\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	b := start(t, fmt.Sprintf("defaults: {rate_limit: {learn: true}, upstream: {resolve: {%s.example.com: %q, api.example.com: %q}}}\n", card, origin.addr, origin.addr))
	for _, host := range []string{card + ".example.com", "api.example.com"} {
		if a := get(t, b.client(), "http://"+host+"/"); a.body != "ok" {
			t.Fatalf("%s: %s", a.Status, a.body)
		}
	}
	if got := origin.requests(); len(got) != 2 || !strings.Contains(got[0], "Host: "+card+".example.com") {
		t.Errorf("the upstream got %q", got)
	}
	if r := b.records(2)[0]; r.text("host") != "411111******1111.example.com" {
		t.Errorf("the record says %v", r)
	}
	for _, path := range []string{"/", "/metrics", "/api/v1/hosts", "/api/v1/limits"} {
		if text := b.admin("GET", path, "").body; strings.Contains(text, card) || !strings.Contains(text, "example.com") {
			t.Errorf("%s: %s", path, text)
		}
	}
	if text := b.admin("GET", "/metrics", "").body; !strings.Contains(text, `httpowerd_requests_total{code="200",host="other",method="GET",outcome="ok",tenant=""} 1`) ||
		!strings.Contains(text, `host="api.example.com"`) {
		t.Error("the two hosts are not counted under their labels")
	}
}
