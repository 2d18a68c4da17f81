package daemon

import (
	"encoding/base64"
	"encoding/json"
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
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken, err := hidingIn(filepath.Dir(path)); err == nil || broken.Key == nil {
		t.Error("a broken key is no reason to say so, or to go without")
	}
}
