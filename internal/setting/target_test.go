package setting

import "testing"

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]Target{
		"syslog+unix:///dev/log":             {SyslogUnix, "/dev/log", ""},
		"syslog+udp://logs.example.com":      {SyslogUDP, "logs.example.com:514", ""},
		"syslog+tcp://[2001:db8::1]":         {SyslogTCP, "[2001:db8::1]:601", ""},
		"syslog+tls://logs.example.com:7":    {SyslogTLS, "logs.example.com:7", ""},
		"otlp+http://127.0.0.1":              {OTLPHTTP, "127.0.0.1:4318", "/v1/logs"},
		"otlp+https://otel.example.com/a%2f": {OTLPHTTPS, "otel.example.com:4318", "/a%2f"},
	} {
		got, err := ParseTarget(text)
		if err != nil || got != want || !IsTarget(text) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
		if private := want.Scheme == SyslogUnix || want.Scheme == SyslogTLS || want.Scheme == OTLPHTTPS || text == "otlp+http://127.0.0.1"; got.Private() != private {
			t.Errorf("%s: private is %v", text, got.Private())
		}
	}
	for _, text := range []string{"audit.jsonl", "syslog+unix://dev/log", "syslog+unix:///", "syslog+tcp://", "syslog+tcp://u:p@h", "syslog+tcp://h/x",
		"otlp+http://h?x=1", "http://h", "syslog+tcp://h:0", "syslog+tcp://h:99999", "syslog+tcp://h\n", "otlp+http://h#x"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q is taken: %+v", text, got)
		}
	}
}
