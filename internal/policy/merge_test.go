package policy

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
)

// explained is the explanation of a GET.
func explained(t testing.TB, f *File, url string) *Explanation {
	t.Helper()
	x, err := Explain(f, "GET", url, "", http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const layered = `version: 1
defaults:
  timeout: {attempt: 20s}
  retry: {attempts: 2, statuses: [503], backoff: {base: 1s}}
  breaker: off
  redact: {headers: [X-One]}
  rate_limit: {requests: 100, per: 1s}
hosts:
  api.example.com:
    tls: intercept
    retry: {attempts: 5, backoff: {max: 20s}}
    redact: {headers: [X-Two], fields: [iban]}
    rate_limit: {requests: 10, per: 1s}
    breaker: {consecutive: 9}
    routes:
      - name: reports
        match: {path: /reports/**}
        retry: {statuses: [500, 502]}
        timeout: {total: 1m}
        rate_limit: {requests: 1, per: 1s, mode: observe}
      - match: {path: /raw/**}
        retry: off
        rate_limit: off
        redact: off
  quiet.example.com:
    tls: intercept
    retry: off
    routes:
      - match: {path: /loud/**}
        retry: {}
`

func TestMerging(t *testing.T) {
	f := loadText(t, layered)
	for _, c := range []struct{ url, path, value, origin string }{
		{"http://unknown.example.org/", "retry.attempts", "2", "defaults"},
		{"http://unknown.example.org/", "retry.backoff.base", "1s", "defaults"},
		{"http://unknown.example.org/", "timeout.total", "40s", "derived"},
		{"http://unknown.example.org/", "retry.retry_after.max", "20s", "derived"},
		{"http://unknown.example.org/", "timeout.connect", "10s", "default"},
		{"http://unknown.example.org/", "breaker", "off", "defaults"},
		{"http://api.example.com/", "retry.attempts", "5", "host"},
		{"http://api.example.com/", "retry.statuses", "[503]", "defaults"},
		{"http://api.example.com/", "retry.backoff.base", "1s", "defaults"},
		{"http://api.example.com/", "retry.backoff.max", "20s", "host"},
		{"http://api.example.com/", "breaker.consecutive", "9", "host"},
		{"http://api.example.com/", "redact.headers", "[X-One, X-Two]", "host"},
		{"http://api.example.com/", "redact.fields", "[iban]", "host"},
		{"http://api.example.com/", "tls", "intercept", "host"},
		{"http://api.example.com/reports/1", "retry.statuses", "[500, 502]", "route"},
		{"http://api.example.com/reports/1", "retry.attempts", "5", "host"},
		{"http://api.example.com/reports/1", "timeout.total", "1m", "route"},
		{"http://api.example.com/reports/1", "timeout.attempt", "20s", "defaults"},
		{"http://api.example.com/raw/1", "retry", "off", "route"},
		{"http://api.example.com/raw/1", "rate_limit", "off", "route"},
		{"http://api.example.com/raw/1", "redact.headers", "[]", "default"},
		{"http://quiet.example.com/", "retry", "off", "host"},
		{"http://quiet.example.com/loud/1", "retry.attempts", "4", "default"},
	} {
		v := valueOf(t, explained(t, f, c.url), c.path)
		if shownText(v.Value) != c.value || v.Origin != c.origin {
			t.Errorf("%s %s: %s from %s, want %s from %s", c.url, c.path, shownText(v.Value), v.Origin, c.value, c.origin)
		}
	}
}

func TestLimitsAddUp(t *testing.T) {
	f := loadText(t, layered)
	limits := settingsOf(f.hosts[0].routes[0].plan).limits
	var got []string
	for _, l := range limits {
		got = append(got, l.Name)
	}
	want := `defaults hosts["api.example.com"] hosts["api.example.com"].routes[0]`
	if strings.Join(got, " ") != want {
		t.Errorf("levels %q, want %q", strings.Join(got, " "), want)
	}
	if limits[0].Config.Requests != 100 || limits[1].Config.Requests != 10 || limits[2].Config.Requests != 1 || limits[1].Config.Mode != "enforce" {
		t.Errorf("%+v", limits)
	}
	if n := len(settingsOf(f.hosts[0].routes[1].plan).limits); n != 0 {
		t.Errorf("off left %d limits", n)
	}
}

func TestProfilesLieBeneathTheirLevel(t *testing.T) {
	f := loadText(t, `version: 1
defaults:
  retry: {attempts: 9, buffer: 3MiB}
hosts:
  api.example.com:
    profile: payments
    breaker: {consecutive: 2}
  none.example.com:
    profile: none
  bare.example.com: {}
`)
	x := explained(t, f, "http://api.example.com/")
	if v := valueOf(t, x, "breaker.consecutive"); v.Origin != "host" {
		t.Errorf("%+v", v)
	}
	profile := 0
	for _, v := range x.Values {
		if v.Origin == "profile" {
			profile++
		}
	}
	if profile == 0 {
		t.Error("the profile changed nothing")
	}
	if v := valueOf(t, x, "retry.buffer"); v.Origin != "defaults" && v.Origin != "profile" {
		t.Errorf("%+v", v)
	}
}

func TestProfileGivesWay(t *testing.T) {
	// Whatever a profile says about timeouts, a person who writes one of them meets no conflict with it.
	for _, profile := range []string{"payments", "api", "mesh", "high-volume", "finance"} {
		loadText(t, "version: 1\ndefaults:\n  profile: "+profile+"\n  timeout: {total: 1s}\n")
		loadText(t, "version: 1\ndefaults:\n  profile: "+profile+"\n  timeout: {attempt: 1h}\n")
		// Nor does it conflict with what was written one level below it.
		loadText(t, "version: 1\ndefaults: {timeout: {total: 1s}}\nhosts: {a.example.com: {profile: "+profile+"}}\n")
		loadText(t, "version: 1\ndefaults: {breaker: {window: 1s}}\nhosts: {a.example.com: {profile: "+profile+"}}\n")
		loadText(t, "version: 1\ndefaults: {breaker: {open_max: 1s}}\nhosts: {a.example.com: {profile: "+profile+"}}\n")
		loadText(t, "version: 1\ndefaults: {retry: {backoff: {max: 1ms}, retry_after: {max: 1h}}}\nhosts: {a.example.com: {profile: "+profile+"}}\n")
		loadText(t, "version: 1\ndefaults: {retry: {backoff: {base: 1h}}}\nhosts: {a.example.com: {profile: "+profile+"}}\n")
	}
}

func TestProviderFillsInWithoutSwitchingOn(t *testing.T) {
	f := loadText(t, `version: 1
defaults:
  rate_limit: {learn: true}
hosts:
  api.stripe.com: {provider: stripe, tls: intercept}
  off.example.com: {provider: stripe, retry: off, rate_limit: off}
`)
	x := explained(t, f, "http://api.stripe.com/")
	facts := 0
	for _, v := range x.Values {
		if v.Origin == "provider" {
			facts++
		}
	}
	if facts == 0 {
		t.Error("the provider filled in nothing")
	}
	x = explained(t, f, "http://off.example.com/")
	if valueOf(t, x, "retry").Value != "off" || valueOf(t, x, "rate_limit").Value != "off" {
		t.Error("a provider switched a block on")
	}
}

func TestExplainModes(t *testing.T) {
	f := loadText(t, `version: 1
hosts:
  a.example.com: {tls: intercept}
  b.example.com: {upgrade: https, access: report}
  c.example.com: {audit: {headers: true}, access: deny}
  d.example.com: {audit: {headers: true}}
  "d.example.com:8443": {retry: off}
`)
	for _, c := range []struct{ method, url, mode, host, authority, chain string }{
		{"GET", "https://a.example.com/", "intercept", "a.example.com", "a.example.com:443", "timeout retry breaker look breaker attempt timeout egress"},
		{"GET", "http://b.example.com/", "upgrade", "b.example.com", "b.example.com:443", "timeout retry breaker look breaker attempt timeout egress"},
		{"connect", "d.example.com:443", "tunnel", "d.example.com", "d.example.com:443", "timeout retry breaker look breaker egress"},
		{"CONNECT", "D.example.com:8443", "tunnel", "d.example.com:8443", "d.example.com:8443", "timeout breaker look breaker egress"},
		{"", "http://e.example.com:81/", "plain", "", "e.example.com:81", "timeout retry breaker look breaker attempt timeout egress"},
	} {
		x, err := Explain(f, c.method, c.url, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if x.Mode != c.mode || x.Host != c.host || x.Authority != c.authority || strings.Join(x.Chain, " ") != c.chain {
			t.Errorf("%s: %s %s %s %v", c.url, x.Mode, x.Host, x.Authority, x.Chain)
		}
	}
	x, err := Explain(f, "CONNECT", "d.example.com:443", "", nil)
	if err != nil || strings.Join(x.Unapplied, " ") != "audit" || !strings.Contains(x.Text(), "unapplied  audit") {
		t.Errorf("%v %v", x, err)
	}
	for _, bad := range []string{"", "api.example.com", "ftp://api.example.com/", "http://127.1/", "http://a b/"} {
		if _, err := Explain(f, "GET", bad, "", nil); err == nil {
			t.Errorf("%q was explained", bad)
		}
	}
}

// What a route says comes too late for the connection that its requests come on.
func TestRoutesDecideNothingOfConnections(t *testing.T) {
	f := loadText(t, `version: 1
hosts:
  a.example.com: {routes: [{match: {path: /v1/**}, tls: intercept}]}
  b.example.com: {tls: intercept, access: deny, routes: [{match: {path: /v1/**}, tls: tunnel, sni: require, access: allow}]}
  c.example.com: {tls: intercept, routes: [{match: {path: /v1/**}, tls: intercept, upgrade: https}]}
`)
	var paths []string
	for _, w := range f.Warnings() {
		paths = append(paths, w.Path)
	}
	if want := []string{`hosts["a.example.com"].routes[0]`, `hosts["a.example.com"].routes[0].tls`, `hosts["b.example.com"].routes[0].tls`, `hosts["b.example.com"].routes[0].sni`}; !slices.Equal(paths, want) {
		t.Errorf("warnings of %q; want %q", paths, want)
	}
	for _, c := range []struct{ method, url, mode, policy, note string }{
		{"GET", "https://a.example.com/v1/x", "tunnel", "a.example.com", "a tunnel"},
		{"GET", "http://a.example.com/v1/x", "plain", "a.example.com#0", ""},
		{"GET", "https://b.example.com/v1/x", "intercept", "b.example.com#0", ""},
		{"GET", "https://b.example.com/v2", "intercept", "b.example.com", "refused"},
		{"CONNECT", "b.example.com:443", "intercept", "b.example.com", "by its own route"},
		{"GET", "https://c.example.com/v1/x", "intercept", "c.example.com#0", ""},
		{"GET", "http://c.example.com/v1/x", "upgrade", "c.example.com#0", ""},
	} {
		x, err := Explain(f, c.method, c.url, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if notes := strings.Join(x.Notes, " "); x.Mode != c.mode || x.Policy != c.policy || !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
			t.Errorf("%s %s: %s %s %q", c.method, c.url, x.Mode, x.Policy, notes)
		}
	}
}

// A route sees of an explained request what it would see of a sent one.
// TestExplainUserinfo: what the door refuses has no policy.
func TestExplainUserinfo(t *testing.T) {
	f := loadText(t, "version: 1\n")
	for method, url := range map[string]string{"GET": "http://user:pass@a.example.com/", "PUT": "https://user@a.example.com/", "CONNECT": "user:pass@a.example.com:443"} {
		_, err := Explain(f, method, url, "", nil)
		var refusal *exchange.Refusal
		if !errors.As(err, &refusal) || refusal.Code != exchange.BadRequest || strings.Contains(refusal.Detail, "user:") {
			t.Errorf("%s %s: %v", method, url, err)
		}
	}
}

func TestExplainedHeaders(t *testing.T) {
	f := loadText(t, `version: 1
hosts:
  a.example.com:
    tls: intercept
    routes:
      - {name: batch, match: {headers: {X-Batch: "*"}}}
      - {name: via, match: {when: "'proxy-x' in request.headers"}}
      - {name: body, match: {when: request.content_length > 0}}
`)
	for _, c := range []struct {
		header http.Header
		route  string
	}{
		{http.Header{"X-Batch": {"1"}}, "batch"},
		{http.Header{"X-Batch": {"1"}, "Connection": {"close, x-batch"}}, ""},
		{http.Header{"Proxy-X": {"1"}}, ""},
		{http.Header{"Content-Length": {"10"}}, "body"},
		{http.Header{"Content-Length": {"0"}}, ""},
	} {
		sent := c.header.Clone()
		x, err := Explain(f, "POST", "https://a.example.com/", "", c.header)
		if err != nil || x.Route != c.route || !reflect.DeepEqual(sent, c.header) {
			t.Errorf("%v: route %q, %v", c.header, x.Route, err)
		}
	}
}

// TestExplainHidesWhatItIsAsked: a number in the place of a name is shown in none either.
func TestExplainHidesWhatItIsAsked(t *testing.T) {
	const number = "4111111111111111"
	f := loadText(t, "version: 1\n")
	for _, c := range []struct{ method, url string }{
		{"GET", "http://" + number + ".example.com/" + number}, {"CONNECT", number + ".example.com:443"}, {number, "http://a.example.com/"},
	} {
		x, err := Explain(f, c.method, c.url, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(x)
		if err != nil || strings.Contains(x.Text(), number) || strings.Contains(string(data), number) {
			t.Errorf("%s %s: %v %s", c.method, c.url, err, data)
		}
	}
	for _, c := range []struct{ method, name string }{{"X " + number, "A"}, {"GET", "A " + number}} {
		if _, err := Explain(f, c.method, "http://a.example.com/", "", http.Header{c.name: {"x"}}); err == nil || strings.Contains(err.Error(), number) {
			t.Errorf("%s %s: %v", c.method, c.name, err)
		}
	}
}

func TestProfilesAndProvidersConflictWithNothing(t *testing.T) {
	// A person's value at any level holds; the one that a profile or provider says beside it gives way.
	for _, set := range []string{"profile: payments", "profile: api", "profile: mesh", "profile: high-volume", "profile: finance",
		"provider: openai", "provider: aws", "provider: google", "provider: stripe"} {
		for _, c := range []struct{ written, path, value string }{
			{"breaker: {window: 2s}", "breaker.window", "2s"},
			{"breaker: {open_max: 2s}", "breaker.open_max", "2s"},
			{"breaker: {open: 1h}", "breaker.open", "1h"},
			{"timeout: {total: 2s}", "timeout.total", "2s"},
			{"timeout: {attempt: 2h}", "timeout.attempt", "2h"},
			{"retry: {backoff: {max: 2ms}}", "retry.backoff.max", "2ms"},
			{"retry: {backoff: {base: 50m}}", "retry.backoff.base", "50m"},
			{"retry: {retry_after: {max: 1h}}", "retry.retry_after.max", "1h"},
		} {
			f := loadText(t, "version: 1\nhosts: {a.example.com: {tls: intercept, "+set+", "+c.written+"}}\n")
			if v := valueOf(t, explained(t, f, "http://a.example.com/"), c.path); shownText(v.Value) != c.value || v.Origin != "host" {
				t.Errorf("%s, %s: %s is %s from %s", set, c.written, c.path, shownText(v.Value), v.Origin)
			}
		}
	}
}

func TestEmptyDirectoriesAreTheUsualOnes(t *testing.T) {
	unset := loadText(t, "version: 1\n").Settings()
	empty := loadText(t, "version: 1\nstate: {dir: \"${EMPTY}\"}\nca: {dir: \"\"}\n").Settings()
	if empty.State.Dir == "" || empty.State.Dir != unset.State.Dir || empty.CA.Dir != unset.CA.Dir {
		t.Errorf("%q and %q, want %q and %q", empty.State.Dir, empty.CA.Dir, unset.State.Dir, unset.CA.Dir)
	}
}

func TestAdminIsSwitchedOffInEitherSpelling(t *testing.T) {
	for _, text := range []string{"admin: off", "admin: {listen: off}", "admin: {listen: \"\"}"} {
		f := loadText(t, "version: 1\n"+text+"\n")
		if f.Settings().Admin.Listen != "" || len(f.Warnings()) > 0 {
			t.Errorf("%s: listens on %q, warns %v", text, f.Settings().Admin.Listen, f.Warnings())
		}
	}
}
