package audit

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// exchangeLine is the record of x without a chain.
func exchangeLine(x *exchange.Exchange, e *Extra) string {
	r := record{redactor: redact.Default()}
	return string(r.appendExchange(nil, x, e)) + "}"
}

func TestExchangeRecord(t *testing.T) {
	begin := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	x := &exchange.Exchange{ID: "id-1", TraceID: "0af7651916cd43dd8448eb211c80319c", Kind: exchange.KindRequest, Mode: exchange.ModeIntercept, Start: begin,
		Client: "192.0.2.7:40112", Tenant: "billing", Method: "POST", URL: "https://api.example.com/v1/pay?x=1",
		Target: exchange.Authority{Host: "api.example.com", Port: 443}, Policy: "api.example.com#pay", Host: "api.example.com"}
	i := x.BeginAttempt(begin)
	x.Connected(i, "198.51.100.20:443", false)
	x.EndAttempt(i, begin.Add(1500*time.Microsecond), 503, "")
	x.NextAttempt("status", 40*time.Millisecond)
	i = x.BeginAttempt(begin.Add(50 * time.Millisecond))
	x.EndAttempt(i, begin.Add(52*time.Millisecond), 0, exchange.UpstreamReset)
	x.NextAttempt("reset", 0)
	i = x.BeginAttempt(begin.Add(60 * time.Millisecond))
	x.Connected(i, "198.51.100.21:443", true)
	x.EndAttempt(i, begin.Add(61*time.Millisecond), 502, "")
	x.Waited(12345678 * time.Nanosecond)
	x.Observe("rate_limited")
	x.Update(func(s *exchange.Story) {
		s.Status, s.StatusBy, s.Outcome, s.Detail = 502, "upstream", exchange.UpstreamError, "the last attempt"
		s.Overhead, s.Breaker, s.NotRetried = 250*time.Microsecond, "half_open", "attempts"
		s.BytesIn, s.BytesOut, s.Unapplied = 10, 20, []string{"cache", "hooks"}
	})
	got := exchangeLine(x, &Extra{End: begin.Add(1234567890 * time.Nanosecond),
		RequestHeader: http.Header{"Content-Type": {"text/plain"}, "Accept": {"*/*", "text/html"}}, ResponseHeader: http.Header{},
		RequestType: "text/plain", RequestBody: []byte("a \"body\"\n"), RequestTruncated: true, ResponseType: "text/plain", ResponseBody: []byte{}})
	parts := []string{
		`{"time":"2026-03-04T05:06:08.234567890Z"`, `"id":"id-1"`, `"trace_id":"0af7651916cd43dd8448eb211c80319c"`, `"kind":"request"`,
		`"tenant":"billing"`, `"client":"192.0.2.7:40112"`, `"method":"POST"`, `"url":"https://api.example.com/v1/pay?x=1"`, `"host":"api.example.com"`,
		`"policy":"api.example.com#pay"`, `"mode":"intercept"`, `"status":502`, `"status_by":"upstream"`, `"outcome":"upstream_error"`,
		`"detail":"the last attempt"`,
		`"attempts":[{"n":1,"status":503,"wait_ms":0,"duration_ms":1.5,"address":"198.51.100.20:443"}`,
		`{"n":2,"error":"upstream_reset","wait_ms":40,"duration_ms":2,"reason":"status"}`,
		`{"n":3,"status":502,"wait_ms":0,"duration_ms":1,"reason":"reset","address":"198.51.100.21:443","reused":true}]`,
		`"duration_ms":1234.568`, `"overhead_ms":0.25`, `"limit_wait_ms":12.346`, `"request_bytes":10`, `"response_bytes":20`, `"breaker":"half_open"`,
		`"not_retried":"attempts"`, `"observed":["rate_limited"]`, `"unapplied":["cache","hooks"]`,
		`"request_headers":{"Accept":["*/*","text/html"],"Content-Type":["text/plain"]}`, `"response_headers":{}`,
		`"request_body":"a \"body\"\n"`, `"request_body_truncated":true`, `"response_body":""}`,
	}
	want(t, "record", got, strings.Join(parts, ","))
}

// TestHostInItsCase: a secret that its case gives away is hidden in the host, too, which is in lower case otherwise.
func TestHostInItsCase(t *testing.T) {
	key := "AKIA" + "Q3EGUYTRBW7KXJ2M"
	for _, url := range []string{key + ".test:443", "http://" + key + ".test/x"} {
		got := exchangeLine(&exchange.Exchange{Kind: exchange.KindTunnel, Method: "CONNECT", URL: url, Target: exchange.Authority{Host: strings.ToLower(key) + ".test", Port: 443}}, &Extra{})
		if strings.Contains(strings.ToLower(got), strings.ToLower(key[4:])) || !strings.Contains(got, `.test"`) {
			t.Errorf("%s: %s", url, got)
		}
	}
	got := exchangeLine(&exchange.Exchange{Kind: exchange.KindTunnel, Method: "CONNECT", URL: "API.Example.com:443", Target: exchange.Authority{Host: "api.example.com", Port: 443}}, &Extra{})
	if !strings.Contains(got, `"host":"api.example.com"`) {
		t.Error(got)
	}
}

// TestShortestRecord: what is not known is not there.
func TestShortestRecord(t *testing.T) {
	end := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	x := &exchange.Exchange{Kind: exchange.KindTunnel, Start: end}
	want(t, "record", exchangeLine(x, &Extra{End: end}),
		`{"time":"2026-03-04T04:06:07.000000000Z","kind":"tunnel","duration_ms":0,"overhead_ms":0,"limit_wait_ms":0,"request_bytes":0,"response_bytes":0}`)
}

type stringer struct{}

func (stringer) String() string { return "a stringer" }

func TestEventRecord(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	r := record{redactor: redact.Default()}
	got := string(r.appendEvent(nil, now, KindAdmin, []slog.Attr{
		slog.String("event", "breaker \x1b[31mset"), slog.Bool("ok", true), slog.Int("n", -3), slog.Uint64("u", 1<<63), slog.Float64("f", 0.5),
		slog.Duration("took_ms", 1500*time.Microsecond), slog.Time("at", now), slog.Group("g", slog.String("a", "b"), slog.Int("c", 1)),
		slog.Any("nil", nil), slog.Any("list", []string{"a", "b"}), slog.Any("none", []string(nil)), slog.Any("error", errors.New("bad")),
		slog.Any("s", stringer{}), slog.String("", "no key"),
	})) + "}"
	want(t, "record", got, `{"time":"2026-03-04T05:06:07.000000008Z","kind":"admin","event":"breaker \u001b[31mset","ok":true,"n":-3,"u":9223372036854775808,`+
		`"f":0.5,"took_ms":1.5,"at":"2026-03-04T05:06:07.000000008Z","g":{"a":"b","c":1},"nil":null,"list":["a","b"],"none":[],"error":"bad","s":"a stringer"}`)
}

func TestStrings(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 9, `""`},
		{"plain ~", 9, `"plain ~"`},
		{"a\"b\\c", 9, `"a\"b\\c"`},
		{"a\r\n\tb", 9, `"a\r\n\tb"`},
		{"\x00\x1f\x7f", 9, `"\u0000\u001f\u007f"`},
		{"é€😀", 99, `"é€😀"`},
		{"\u0085\u2028\u202e\ufeff", 99, `"\u0085\u2028\u202e\ufeff"`}, // ends a line, or turns the reading direction
		{"\U000e0041", 99, `"\udb40\udc41"`},                           // an invisible tag character
		{"a\xffb\xc3", 99, `"a\ufffdb\ufffd"`},
		{"\xed\xa0\x80", 99, `"\ufffd\ufffd\ufffd"`}, // a surrogate in UTF-8
		{"abcdef", 3, `"abc…"`},
		{"ab€", 3, `"ab…"`}, // not within a character
		{"\x80\x80\x80\x80\x80", 4, `"…"`},
		{"abc", 0, `"…"`},
	} {
		want(t, "of "+c.in, string(appendString(nil, c.in, c.limit)), c.want)
	}
}

func TestNumbers(t *testing.T) {
	for in, out := range map[time.Duration]string{
		0: "0", time.Millisecond: "1", 1500 * time.Microsecond: "1.5", 1230 * time.Microsecond: "1.23", 1001 * time.Microsecond: "1.001",
		499 * time.Nanosecond: "0", 501 * time.Nanosecond: "0.001", -1500 * time.Microsecond: "-1.5", time.Hour: "3600000",
	} {
		want(t, in.String(), string(appendMillis(nil, in)), out)
	}
}

// TestBounds: no part of a record is longer than its bound, and all of them together fit into a line.
func TestBounds(t *testing.T) {
	worst := func(n int) string { return strings.Repeat("\x01", n) }
	long := worst(1 << 20)
	header := http.Header{}
	for i := range 300 {
		name := "X-" + strings.Repeat("N", i)
		for range 250 {
			header[name] = append(header[name], long[:5000])
		}
	}
	x := &exchange.Exchange{ID: long, TraceID: long, Client: long, Tenant: long, Method: long, URL: "http://api.example.com/" + long, Policy: long,
		Target: exchange.Authority{Host: long}}
	for range 300 {
		i := x.BeginAttempt(time.Time{})
		x.Connected(i, long, false)
		x.Observe(long)
	}
	x.Update(func(s *exchange.Story) { s.Detail = long })
	body := []byte(worst(17 << 20))
	got := exchangeLine(x, &Extra{RequestHeader: header, ResponseHeader: header, RequestType: "text/plain", RequestBody: body, ResponseType: "text/plain", ResponseBody: body})
	if len(got)+linkSize > maxLine {
		t.Errorf("%d bytes", len(got))
	}
	m := decode(t, got)
	if n := len(m["id"].(string)); n > maxID+len("…") {
		t.Errorf("an id of %d bytes", n)
	}
	want(t, "attempts", len(m["attempts"].([]any)), maxAttempts)
}

// FuzzRecord: whatever the traffic holds, a record is one line of valid JSON in valid UTF-8 without control characters, and its end is the chain's.
func FuzzRecord(f *testing.F) {
	f.Add("id", "GET", "http://example.com/?q=1", "detail", "X-Name", "value", "text/plain", []byte("body"))
	f.Add("\"}\n{\"time\":\"", "G\x00T", "http://[::1\x1b]/\xff\u202e", "\u2028", "a\r\nb", "\\\x7f", "application/json", []byte("{\"a\":\"\xff\n\"}"))
	f.Add("\",\"hash\":\"00", "P\"", "%%%", "\ud7ff\xed\xa0\x80", "\xc3", "\xf0\x9f", "multipart/form-data; boundary=x", []byte("--x\r\n\r\n\x00"))
	f.Add("", "", "", "", "", "", "application/x-www-form-urlencoded", []byte("a=%ff&b=\xe2\x80\xae"))
	f.Fuzz(func(t *testing.T, id, method, url, text, name, value, kind string, body []byte) {
		x := &exchange.Exchange{ID: id, TraceID: text, Kind: exchange.Kind(method), Mode: exchange.Mode(value), Client: value, Tenant: text, Method: method, URL: url,
			Policy: name, Target: exchange.Authority{Host: url}}
		i := x.BeginAttempt(time.Time{})
		x.Connected(i, value, true)
		x.EndAttempt(i, time.Time{}, 0, exchange.Code(text))
		x.Observe(text)
		x.Update(func(s *exchange.Story) {
			s.Detail, s.Outcome, s.StatusBy, s.Breaker = text, exchange.Code(name), value, method
		})
		h := http.Header{name: {value, text}}
		line := exchangeLine(x, &Extra{RequestHeader: h, ResponseHeader: h, RequestType: kind, RequestBody: body, ResponseType: kind, ResponseBody: body, RequestTruncated: len(body)%2 == 0})
		checkLine(t, line)
		r := record{redactor: redact.Default()}
		event := r.appendEvent(nil, time.Time{}, method, []slog.Attr{slog.String(name, text), slog.Any("x"+name, []string{value, id})})
		sealed, next := genesis().seal(event, 0)
		checkLine(t, string(sealed))
		if got, ok := after(sealed); !ok || got != next {
			t.Errorf("the chain does not go on behind %q", sealed)
		}
	})
}

func checkLine(t *testing.T, line string) {
	t.Helper()
	if !json.Valid([]byte(line)) || !utf8.ValidString(line) {
		t.Fatalf("not JSON: %q", line)
	}
	for _, r := range line {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e {
			t.Fatalf("%U stands in %q", r, line)
		}
	}
	if !looksRight([]byte(line)) {
		t.Fatalf("not a record: %q", line)
	}
}
