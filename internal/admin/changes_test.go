package admin

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/policy/breaker"
)

func TestReload(t *testing.T) {
	r := newRig(t, "hosts: {a.example.com: {}}")
	before := r.holder.Load().Hash
	r.write("hosts: {a.example.com: {access: deny}}\nstate: {dir: /tmp/elsewhere}")
	for _, body := range []string{"", "{}", " { } "} {
		out := r.is(r.ask("POST", "/api/v1/reload", body), 200, "")
		if out["hash"] == before || out["hash"] != r.holder.Load().Hash || !slices.Equal(out["restart_needed"].([]any), []any{"ca", "state"}) || out["warnings"] == nil {
			t.Errorf("%v", out)
		}
	}
	r.recorded()
	r.write("hosts: {a.example.com: {access: perhaps}}\nunknown: {}\n")
	in := r.holder.Load()
	w := r.ask("POST", "/api/v1/reload", "")
	faults, _ := r.is(w, 422, "invalid_config")["faults"].([]any)
	if len(faults) != 2 {
		t.Fatalf("%d faults: %s", len(faults), w.Body)
	}
	first := faults[0].(map[string]any)
	if first["line"] != 2.0 || first["column"] == 0.0 || !strings.HasSuffix(first["file"].(string), "httpowerd.yaml") ||
		first["path"] != `hosts["a.example.com"].access` || first["message"] == "" {
		t.Errorf("%v", first)
	}
	if r.holder.Load() != in {
		t.Error("the snapshot in use did not stay")
	}
	if got := r.recorded(); len(got) != 1 || got[0]["kind"] != "admin" || got[0]["event"] != "reload" || got[0]["client"] != "127.0.0.1" ||
		got[0]["result"] != "invalid_config" || got[0]["status"] != int64(422) || got[0]["id"] != w.Header().Get("Httpowerd-Request-Id") {
		t.Errorf("%v", got)
	}
}

// TestReloadThatFailsInside: the answer names no path and no error of the system (A50).
func TestReloadThatFailsInside(t *testing.T) {
	r := newRig(t, "")
	r.reload = errors.New("open /secret/place: permission denied")
	w := r.ask("POST", "/api/v1/reload", "")
	r.is(w, 500, "internal")
	if strings.Contains(w.Body.String(), "place") || !strings.Contains(r.log.String(), "/secret/place") {
		t.Errorf("answer %s, log %s", w.Body, r.log.String())
	}
}

func TestBodies(t *testing.T) {
	r := newRig(t, "")
	r.breakers.known = []breaker.Status{{Authority: "a.example.com:443", State: breaker.Closed}}
	const path = "/api/v1/breakers/a.example.com:443"
	for _, row := range []struct {
		body, kind string
		status     int
		code       string
	}{
		{`{"state": "open"}`, "application/json", 200, ""},
		{`{"state": "closed"}`, "application/json; charset=utf-8", 200, ""},
		{` {"state":"auto"} ` + "\n", "Application/JSON", 200, ""},
		{`{"state": "open"}`, "text/plain", 415, "unsupported"},
		{`{"state": "open"}`, "application/x-www-form-urlencoded", 415, "unsupported"},
		{`{"state": "open"}`, "", 415, "unsupported"},
		{"", "", 400, "bad_request"},
		{`{}`, "application/json", 400, "bad_request"},
		{`{"state": "half_open"}`, "application/json", 400, "bad_request"},
		{`{"State": "open"}`, "application/json", 400, "bad_request"},
		{`{"state": "open", "extra": "x"}`, "application/json", 400, "bad_request"},
		{`{"state": "open", "state": "closed"}`, "application/json", 400, "bad_request"},
		{`{"state": true}`, "application/json", 400, "bad_request"},
		{`{"state": null}`, "application/json", 400, "bad_request"},
		{`{"state": {"state": "open"}}`, "application/json", 400, "bad_request"},
		{`["open"]`, "application/json", 400, "bad_request"},
		{`"open"`, "application/json", 400, "bad_request"},
		{`{"state": "open"} {}`, "application/json", 400, "bad_request"},
		{`{"state": "open"`, "application/json", 400, "bad_request"},
		{`{"state": "open",}`, "application/json", 400, "bad_request"},
		{"\xff\xfe", "application/json", 400, "bad_request"},
		{`{"state": "` + strings.Repeat("x", maxBody) + `"}`, "application/json", 413, "too_large"},
	} {
		r.breakers.forced = nil
		fields := []string{"Content-Type", row.kind}
		w := r.askAs(path, row.body, fields)
		r.is(w, row.status, row.code)
		if done := len(r.breakers.forced) > 0; done != (row.status == 200) {
			t.Errorf("%.60s: done is %v", row.body, done)
		}
		want := row.code
		if want == "" {
			want = "ok"
		}
		if got := r.recorded(); len(got) != 1 || got[0]["result"] != want || got[0]["event"] != "breaker" || got[0]["authority"] != "a.example.com:443" {
			t.Errorf("%.60s: recorded %v", row.body, got)
		}
	}
	r.is(r.ask("POST", "/api/v1/reload", `{"force": "yes"}`), 400, "bad_request")
	r.is(r.ask("POST", path, `{"state":"open"}`, "Content-Encoding", "gzip"), 415, "unsupported")
}

func TestForce(t *testing.T) {
	r := newRig(t, "")
	r.breakers.known = []breaker.Status{{Authority: "b.example.com:443", Policy: "two"}, {Authority: "a.example.com:443", Policy: "one"},
		{Authority: "[2001:db8::1]:8443"}}
	for path, row := range map[string]struct {
		status int
		code   string
		forced string
	}{
		"a.example.com:443":      {200, "", "a.example.com:443 open"},
		"A.Example.COM.:443":     {200, "", "a.example.com:443 open"},
		"[2001:db8::1]:8443":     {200, "", "[2001:db8::1]:8443 open"},
		"%5B2001:DB8::1%5D:8443": {200, "", "[2001:db8::1]:8443 open"},
		"c.example.com:443":      {404, "not_found", ""},
		"a.example.com":          {400, "bad_request", ""},
		"a.example.com:0":        {400, "bad_request", ""},
		"a%2Fb:443":              {400, "bad_request", ""},
		"%00:443":                {400, "bad_request", ""},
	} {
		r.breakers.forced = nil
		out := r.is(r.ask("POST", "/api/v1/breakers/"+path, `{"state": "open"}`), row.status, row.code)
		if got := strings.Join(r.breakers.forced, ","); got != row.forced {
			t.Errorf("%s: %q was forced", path, got)
		}
		if list, _ := out["breakers"].([]any); row.status == 200 && len(list) != 1 {
			t.Errorf("%s: %v", path, out)
		}
		if got := r.recorded(); len(got) != 1 || got[0]["state"] != "open" {
			t.Errorf("%s: recorded %v", path, got)
		}
	}
	r.breakers.fail = errors.New("dial 192.0.2.1: refused")
	w := r.ask("POST", "/api/v1/breakers/a.example.com:443", `{"state": "auto"}`)
	if r.is(w, 500, "internal"); strings.Contains(w.Body.String(), "192.0.2.1") {
		t.Errorf("%s", w.Body)
	}
}

// TestForceForReal: the breakers' own room understands what the listener makes of a request.
func TestForceForReal(t *testing.T) {
	r := newRig(t, "")
	room := breaker.New(nil, nil)
	r.handler.Breakers = room
	r.is(r.ask("POST", "/api/v1/breakers/a.example.com:443", `{"state": "open"}`), 404, "not_found")
}

func TestLogLevel(t *testing.T) {
	r := newRig(t, "")
	for _, row := range []struct {
		body   string
		level  slog.Level
		forced bool
		status int
	}{
		{`{"level": "debug"}`, slog.LevelDebug, true, 200}, {`{"level": "error"}`, slog.LevelError, true, 200}, {`{"level": "warn"}`, slog.LevelWarn, true, 200},
		{`{"level": "auto"}`, slog.LevelInfo, false, 200}, {`{"level": "DEBUG"}`, slog.LevelInfo, false, 400}, {`{"level": "-8"}`, slog.LevelInfo, false, 400},
		{`{"level": "info"}`, slog.LevelInfo, true, 200},
	} {
		w := r.ask("PUT", "/api/v1/log-level", row.body)
		if w.Code != row.status || r.level.level != row.level || r.level.forced != row.forced {
			t.Errorf("%s: %d, %v %v", row.body, w.Code, r.level.level, r.level.forced)
		}
		if row.status != 200 {
			continue
		}
		for _, answer := range []map[string]any{r.is(w, 200, ""), r.is(r.ask("GET", "/api/v1/log-level", ""), 200, "")} {
			if answer["level"] != strings.ToLower(row.level.String()) || answer["forced"] != row.forced {
				t.Errorf("%s: %v", row.body, answer)
			}
		}
	}
	if got := r.recorded(); len(got) != 7 || got[0]["level"] != "debug" || got[4]["result"] != "bad_request" {
		t.Errorf("recorded %v", got)
	}
}

// TestRefusedChangesAreRecorded: who was not let in tried, too; who looked changed nothing.
func TestRefusedChangesAreRecorded(t *testing.T) {
	r := newRig(t, "admin: {token: let-me-in-1234}")
	r.ask("POST", "/api/v1/reload", "")
	r.ask("POST", "/api/v1/reload", "", "Authorization", "Bearer guess")
	r.ask("PUT", "/api/v1/log-level", "{}", "Host", "rebind.example.net")
	r.ask("POST", "/api/v1/breakers/a.example.com:443", "", "Origin", "http://evil.example.net")
	r.ask("GET", "/api/v1/config", "", "Authorization", "Bearer let-me-in-1234")
	r.ask("GET", "/api/v1/reload", "", "Authorization", "Bearer let-me-in-1234")
	r.ask("POST", "/api/v1/elsewhere", "", "Authorization", "Bearer let-me-in-1234")
	var got []string
	for _, e := range r.recorded() {
		got = append(got, e["event"].(string)+" "+e["result"].(string))
	}
	if want := []string{"reload unauthorized", "reload unauthorized", "log_level denied", "breaker denied"}; !slices.Equal(got, want) {
		t.Errorf("recorded %q; want %q", got, want)
	}
}

func FuzzFields(f *testing.F) {
	for _, s := range []string{`{"state":"open"}`, `{"state":"open","state":"closed"}`, `{}`, `[]`, `{"state":1}`, `{"a":"b"}`, `{"state":"open"}x`, `{"state":`, "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out, fault := parseFields(data, []string{"state"})
		var loose map[string]any
		err := json.Unmarshal(data, &loose)
		if fault != "" {
			if len(fault) > 200 {
				t.Errorf("a fault of %d bytes", len(fault))
			}
			return
		}
		if err != nil {
			t.Fatalf("%q is no JSON and was taken: %v", data, out)
		}
		if len(out) != len(loose) || len(out) > 1 || len(out) == 1 && loose["state"] != out["state"] {
			t.Fatalf("%q was read as %v", data, out)
		}
	})
}

// TestPaceOfChanges: changes have a rate, whoever asks and whatever comes of them; reading has none.
func TestPaceOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		for i := range changesBurst + 1 {
			if wait := p.wait(time.Now()); (wait > 0) != (i == changesBurst) || wait > changesEvery {
				t.Errorf("change %d waits %s", i, wait)
			}
		}
		time.Sleep(changesEvery)
		if p.wait(time.Now()) != 0 || p.wait(time.Now()) == 0 {
			t.Error("one a second is the pace")
		}
	})
	r := newRig(t, "")
	for range changesBurst {
		r.is(r.ask("PUT", "/api/v1/log-level", `{"level": "info"}`), 200, "")
	}
	w := r.ask("PUT", "/api/v1/log-level", `{"level": "debug"}`)
	r.is(w, 429, "rate_limited")
	if w.Header().Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
	if n := len(r.recorded()); n != changesBurst {
		t.Errorf("%d records", n)
	}
	r.is(r.ask("GET", "/api/v1/log-level", ""), 200, "")
}

// TestRefusedChangesHaveTheirOwnPace: whoever may change nothing neither keeps the operator from it nor fills the audit trail.
func TestRefusedChangesHaveTheirOwnPace(t *testing.T) {
	r := newRig(t, "admin: {token: \"a long and secret token\"}")
	for range 2 * changesBurst {
		r.is(r.ask("PUT", "/api/v1/log-level", `{"level": "info"}`), 401, "unauthorized")
	}
	if n := len(r.recorded()); n < changesBurst || n > changesBurst+5 {
		t.Errorf("%d records", n)
	}
	r.is(r.ask("PUT", "/api/v1/log-level", `{"level": "info"}`, "Authorization", "Bearer a long and secret token"), 200, "")
}
