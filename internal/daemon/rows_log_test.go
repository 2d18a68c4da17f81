package daemon

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// checkLines checks that each line of a log is one JSON object of bounded length that shows nothing but printable text, and returns them.
func checkLines(t *testing.T, where, text string, longest int) []record {
	t.Helper()
	if !utf8.ValidString(text) || text != "" && !strings.HasSuffix(text, "\n") {
		t.Errorf("%s is not whole lines of UTF-8", where)
	}
	var out []record
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Errorf("%s: %v: %.300q", where, err, line)
		}
		if len(line) > longest {
			t.Errorf("%s: a line of %d bytes: %.200q", where, len(line), line)
		}
		if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%s: %q stands in a line: %.300q", where, line[i:min(len(line), i+4)], line)
		}
		out = append(out, r)
	}
	return out
}

// forged is what no line may show: an attacker's own record.
const forged = `{"time":"2020-01-01T00:00:00Z","kind":"forged"}`

// TestLogInjection: whatever a client writes as method, host, path, field or id, each line of the audit trail and of the daemon's log is one JSON object that shows
// it escaped and cut; none of its bytes begins a line or moves a cursor (A48).
func TestLogInjection(t *testing.T) {
	evil := map[string]string{
		"CR and LF": "a\r\n" + forged + "\r\n", "LF": "a\n" + forged + "\n", "ANSI": "\x1b[2J\x1b[1;31mred\x07", "C1": "\u009b31m", "quotes": `a","kind":"forged","b":"`,
		"brace": `a"}` + forged, "backslash": `a\`, "NUL": "a\x00b", "bidi": "a\u202egnp.exe\u2066", "separators": "a\u2028b\u2029c\u0085d", "no UTF-8": "a\xff\xfe\xc3(",
		"surrogate": "a\xed\xa0\x80", "tags": "a\U000e0041\ufeff\u200b", "long": strings.Repeat("a", 60_000), "DEL": "a\x7f",
	}
	for _, w := range ways(t, "audit: {headers: true}", okAnswer) {
		n := 0
		for name, text := range evil {
			for place, head := range map[string]string{
				"method": text + " {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n", "path": "GET {T}/" + text + " HTTP/1.1\r\nHost: {H}\r\n\r\n",
				"query": "GET {T}/?q=" + text + " HTTP/1.1\r\nHost: {H}\r\n\r\n", "host": "GET {T}/ HTTP/1.1\r\nHost: " + text + "\r\n\r\n",
				"target": "GET http://" + text + "/ HTTP/1.1\r\nHost: {H}\r\n\r\n", "agent": "GET {T}/ HTTP/1.1\r\nHost: {H}\r\nUser-Agent: " + text + "\r\n\r\n",
				"name": "GET {T}/ HTTP/1.1\r\nHost: {H}\r\n" + text + ": 1\r\n\r\n", "id": "GET {T}/ HTTP/1.1\r\nHost: {H}\r\nX-Request-Id: " + text + "\r\n\r\n",
			} {
				if place == "method" && w.name == "plaintext in a tunnel" {
					continue // what does not begin like HTTP is not looked at there
				}
				c := w.open()
				c.send(w.text(head))
				if resp, err := http.ReadResponse(c.r, nil); err != nil {
					t.Errorf("%s, %s in the %s: no answer: %v", w.name, name, place, err)
				} else if id := resp.Header.Get("Httpowerd-Request-Id"); id == "" || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
					t.Errorf("%s, %s in the %s: the id is %q", w.name, name, place, id)
				}
				c.Close()
				n++
			}
		}
		w.box.stop()
		audit, err := os.ReadFile(w.box.audit)
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		for _, r := range checkLines(t, w.name+", the trail", string(audit), 80<<10) {
			kinds[r.text("kind")]++
		}
		if kinds["request"] < n || kinds["forged"] > 0 || kinds[""] > 0 {
			t.Errorf("%s: %d requests, and records of %v", w.name, n, kinds)
		}
		checkLines(t, w.name+", the log", w.box.log.String(), 80<<10)
	}
}

// TestLogInjectionByConnect: the same for CONNECT, and for names that a ClientHello shows (A48).
func TestLogInjectionByConnect(t *testing.T) {
	b := start(t, "log: {level: debug}\nhosts: {127.0.0.1: {tls: intercept}}\n")
	for _, text := range []string{"a\u202eb", "a\x1b[2J", `a","b":"`, "a\xff", strings.Repeat("a", 60_000), strings.Repeat("a.", 120) + "example.com", "a\r\n" + forged} {
		c := b.dialProxy()
		c.send("CONNECT " + text + ":443 HTTP/1.1\r\nHost: " + text + "\r\n\r\n")
		_, _ = http.ReadResponse(c.r, &http.Request{Method: http.MethodConnect})
		c.Close()
		c = b.dialProxy()
		c.connect("127.0.0.1:1")
		c.send(helloNaming(text))
		c.rest()
		c.Close()
	}
	b.stop()
	audit, err := os.ReadFile(b.audit)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range checkLines(t, "the trail", string(audit), 80<<10) {
		if r["kind"] == "forged" {
			t.Errorf("a forged record: %v", r)
		}
	}
	checkLines(t, "the log", b.log.String(), 80<<10)
}

// helloNaming is a TLS record with a ClientHello that names a host, as it is.
func helloNaming(name string) string {
	if len(name) > 2000 {
		name = name[:2000]
	}
	size := func(n int) string { return string([]byte{byte(n >> 8), byte(n)}) }
	entry := "\x00" + size(len(name)) + name
	list := size(len(entry)) + entry
	extension := "\x00\x00" + size(len(list)) + list
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" + size(len(extension)) + extension
	return "\x16\x03\x01" + size(len(body)+4) + "\x01\x00" + size(len(body)) + body
}

// TestLogInjectionByUpstream: nor does what an upstream answers write lines of its own (A48).
func TestLogInjectionByUpstream(t *testing.T) {
	answers := map[string]string{}
	for name, text := range map[string]string{"ansi": "\x1b[2J", "bidi": "\u202e\u2066", "utf": "\xff\xc3", "json": `","kind":"forged`, "long": strings.Repeat("a", 50_000)} {
		answers["status-"+name] = "HTTP/1.1 200 " + text + "\r\nContent-Length: 0\r\n\r\n"
		answers["field-"+name] = "HTTP/1.1 200 OK\r\nX-A: " + text + "\r\nContent-Length: 0\r\n\r\n"
		answers["framing-"+name] = "HTTP/1.1 200 OK\r\nContent-Length: " + text + "\r\n\r\n"
		answers["garbage-"+name] = text + "\r\n" + forged + "\n\n<close>"
		answers["behind-"+name] = okAnswer + text + "\n" + forged + "\n"
	}
	for _, w := range scriptedWays(t, "audit: {headers: true}, retry: off, breaker: off", byName(answers)) {
		for name := range answers {
			c := w.open()
			c.send(w.text("GET {T}/" + name + " HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			_, _ = http.ReadResponse(c.r, nil)
			c.Close()
		}
		w.box.stop()
		audit, _ := os.ReadFile(w.box.audit)
		records := checkLines(t, w.name+", the trail", string(audit), 80<<10)
		if slices.ContainsFunc(records, func(r record) bool { return r["kind"] == "forged" }) || len(records) < len(answers) {
			t.Errorf("%s: %d records", w.name, len(records))
		}
		checkLines(t, w.name+", the log", w.box.log.String(), 80<<10)
	}
}
