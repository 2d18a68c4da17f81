package tenant

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signer is a key of an issuer.
type signer struct {
	key crypto.Signer
	alg jose.SignatureAlgorithm
	id  string
}

func newSigner(t *testing.T, id string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, jose.ES256, id}
}

func (s signer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	return signWith(t, jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.key, KeyID: s.id}}, claims)
}

func signWith(t *testing.T, key jose.SigningKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keySet(t *testing.T, signers ...signer) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, s := range signers {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.key.Public(), KeyID: s.id, Use: "sig", Algorithm: string(s.alg)})
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func claims(change func(map[string]any)) map[string]any {
	c := map[string]any{"iss": "https://id.example.com", "aud": "proxy", "sub": "billing", "exp": time.Now().Add(time.Hour).Unix()}
	if change != nil {
		change(c)
	}
	return c
}

func TestJWT(t *testing.T) {
	one, two, stranger := newSigner(t, "1"), newSigner(t, "2"), newSigner(t, "1")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards := signer{ed, jose.EdDSA, "ed"}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, keySet(t, one, two, edwards), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		"billing": {Auth: []Method{{JWT: &JWT{JWKS: file, Issuer: "https://id.example.com", Audience: "proxy", Claim: "sub"}}}},
		"group":   {Auth: []Method{{JWT: &JWT{JWKS: file, Issuer: "https://id.example.com", Audience: "proxy", Claim: "groups", Value: "ops"}}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(one.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://id.example.com","aud":"proxy","sub":"billing","exp":99999999999}`)) + "."
	right := one.sign(t, claims(nil))
	for name, c := range map[string]struct{ token, want string }{
		"right":                      {right, "billing"},
		"again":                      {right, "billing"},
		"the second key":             {two.sign(t, claims(nil)), "billing"},
		"Ed25519":                    {edwards.sign(t, claims(nil)), "billing"},
		"no key id":                  {signer{two.key, two.alg, ""}.sign(t, claims(nil)), "billing"},
		"several aud":                {one.sign(t, claims(func(c map[string]any) { c["aud"] = []string{"x", "proxy"} })), "billing"},
		"a group":                    {one.sign(t, claims(func(c map[string]any) { c["sub"], c["groups"] = "somebody", []string{"dev", "ops"} })), "group"},
		"a little late":              {one.sign(t, claims(func(c map[string]any) { c["exp"] = time.Now().Add(-30 * time.Second).Unix() })), "billing"},
		"expired":                    {one.sign(t, claims(func(c map[string]any) { c["exp"] = time.Now().Add(-2 * time.Minute).Unix() })), ""},
		"not yet":                    {one.sign(t, claims(func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() })), ""},
		"no expiry":                  {one.sign(t, claims(func(c map[string]any) { delete(c, "exp") })), ""},
		"another issuer":             {one.sign(t, claims(func(c map[string]any) { c["iss"] = "https://other.example.com" })), ""},
		"another aud":                {one.sign(t, claims(func(c map[string]any) { c["aud"] = "shop" })), ""},
		"another subject":            {one.sign(t, claims(func(c map[string]any) { c["sub"] = "ops" })), ""},
		"another's key":              {stranger.sign(t, claims(nil)), ""},
		"unknown key id":             {signer{one.key, one.alg, "3"}.sign(t, claims(nil)), ""},
		"no signature":               {none, ""},
		"the public key as a secret": {signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: public, KeyID: "1"}}, claims(nil)), ""},
		"a changed claim":            {strings.Join([]string{strings.Split(right, ".")[0], strings.Split(one.sign(t, claims(func(c map[string]any) { c["sub"] = "x" })), ".")[1], strings.Split(right, ".")[2]}, "."), ""},
		"too long":                   {one.sign(t, claims(func(c map[string]any) { c["x"] = strings.Repeat("a", maxToken) })), ""},
		"garbage":                    {"a.b.c", ""},
	} {
		got, verdict := s.Identify(&Evidence{Authorization: []string{"Bearer " + c.token}})
		if got != c.want || (verdict == Known) != (c.want != "") {
			t.Errorf("%s: %q %d, want %q", name, got, verdict, c.want)
		}
	}
	if offered := s.Challenges(); len(offered) != 2 {
		t.Errorf("a 407 offers %q", offered)
	}
}

// served answers with a key set that may change, and counts.
type served struct {
	body  atomic.Pointer[[]byte]
	asked atomic.Int32
}

func (s *served) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	b := s.body.Load()
	if b == nil {
		return &http.Response{StatusCode: 503, Body: http.NoBody}, nil
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(*b)), Request: r}, nil
}

// TestRemoteKeys: fetched once for all, refreshed, asked again for a new key but not for every made-up one, and kept while they cannot be had.
func TestRemoteKeys(t *testing.T) {
	old, fresh := newSigner(t, "1"), newSigner(t, "2")
	synctest.Test(t, func(t *testing.T) {
		server := &served{}
		room := NewRoom(nil)
		room.Use(server)
		s, err := New(Config{"billing": {Auth: []Method{{JWT: &JWT{JWKS: "https://id.example.com/keys", Issuer: "https://id.example.com", Audience: "proxy", Claim: "sub"}}}}}, room)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		ask := func(by signer) bool {
			n++
			_, verdict := s.Identify(&Evidence{Authorization: []string{"Bearer " + by.sign(t, claims(func(c map[string]any) { c["jti"] = strconv.Itoa(n) }))}})
			return verdict == Known
		}
		if _, verdict := s.Identify(&Evidence{Authorization: []string{"Bearer " + old.sign(t, claims(nil))}}); verdict != Unproven {
			t.Errorf("without keys the verdict is %d", verdict)
		}
		if first, second := ask(old), ask(old); first || second || server.asked.Load() != 1 {
			t.Errorf("without keys: asked %d times", server.asked.Load())
		}
		time.Sleep(retryAfter)
		set := keySet(t, old)
		server.body.Store(&set)
		if first, second := ask(old), ask(old); !first || !second || server.asked.Load() != 2 {
			t.Errorf("the server was asked %d times", server.asked.Load())
		}
		both := keySet(t, old, fresh)
		server.body.Store(&both)
		if ask(fresh) {
			t.Error("a key that nobody has seen is believed")
		}
		time.Sleep(askAgain + time.Second)
		if !ask(fresh) || server.asked.Load() != 3 {
			t.Errorf("the new key is not fetched (%d)", server.asked.Load())
		}
		server.body.Store(nil)
		time.Sleep(keysFor + time.Second)
		if !ask(fresh) {
			t.Error("the last keys do not hold while the server is away")
		}
		synctest.Wait()
		only := keySet(t, fresh)
		server.body.Store(&only)
		time.Sleep(retryAfter)
		ask(fresh)
		synctest.Wait()
		if ask(old) {
			t.Error("a key that was withdrawn is believed")
		}
	})
}

func TestKeySetsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","k":"c2VjcmV0c2VjcmV0"}]}`, `[`} {
		if CheckJWKS([]byte(text)) == nil {
			t.Errorf("%q is taken for a key set", text)
		}
	}
}

// TestKeysOfOtherKinds: a set may hold keys that nobody here can use, such as those of newer kinds; the others count all the same (RFC 7517 section 5).
func TestKeysOfOtherKinds(t *testing.T) {
	one := newSigner(t, "1")
	for name, other := range map[string]string{
		"a new kind":          `{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AAAA"}`,
		"a new curve":         `{"kty":"EC","kid":"k","crv":"secp256k1","x":"AAAA","y":"AAAA"}`,
		"no kind":             `{"kid":"x"}`,
		"a broken chain":      `{"kty":"RSA","kid":"c","n":"AQAB","e":"AQAB","x5c":["AAAA"]}`,
		"a member is missing": `{"kty":"RSA","kid":"n","n":"AQAB"}`,
		"no object":           `null`,
	} {
		var set struct{ Keys []json.RawMessage }
		if err := json.Unmarshal(keySet(t, one), &set); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "jwks.json")
		if err := os.WriteFile(file, []byte(`{"keys":[`+other+","+string(set.Keys[0])+"]}"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{"billing": {Auth: []Method{{JWT: &JWT{JWKS: file, Issuer: "https://id.example.com", Audience: "proxy", Claim: "sub"}}}}}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, _ := s.Identify(&Evidence{Authorization: []string{"Bearer " + one.sign(t, claims(nil))}}); got != "billing" {
			t.Errorf("%s: the token is %q's", name, got)
		}
	}
}
