package policy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestSharedState(t *testing.T) {
	f := loadText(t, `version: 1
state:
  backend: redis
  url: "redis://user:planted-password@redis.example.com:7000/2"
  secret: planted-secret-of-all-daemons
  prefix: prod:payments
  timeout: 250ms
  on_failure: refuse
  share: 3
`)
	s := f.Settings().State
	if s.Timeout.D() != 250*time.Millisecond || s.Share != 3 || s.OnFailure != OnFailRefuse || s.Prefix != "prod:payments" ||
		!strings.HasSuffix(s.URL.Reveal(), "/2") {
		t.Errorf("%+v", s)
	}
	shown, err := f.Effective().YAML()
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(f.Effective())
	if err != nil || strings.Contains(string(shown)+string(asJSON), "planted") {
		t.Errorf("%v: a secret is shown in\n%s", err, shown)
	}
	if w := f.Warnings(); len(w) != 1 || !strings.Contains(w[0].Message, "not encrypted") || w[0].Path != "state.url" {
		t.Errorf("%v", w)
	}
}

func TestSharedStateWarnings(t *testing.T) {
	for text, want := range map[string]int{
		`url: "rediss://redis.example.com", secret: a-secret-of-all-daemons`:    0,
		`url: "redis://127.0.0.1", secret: a-secret-of-all-daemons`:             0,
		`url: "redis://localhost:6380", secret: a-secret-of-all-daemons`:        0,
		`url: "unix:///run/redis.sock", secret: a-secret-of-all-daemons`:        0,
		`url: "redis://127.0.0.1?addr=a.example.com", secret: a-secret-of-them`: 1,
		`url: "rediss://redis.example.com"`:                                     1,
		`url: "redis://redis.example.com"`:                                      2,
	} {
		if w := loadText(t, "version: 1\nstate: {backend: redis, "+text+"}\n").Warnings(); len(w) != want {
			t.Errorf("%s: %v", text, w)
		}
	}
}

// A change of what is shared needs a restart, and is said so.
func TestSharedStateNeedsARestart(t *testing.T) {
	base := defaultSettings()
	for name, change := range map[string]func(*StateSettings){
		"share": func(s *StateSettings) { s.Share = 2 }, "prefix": func(s *StateSettings) { s.Prefix = "x" }, "backend": func(s *StateSettings) { s.Backend = BackendRedis },
	} {
		now := defaultSettings()
		change(&now.State)
		if keys := restartKeys(&base, &now); len(keys) != 1 || keys[0] != "state" {
			t.Errorf("%s: %v", name, keys)
		}
	}
	if keys := restartKeys(&base, &base); len(keys) != 0 {
		t.Errorf("nothing was changed: %v", keys)
	}
}
