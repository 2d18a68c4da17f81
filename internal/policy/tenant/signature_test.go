package tenant

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

const sharedKey = "a key that two share"

// signing is a set with a tenant for each way to sign, and the private keys.
type signing struct {
	*Set
	sign map[string]func(text []byte) []byte // by keyid
}

func newSigning(t *testing.T) signing {
	t.Helper()
	dir := t.TempDir()
	_, edKey, _ := ed25519.GenerateKey(nil)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, public crypto.PublicKey) string {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	components := []string{"@method", "@authority", "@target-uri"}
	method := func(algorithm, path string) []Method {
		s := &Signature{Algorithm: algorithm, PublicKey: path, Components: components, Window: time.Minute}
		if path == "" {
			s.Secret = redact.NewSecret(sharedKey)
		}
		return []Method{{Signature: s}}
	}
	set, err := New(Config{
		"mac": {Auth: method(hmacSHA256, "")}, "ed": {Auth: method(ed25519Name, file("ed.pem", edKey.Public()))},
		"ec": {Auth: method(ecdsaP256, file("ec.pem", ecKey.Public()))}, "rsa": {Auth: method(rsaPSSSHA512, file("rsa.pem", rsaKey.Public()))},
		"plain": {Auth: []Method{{Signature: &Signature{Plain: true, Algorithm: hmacSHA256, Secret: redact.NewSecret(sharedKey), Window: time.Minute}}}},
	}, NewRoom(nil))
	if err != nil {
		t.Fatal(err)
	}
	return signing{set, map[string]func([]byte) []byte{
		"mac": mac, "plain": mac, "nobody": mac,
		"ed": func(text []byte) []byte { return ed25519.Sign(edKey, text) },
		"ec": func(text []byte) []byte {
			sum := sha256.Sum256(text)
			r, s, _ := ecdsa.Sign(rand.Reader, ecKey, sum[:])
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		},
		"rsa": func(text []byte) []byte {
			sum := sha512.Sum512(text)
			s, _ := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA512, sum[:], &rsa.PSSOptions{SaltLength: 64})
			return s
		},
	}}
}

func mac(text []byte) []byte {
	m := hmac.New(sha256.New, []byte(sharedKey))
	m.Write(text)
	return m.Sum(nil)
}

func request(method string) Request {
	r := Request{Header: http.Header{"X-Order": {"7", " 8 "}}, Method: method, Target: exchange.Authority{Host: "api.example.com", Port: 443}}
	if method != http.MethodConnect {
		r.Scheme, r.Path = "https", "/v1/pay?x=1"
	}
	return r
}

// lineOf is what a signer writes, by hand: the covered components with their values, then the parameters.
func lineOf(values [][2]string, params string) (input, base string) {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = `"` + v[0] + `"`
		base += `"` + v[0] + `": ` + v[1] + "\n"
	}
	input = "(" + strings.Join(names, " ") + ")" + params
	return input, base + `"@signature-params": ` + input
}

var usual = [][2]string{{"@method", "POST"}, {"@authority", "api.example.com"}, {"@target-uri", "https://api.example.com/v1/pay?x=1"}}

// TestVectors: the signature bases of RFC 9421, appendices B.2.5 and B.2.6.
func TestVectors(t *testing.T) {
	secret, _ := base64.StdEncoding.DecodeString("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
	der, _ := base64.StdEncoding.DecodeString("MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := verifierOf(ed25519Name, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &Request{Method: "POST", Scheme: "https", Target: exchange.Authority{Host: "example.com", Port: 443}, Path: "/foo?param=Value&Pet=dog",
		Header: http.Header{"Date": {"Tue, 20 Apr 2021 02:07:55 GMT"}, "Content-Type": {"application/json"}, "Content-Length": {"18"}}}
	for _, c := range []struct {
		input, signature string
		verify           verify
	}{
		{`("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`, "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=", macOf(secret)},
		{`("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
			"wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==", ed},
	} {
		list, ok := parseInnerList(c.input)
		if !ok {
			t.Fatalf("%s is not read", c.input)
		}
		base, err := (&Signed{innerList: list, raw: c.input}).base(r)
		if err != nil {
			t.Fatal(err)
		}
		signature, _ := base64.StdEncoding.DecodeString(c.signature)
		if !c.verify(base, signature) {
			t.Errorf("the signature of %s is wrong over\n%s", c.input, base)
		}
	}
}

// TestSignatures: whom each kind of key admits, and what it does not.
func TestSignatures(t *testing.T) {
	s := newSigning(t)
	now := time.Now().Truncate(time.Second).Add(5 * time.Second)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	params := func(key, nonce string, created int64, more string) string {
		return fmt.Sprintf(`;created=%d;keyid="%s";nonce="%s"%s;tag="httpowerd"`, created, key, nonce, more)
	}
	digest := sha256.Sum256([]byte("body"))
	said := "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
	for name, c := range map[string]struct {
		method string // POST
		values [][2]string
		key    string // mac
		params string
		change func(*Request)
		forge  func(input, signature string) (string, string)
		want   string // mac
	}{
		"hmac-sha256": {}, "ed25519": {key: "ed", want: "ed"}, "ecdsa-p256-sha256": {key: "ec", want: "ec"}, "rsa-pss-sha512": {key: "rsa", want: "rsa"},
		"CONNECT":        {method: "CONNECT", values: [][2]string{{"@method", "CONNECT"}, {"@authority", "api.example.com:443"}}},
		"a field":        {values: append(slices.Clone(usual), [2]string{"x-order", "7, 8"})},
		"path and query": {values: append(slices.Clone(usual), [2]string{"@scheme", "https"}, [2]string{"@path", "/v1/pay"}, [2]string{"@query", "?x=1"})},
		"a port of its own": {values: [][2]string{{"@method", "POST"}, {"@authority", "api.example.com:8443"}, {"@target-uri", "https://api.example.com:8443/v1/pay?x=1"}},
			change: func(r *Request) { r.Target.Port = 8443 }},
		"the right algorithm":    {params: params("mac", "nonce-of-alg", at(0), `;alg="hmac-sha256"`)},
		"not expired":            {params: params("mac", "nonce-of-exp", at(0), fmt.Sprintf(";expires=%d", at(5*time.Second)))},
		"a digest":               {values: append(slices.Clone(usual), [2]string{"content-digest", said}), change: func(r *Request) { r.Header["Content-Digest"] = []string{said} }},
		"another's key":          {key: "nobody", want: errSignature.Error()},
		"another algorithm":      {params: params("mac", "nonce-other-alg", at(0), `;alg="ed25519"`), want: errSignature.Error()},
		"another method":         {change: func(r *Request) { r.Method = "PUT" }, want: errSignature.Error()},
		"another authority":      {change: func(r *Request) { r.Target.Host = "api.example.net" }, want: errSignature.Error()},
		"another port":           {change: func(r *Request) { r.Target.Port = 8443 }, want: errSignature.Error()},
		"another path":           {change: func(r *Request) { r.Path = "/v1/pay?x=2" }, want: errSignature.Error()},
		"another scheme":         {change: func(r *Request) { r.Scheme = "http" }, want: errSignature.Error()},
		"the target not covered": {values: usual[:2], want: "the signature does not cover @target-uri"},
		"a field that is away":   {values: append(slices.Clone(usual), [2]string{"x-none", ""}), want: "the signature covers what"},
		"CONNECT with a target":  {method: "CONNECT", values: [][2]string{{"@method", "CONNECT"}, {"@authority", "api.example.com:443"}, {"@path", ""}}, want: "the signature covers what"},
		"too old":                {params: params("mac", "nonce-old", at(-61*time.Second), ""), want: errLate.Error()},
		"before the start":       {params: params("mac", "nonce-before", at(-10*time.Second), ""), want: errBefore.Error()},
		"in the future":          {params: params("mac", "nonce-ahead", at(31*time.Second), ""), want: errEarly.Error()},
		"expired":                {params: params("mac", "nonce-expired", at(0), fmt.Sprintf(";expires=%d", at(-time.Second))), want: errLate.Error()},
		"no time":                {params: `;keyid="mac";nonce="nonce-of-none";tag="httpowerd"`, want: errUntimed.Error()},
		"no nonce":               {params: fmt.Sprintf(`;created=%d;keyid="mac";tag="httpowerd"`, at(0)), want: errNonce.Error()},
		"a parameter twice":      {params: params("mac", "nonce-twice", at(0), `;keyid="ed"`), want: errBroken.Error()},
		"a component twice":      {values: append(slices.Clone(usual), usual[0]), want: errBroken.Error()},
		"a weak digest": {values: append(slices.Clone(usual), [2]string{"content-digest", "md5=:AAAA:"}), change: func(r *Request) { r.Header["Content-Digest"] = []string{"md5=:AAAA:"} },
			want: errDigest.Error()},
		"no bytes":         {forge: func(input, _ string) (string, string) { return input, "s=?1" }, want: errBroken.Error()},
		"no signature":     {forge: func(input, _ string) (string, string) { return input, "other=:AAAA:" }, want: errBroken.Error()},
		"two signatures":   {forge: func(input, s string) (string, string) { return input, s + ", " + s }, want: errBroken.Error()},
		"two for us":       {forge: func(input, s string) (string, string) { return input + ", o" + input, s }, want: errBroken.Error()},
		"loose spaces":     {forge: func(input, s string) (string, string) { return strings.Replace(input, `" "`, `"  "`, 1), s }, want: errBroken.Error()},
		"an open list":     {forge: func(_, s string) (string, string) { return `s=("@method";tag="httpowerd"`, s }, want: errBroken.Error()},
		"a changed time":   {forge: func(input, s string) (string, string) { return strings.Replace(input, ";created=", ";created=1", 1), s }, want: errSignature.Error()},
		"an empty keyring": {params: params("", "nonce-no-key", at(0), ""), want: errSignature.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			method, key, want := orElse(c.method, "POST"), orElse(c.key, "mac"), orElse(c.want, "mac")
			values := c.values
			if values == nil {
				values = usual
			}
			p := c.params
			if p == "" {
				p = params(key, "nonce "+name, at(0), "")
			}
			r := request(method)
			input, base := lineOf(values, p)
			input, signature := "s="+input, "s=:"+base64.StdEncoding.EncodeToString(s.sign[key]([]byte(base)))+":"
			if c.change != nil {
				c.change(&r)
			}
			if c.forge != nil {
				input, signature = c.forge(input, signature)
			}
			ask := func() (string, Verdict, *Evidence) {
				r.Header["Signature-Input"], r.Header["Signature"] = []string{input}, []string{signature}
				e := &Evidence{Request: r, Signature: TakeSignature(r.Header), Now: now}
				name, verdict := s.Identify(e)
				return name, verdict, e
			}
			got, verdict, e := ask()
			if verdict == Wrong && e.Why != nil {
				got = e.Why.Error()
			}
			if !strings.HasPrefix(got, want) || (verdict == Known) != (c.want == "" || c.key == c.want) {
				t.Fatalf("%q (%d), want %q", got, verdict, want)
			}
			if strings.Contains(name, "digest") && verdict == Known {
				right := sha256.New()
				right.Write([]byte("body"))
				if e.Digest == nil || !e.Digest.Right(right) || e.Digest.Right(sha256.New()) {
					t.Error("the digest is not what was signed")
				}
			}
			if verdict == Known { // it was used up
				if _, verdict, e := ask(); verdict != Wrong || e.Why != errRepeated {
					t.Errorf("a second time: %d %v", verdict, e.Why)
				}
			}
		})
	}
}

// TestKeysCannotBeGuessed: who has no key is told the same of keys that are there and of others, whatever else is wrong.
func TestKeysCannotBeGuessed(t *testing.T) {
	s := newSigning(t)
	now := time.Now()
	for _, old := range []time.Duration{0, -5 * time.Minute, 5 * time.Minute} {
		created := now.Add(old).Unix()
		for _, key := range []string{"mac", "ed", "ec", "rsa", "nobody"} {
			for _, values := range [][][2]string{usual, usual[:2]} {
				r := request("POST")
				input, _ := lineOf(values, fmt.Sprintf(`;created=%d;keyid="%s";nonce="a nonce";tag="httpowerd"`, created, key))
				r.Header["Signature-Input"], r.Header["Signature"] = []string{"s=" + input}, []string{"s=:AAAA:"}
				e := &Evidence{Request: r, Signature: TakeSignature(r.Header), Now: now}
				if _, verdict := s.Identify(e); verdict != Wrong || e.Why != errSignature {
					t.Errorf("%s, %s, %d components: %d %v", key, old, len(values), verdict, e.Why)
				}
			}
		}
		for _, key := range []string{"plain", "nobody"} {
			e := &Evidence{Request: request("POST"), Now: now,
				Authorization: []string{fmt.Sprintf(`HMAC-SHA256 keyid="%s", timestamp="%d", nonce="a nonce", signature="AAAA"`, key, created)}}
			if _, verdict := s.Identify(e); verdict != Wrong || e.Why != errSignature {
				t.Errorf("plain, %s, %s: %d %v", key, old, verdict, e.Why)
			}
		}
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// TestTakeSignature: what is for this proxy goes, what is for others stays byte for byte.
func TestTakeSignature(t *testing.T) {
	for name, c := range map[string]struct{ input, signature, keptInput, keptSignature []string }{
		"none":  {nil, nil, nil, nil},
		"other": {[]string{`a=("x");tag="other"`}, []string{"a=:AA==:"}, []string{`a=("x");tag="other"`}, []string{"a=:AA==:"}},
		"alone": {[]string{`a=("x");tag="httpowerd"`}, []string{"a=:AA==:"}, nil, nil},
		"between": {[]string{`a=("x" "y,z");k="v, w",  b=("x");tag="httpowerd",c=()`, `d=( )`}, []string{"c=:AAAA:,b=:AA==:", "a=:AB==:"},
			[]string{`a=("x" "y,z");k="v, w",c=()`, `d=( )`}, []string{"c=:AAAA:", "a=:AB==:"}},
		"own line": {[]string{`b=("x");tag="httpowerd"`, `a=("x")`}, []string{"a=:AA==:", "b=:AA==:"}, []string{`a=("x")`}, []string{"a=:AA==:"}},
	} {
		h := http.Header{}
		for field, lines := range map[string][]string{"Signature-Input": c.input, "Signature": c.signature} {
			if lines != nil {
				h[field] = slices.Clone(lines)
			}
		}
		TakeSignature(h)
		if !reflect.DeepEqual(h["Signature-Input"], c.keptInput) || !reflect.DeepEqual(h["Signature"], c.keptSignature) {
			t.Errorf("%s: kept %q and %q", name, h["Signature-Input"], h["Signature"])
		}
	}
}

// TestPlainSignature: a MAC over seven lines in Proxy-Authorization.
func TestPlainSignature(t *testing.T) {
	s := newSigning(t)
	now := time.Now().Truncate(time.Second).Add(5 * time.Second)
	stamp := fmt.Sprint(now.Unix())
	credentials := func(key, nonce, digest string, lines ...string) string {
		signature := base64.StdEncoding.EncodeToString(mac([]byte(strings.Join(lines, "\n"))))
		return fmt.Sprintf(`hmac-sha256 keyid="%s", timestamp=%s,nonce="%s", digest="%s", signature="%s"`, key, stamp, nonce, digest, signature)
	}
	post := func(nonce, digest string) []string {
		return []string{"HMAC-SHA256", "POST", "api.example.com:443", "/v1/pay?x=1", stamp, nonce, digest}
	}
	sum := sha256.Sum256([]byte("body"))
	digest := base64.StdEncoding.EncodeToString(sum[:])
	for name, c := range map[string]struct{ method, text, want string }{
		"right":         {"POST", credentials("plain", "nonce-01", "", post("nonce-01", "")...), "plain"},
		"digest":        {"POST", credentials("plain", "nonce-02", digest, post("nonce-02", digest)...), "plain"},
		"CONNECT":       {"CONNECT", credentials("plain", "nonce-03", "", "HMAC-SHA256", "CONNECT", "api.example.com:443", "", stamp, "nonce-03", ""), "plain"},
		"other digest":  {"POST", credentials("plain", "nonce-04", digest, post("nonce-04", "")...), errSignature.Error()},
		"other path":    {"POST", credentials("plain", "nonce-05", "", "HMAC-SHA256", "POST", "api.example.com:443", "/v1/pay", stamp, "nonce-05", ""), errSignature.Error()},
		"unknown key":   {"POST", credentials("mac", "nonce-06", "", post("nonce-06", "")...), errSignature.Error()},
		"no nonce":      {"POST", credentials("plain", "", "", post("", "")...), errNonce.Error()},
		"not a digest":  {"POST", credentials("plain", "nonce-07", "AAAA", post("nonce-07", "AAAA")...), errDigest.Error()},
		"no parameters": {"POST", "hmac-sha256 AAAA", errBroken.Error()},
		"a name twice":  {"POST", `hmac-sha256 keyid="plain", keyid="plain"`, errBroken.Error()},
		"nothing":       {"POST", "hmac-sha256", errBroken.Error()},
	} {
		wants := []string{c.want}
		if name == "right" {
			wants = append(wants, errRepeated.Error())
		}
		for i, want := range wants {
			e := &Evidence{Authorization: []string{c.text}, Request: request(c.method), Now: now}
			got, verdict := s.Identify(e)
			if verdict == Wrong && e.Why != nil {
				got = e.Why.Error()
			}
			if got != want {
				t.Errorf("%s, %d: %q (%d), want %q", name, i, got, verdict, want)
			}
		}
	}
	if want := schemeHMAC + ` realm="httpowerd"`; !slices.Contains(s.Challenges(), want) {
		t.Errorf("the challenges %q lack %s", s.Challenges(), want)
	}
}

// TestNonces: a full memory refuses, and forgets nothing that still holds; what holds no more makes room, and does not come back under a longer window.
func TestNonces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNonces()
		start := time.Now()
		spend := func(nonce string, made time.Time, window time.Duration, want error) {
			t.Helper()
			if err := n.spend("k", nonce, time.Now(), made, window); err != want {
				t.Errorf("%s: %v, want %v", nonce, err, want)
			}
		}
		for i := range maxNonces {
			spend(fmt.Sprint(i), start, time.Minute, nil)
		}
		spend("one more", start, time.Minute, errFull)
		spend("0", start, time.Minute, errRepeated)
		time.Sleep(time.Minute)
		spend("one more", time.Now(), time.Minute, errFull) // the last second in which they hold
		time.Sleep(time.Second)
		spend("one more", time.Now(), time.Minute, nil)
		spend("0", start, time.Hour, errBefore)
		if len(n.used) != 1 {
			t.Errorf("%d are remembered", len(n.used))
		}
	})
}

// TestNoncesOutliveAReload: what was used up stays used up under another configuration.
func TestNoncesOutliveAReload(t *testing.T) {
	room := NewRoom(nil)
	c := Config{"mac": {Auth: []Method{{Signature: &Signature{Plain: true, Algorithm: hmacSHA256, Secret: redact.NewSecret(sharedKey), Window: time.Minute}}}}}
	now := time.Now().Truncate(time.Second).Add(time.Second)
	stamp := fmt.Sprint(now.Unix())
	text := strings.Join([]string{"HMAC-SHA256", "POST", "api.example.com:443", "/v1/pay?x=1", stamp, "nonce-01", ""}, "\n")
	line := fmt.Sprintf(`HMAC-SHA256 keyid="mac", timestamp="%s", nonce="nonce-01", signature="%s"`, stamp, base64.StdEncoding.EncodeToString(mac([]byte(text))))
	for i, want := range []Verdict{Known, Wrong} {
		s, err := New(c, room)
		if err != nil {
			t.Fatal(err)
		}
		if _, got := s.Identify(&Evidence{Authorization: []string{line}, Request: request("POST"), Now: now}); got != want {
			t.Errorf("%d: %d, want %d", i, got, want)
		}
	}
}

// TestNoncesOutliveTheProcess: the next process is told what it would take for new, and nothing else; what makes no sense is not believed.
func TestNoncesOutliveTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		spend := func(r *Room, nonce string, made time.Duration, want error) {
			t.Helper()
			if err := r.noncesOf("mac").spend("k", nonce, time.Now(), start.Add(made), time.Minute); err != want {
				t.Errorf("%s: %v, want %v", nonce, err, want)
			}
		}
		first := NewRoom(nil)
		if got := first.Export(); got != nil {
			t.Errorf("nothing was used, and kept is %s", got)
		}
		spend(first, "at once", 0, nil)
		spend(first, "ahead", 20*time.Second, nil)
		second := NewRoom(nil)
		if err := second.Import(first.Export()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		third := NewRoom(nil) // of a process that ends before the tenant asked for anything
		if err := third.Import(second.Export()); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*Room{second, third} {
			spend(r, "ahead", 20*time.Second, errRepeated)
			spend(r, "another", 20*time.Second, nil)
			spend(r, "at once", 0, map[bool]error{true: errRepeated, false: errBefore}[r == second])
		}
		for i := range maxExported {
			spend(third, fmt.Sprint(i), 30*time.Second, nil)
		}
		fourth := NewRoom(nil)
		if err := fourth.Import(third.Export()); err != nil {
			t.Fatal(err)
		}
		refused := 0
		for i := range maxExported {
			if fourth.noncesOf("mac").spend("k", fmt.Sprint(i), time.Now(), start.Add(30*time.Second), time.Minute) != nil {
				refused++
			}
		}
		if refused != maxExported {
			t.Errorf("of %d only %d are refused", maxExported, refused)
		}
		time.Sleep(time.Minute)
		if got := third.Export(); got != nil {
			t.Errorf("all is over, and kept is %.80s", got)
		}
		for _, text := range []string{"", "[]", `{"mac":{"since":99999999999}}`, `{"mac":{"used":{"00":[1,2]}}}`, `{"mac":{"used":{"` + strings.Repeat("0", 32) + `":[1,99999999999]}}}`} {
			if fourth.Import([]byte(text)) == nil {
				t.Errorf("%q is believed", text)
			}
		}
	})
}
