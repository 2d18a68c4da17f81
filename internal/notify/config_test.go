package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"httpowerd/internal/redact"
)

func TestURL(t *testing.T) {
	for text, shown := range map[string]string{
		"https://hooks.example.com/T0/hush?x=hush": "https://hooks.example.com/[redacted]",
		"http://[2001:db8::1]:8080/hush":           "http://[2001:db8::1]:8080/[redacted]",
		"https://Hooks.Example.com:443":            "https://hooks.example.com/[redacted]",
	} {
		u := parsed(t, text)
		if u.String() != shown || u.text.Reveal() != text {
			t.Errorf("%s is shown as %s; want %s", text, u, shown)
		}
		target := Target{URL: u, Secret: redact.NewSecret("hush")}
		encoded, err := json.Marshal(target)
		if all := fmt.Sprintf("%v %+v %#v %s %s %v", target, target, target, &u, encoded, err); strings.Contains(all, "hush") {
			t.Errorf("shown in %s", all)
		}
	}
	for _, text := range []any{"", "hush", "hush.example.com/x", "ftp://hush.example.com/", "https://", "https:///hush", "https://u:hush@a.example.com/",
		"https://a.example.com/#hush", "https://127.1/hush", "https://a.example.com:0/hush", "https://a.example.com/a hush",
		"https://hush\n.example.com/",
		"mailto:hush@example.com", "https://a%2eb.example.com/hush", int64(5), nil, []any{"https://a.example.com/"}} {
		var u URL
		if err := u.DecodeSetting(text); err == nil || strings.Contains(err.Error(), "hush") || !u.IsZero() || u.String() != "" {
			t.Errorf("%v: %v", text, err)
		}
	}
}

// FuzzURL: what is taken is shown without what stands behind its host, and is what would be connected to.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://a.example.com/x", "http://[::1]:1/", "https://a@b/", "https://a.example.com:99999/",
		"//x", "https://ex%61mple.com/", "https:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var u URL
		if u.DecodeSetting(s) != nil {
			return
		}
		var again URL
		if err := again.DecodeSetting(strings.TrimSuffix(u.String(), redact.Placeholder)); err != nil || again.authority != u.authority {
			t.Errorf("%q is shown as %s: %v", s, u, err)
		}
	})
}

func TestValidate(t *testing.T) {
	valid := Target{URL: parsed(t, "https://a.example.com/"), Secret: redact.NewSecret("whsec_" + strings.Repeat("A", 32))}
	if faults := (Config{"ops": valid, "a.b-c_9": valid}).Validate(); len(faults) > 0 {
		t.Error(faults)
	}
	many := Config{}
	for i := range maxTargets + 1 {
		many[fmt.Sprint("t", i)] = valid
	}
	edit := func(f func(*Target)) Config { c := valid; f(&c); return Config{"ops": c} }
	for want, c := range map[string]Config{
		`has 33 targets`:                         many,
		`["-x"]: a target's name`:                {"-x": valid},
		`["a b"]: a target's name`:               {"a b": valid},
		`["ops"].url: is missing`:                {"ops": {}},
		`["ops"].secret: is not base64`:          edit(func(t *Target) { t.Secret = redact.NewSecret("!hush") }),
		`["ops"].secret: holds 12 bytes`:         edit(func(t *Target) { t.Secret = redact.NewSecret("QUFBQUFBQUFBQUFB") }),
		`["ops"].secret: holds 66 bytes`:         edit(func(t *Target) { t.Secret = redact.NewSecret(strings.Repeat("A", 88)) }),
		`["ops"].events[1]: must be one of brea`: edit(func(t *Target) { t.Events = []string{GateClosed, "gate.ajar"} }),
	} {
		faults := c.Validate()
		if len(faults) != 1 || !strings.HasPrefix(faults[0].Error(), want) || strings.Contains(faults[0].Error(), "hush") {
			t.Errorf("%v; want %s", faults, want)
		}
	}
}

func TestWords(t *testing.T) {
	var f Format
	if f.String() != "json" || f.DecodeSetting("slack") != nil || f != Slack || f.DecodeSetting("xml") == nil || f.DecodeSetting(int64(1)) == nil {
		t.Error(f)
	}
	var d Timeout
	if d.String() != "10s" || d.DecodeSetting("2s") != nil || d.String() != "2s" {
		t.Error(d)
	}
	for _, bad := range []any{"", "1ms", "2m", int64(5), "x", nil} {
		if d.DecodeSetting(bad) == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}
