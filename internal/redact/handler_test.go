package redact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
)

type stringer struct{ s string }

func (s stringer) String() string { return s.s }

type valuer struct{ v slog.Value }

func (v valuer) LogValue() slog.Value { return v.v }

type account struct {
	User, Password string
	Inner          *account
	Number         int64
}

func TestHandler(t *testing.T) {
	const secret = "hunter2hunter"
	with := "password=" + secret
	u, _ := url.Parse("https://u:" + secret + "@api.example.com/")
	attrs := []any{
		"a", with, "password", secret, "token", 12345, slog.Group("g", "a", with, "api_key", secret), slog.Group("credentials", "x", secret),
		"err", errors.New(with), "wrapped", fmt.Errorf("failed: %w", errors.New(with)), "stringer", stringer{with}, "valuer", valuer{slog.StringValue(with)},
		"group valuer", valuer{slog.GroupValue(slog.String("secret", secret))}, "header", http.Header{"Authorization": {"Bearer " + secret}}, "bytes", []byte(with),
		"json", []byte(`{"password":"` + secret + `"}`), "url", u, "list", []string{with}, "map", map[string]string{"password": secret},
		"struct", account{Inner: &account{Password: secret}}, "pointer", &account{Password: secret}, "any", []any{map[string]any{"cvv": secret}},
		"nil", nil, "nil stringer", (*url.URL)(nil), "number", 4111111111111111, "key" + with, 1, "took", time.Second, "fine", "text", "typed", struct{ A int }{7},
	}
	for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var b bytes.Buffer
		log := slog.New(NewHandler(h(&b), Default()))
		log.Info("sent "+with, attrs...)
		log.With(attrs...).WithGroup("inner").With("x", with).Info("x")
		log.WithGroup("secrets").With("x", secret).Info("x", "y", secret)
		log.Debug("password=" + secret)
		out := b.String()
		if strings.Contains(out, secret) || strings.Contains(out, "4111111111111111") {
			t.Errorf("%s: a secret shows in %s", name, out)
		}
		for _, keep := range []string{"text", "took", "fine", "api.example.com", "sent", "Bearer"} {
			if !strings.Contains(out, keep) {
				t.Errorf("%s: %s is gone from %s", name, keep, out)
			}
		}
		if strings.Count(out, "\n") != 3 {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestLegible: no text of the log is endless, ends its line or turns the reading direction, whatever type it came in (A48).
func TestLegible(t *testing.T) {
	const evil = "a\r\n{\"msg\":\"forged\"}\n\x1b[2J\u009b31m\u202e\u2066\u2028\ufeff\U000e0041\x7f\xff"
	long := strings.Repeat("long ", 1<<20)
	for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(NewHandler(h(&b), Default())).Info(evil, "s", evil, "err", errors.New(evil), "stringer", stringer{evil}, "list", []string{evil}, "bytes", []byte(evil),
			"struct", struct{ A string }{evil}, "header", http.Header{"X-A": {evil}}, "long", long, "longer", errors.New(long))
		line, ok := strings.CutSuffix(b.String(), "\n")
		if !ok || len(line) > 3*maxLogged {
			t.Errorf("%s: %d bytes", name, len(line))
		}
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) && r != unicode.ReplacementChar }); i >= 0 {
			t.Errorf("%s: %q stands in %.1500q", name, line[i:min(len(line), i+4)], line)
		}
		if name == "json" && !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %.500q", line)
		}
	}
}
