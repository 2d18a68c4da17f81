package tenant

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

func set(t *testing.T) *Set {
	t.Helper()
	s, err := New(Config{
		"billing": {Auth: []Method{{Basic: &Basic{Password: redact.NewSecret("right:with colon")}}, {MTLS: "Billing.svc"}}, Only: []string{"api.example.com", "*.example.net:8443"}},
		"ops":     {Auth: []Method{{Basic: &Basic{User: "root", Password: redact.NewSecret("another one")}}, {Bearer: redact.NewSecret("a token of ops")}}},
		"lan":     {Auth: []Method{{Source: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}}}},
		"rack":    {Auth: []Method{{Source: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}, {MTLS: "spiffe://example.com/rack"}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// TestIdentify (A43).
func TestIdentify(t *testing.T) {
	spiffe, _ := url.Parse("spiffe://example.com/rack")
	outside := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]struct {
		e    Evidence
		want string
	}{
		"nothing":                      {Evidence{}, "anonymous"},
		"basic":                        {Evidence{Authorization: []string{"Basic " + basic("billing", "right:with colon")}}, "billing"},
		"scheme in lower case":         {Evidence{Authorization: []string{"basic  " + basic("billing", "right:with colon")}}, "billing"},
		"a user of its own":            {Evidence{Authorization: []string{"Basic " + basic("root", "another one")}}, "ops"},
		"the tenant's name is no user": {Evidence{Authorization: []string{"Basic " + basic("ops", "another one")}}, "wrong"},
		"another's password":           {Evidence{Authorization: []string{"Basic " + basic("billing", "another one")}}, "wrong"},
		"no password":                  {Evidence{Authorization: []string{"Basic " + basic("billing", "")}}, "wrong"},
		"empty pair":                   {Evidence{Authorization: []string{"Basic Og=="}}, "wrong"},
		"unknown user":                 {Evidence{Authorization: []string{"Basic " + basic("nobody", "")}}, "wrong"},
		"no pair":                      {Evidence{Authorization: []string{"Basic " + base64.StdEncoding.EncodeToString([]byte("billing"))}}, "wrong"},
		"not base64":                   {Evidence{Authorization: []string{"Basic ???"}}, "wrong"},
		"no scheme":                    {Evidence{Authorization: []string{""}}, "wrong"},
		"twice":                        {Evidence{Authorization: []string{"Basic " + basic("root", "another one"), "Basic " + basic("root", "another one")}}, "wrong"},
		"bearer":                       {Evidence{Authorization: []string{"Bearer a token of ops"}}, "ops"},
		"wrong bearer":                 {Evidence{Authorization: []string{"Bearer a token of op"}}, "wrong"},
		"empty bearer":                 {Evidence{Authorization: []string{"Bearer "}}, "wrong"},
		"digest":                       {Evidence{Authorization: []string{"Digest a token of ops"}}, "wrong"},
		"source":                       {Evidence{Address: netip.MustParseAddr("10.2.3.4")}, "lan"},
		"the longer network":           {Evidence{Address: netip.MustParseAddr("10.1.3.4")}, "rack"},
		"IPv4 in IPv6":                 {Evidence{Address: netip.MustParseAddr("::ffff:10.2.3.4")}, "lan"},
		"IPv6":                         {Evidence{Address: netip.MustParseAddr("2001:db8::1%eth0")}, "lan"},
		"another source":               {Evidence{Address: outside}, "anonymous"},
		"wrong beside a source":        {Evidence{Authorization: []string{"Bearer x"}, Address: netip.MustParseAddr("10.1.3.4")}, "wrong"},
		"certificate":                  {Evidence{Certificate: &x509.Certificate{DNSNames: []string{"x", "billing.SVC"}}, Address: netip.MustParseAddr("10.1.3.4")}, "billing"},
		"URI":                          {Evidence{Certificate: &x509.Certificate{URIs: []*url.URL{spiffe}}}, "rack"},
		"common name":                  {Evidence{Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "billing.svc"}}}, "billing"},
		"common name beside others":    {Evidence{Certificate: &x509.Certificate{DNSNames: []string{"x"}, Subject: pkix.Name{CommonName: "billing.svc"}}, Address: outside}, "anonymous"},
	} {
		got, verdict := set(t).Identify(&c.e)
		switch verdict {
		case Anonymous:
			got += "anonymous"
		case Wrong:
			got += "wrong"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestOnly(t *testing.T) {
	s := set(t)
	for _, c := range []struct {
		tenant, host string
		port         uint16
		want         bool
	}{
		{"billing", "api.example.com", 443, true}, {"billing", "www.example.com", 443, false}, {"billing", "a.example.net", 8443, true},
		{"billing", "a.example.net", 443, false}, {"ops", "www.example.com", 22, true}, {"", "api.example.com", 443, false}, {"gone", "api.example.com", 443, false},
	} {
		if got := s.May(c.tenant, exchange.Authority{Host: c.host, Port: c.port}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestFailures (A44): a budget for each address, which comes back, in bounded memory; another for one credential that comes again, which leaves others alone.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Failures
		shown := func(a netip.Addr, credential string) *Evidence {
			return &Evidence{Address: a, Now: time.Now(), Authorization: []string{credential}}
		}
		again := netip.MustParseAddr("198.51.100.1")
		for range 3 * maxFailures {
			f.Add(shown(again, "Basic old"))
		}
		if _, spent := f.Spent(shown(again, "Basic old")); !spent {
			t.Error("a wrong credential may be shown for ever")
		}
		if _, spent := f.Spent(shown(again, "Basic right")); spent {
			t.Error("one old password stops its neighbours")
		}
		for i := range 3 * maxFailures {
			f.Add(shown(again, fmt.Sprintf("%s %d", schemeHMAC, i)))
			f.Add(&Evidence{Address: again, Now: time.Now()}) // a signature
		}
		if _, spent := f.Spent(shown(again, "Basic right")); spent {
			t.Error("signatures with one old key stop others")
		}
		if _, spent := f.Spent(shown(again, "hmac-sha256 another")); !spent {
			t.Error("signatures may be wrong for ever")
		}
		a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		other := netip.MustParseAddr("2001:db8:0:1::1")
		for i := range maxFailures {
			guess := shown(a, fmt.Sprintf("Bearer %d", i))
			if _, spent := f.Spent(guess); spent {
				t.Fatal("spent too early")
			}
			f.Add(guess)
		}
		if wait, spent := f.Spent(shown(b, "Bearer right")); !spent || wait > failureWindow {
			t.Error("a neighbour in the same network has a budget of its own")
		}
		if _, spent := f.Spent(shown(other, "Bearer right")); spent {
			t.Error("another network shares the budget")
		}
		for i := range 3 * maxKept {
			f.Add(shown(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "Bearer guess"))
		}
		if len(f.m) > maxKept {
			t.Errorf("%d addresses are kept", len(f.m))
		}
		if _, spent := f.Spent(shown(a, "Bearer right")); !spent {
			t.Error("a flood of addresses gives the budget back")
		}
		time.Sleep(failureWindow)
		if _, spent := f.Spent(shown(a, "Bearer right")); spent {
			t.Error("the budget does not come back")
		}
	})
}

// TestNothingSecretShows: methods print themselves without what they keep.
func TestNothingSecretShows(t *testing.T) {
	var m Method
	if err := m.DecodeSetting(map[string]any{"basic": map[string]any{"password": "0123456789"}}); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %s", m, m, m.Basic.Password); text != "basic basic "+redact.Placeholder {
		t.Error(text)
	}
}
