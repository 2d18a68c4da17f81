package daemon

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// posing are fields that mean something else, or somebody else, in front of a body.
var posing = []string{"Authorization", "Cookie", "Set-Cookie", "Host", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded",
	"Proxy-Authorization", "Proxy-Authenticate", "Proxy", "X-Api-Key", "Connection", "Keep-Alive", "Te", "Upgrade", "Expect", "Max-Forwards", "Range", "If-Match",
	"Cache-Control", "Pragma", "Vary", "Age", "Expires", "Date", "Location", "Retry-After", "Www-Authenticate", "Via", "Content-Type", "Content-Encoding",
	"Content-Range", "Idempotency-Key", "Httpowerd-Error", "Httpowerd-Request-Id", "X_Forwarded_For", "X.Api.Key", "Content_Length"}

// trailing are fields that are meant to come behind one.
var trailing = []string{"Grpc-Message", "Grpc-Status", "Grpc-Status-Details-Bin", "Content-Digest", "Etag", "Server-Timing", "X-Amz-Checksum-Crc32", "X-Sum"}

// trailersOf are the names behind a chunked body, in order.
func trailersOf(text string) []string {
	_, section, _ := strings.Cut(text, "\r\n0\r\n")
	var names []string
	for line := range strings.Lines(strings.TrimSuffix(section, "\r\n")) {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return names
}

func lower(names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, strings.ToLower(n))
	}
	slices.Sort(out)
	return out
}

// TestTrailersThatPose: what poses as a header behind a body reaches neither the upstream nor the client, announced or not, and what belongs there does (A38).
func TestTrailersThatPose(t *testing.T) {
	section := func(names ...string) string {
		var b strings.Builder
		for _, n := range names {
			b.WriteString(n + ": 1\r\n")
		}
		return b.String() + "\r\n"
	}
	all := slices.Concat(posing, trailing)
	for name, announced := range map[string][]string{"all announced": all, "ordinary ones announced": trailing} {
		answer := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: " + strings.Join(announced, ", ") + "\r\n\r\n2\r\nok\r\n0\r\n" + section(all...)
		for _, w := range ways(t, "", answer) {
			c := w.open()
			c.send(w.text("POST {T}/ HTTP/1.1\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\nTrailer: "+strings.Join(announced, ", ")+"\r\n\r\n4\r\nbody\r\n0\r\n") +
				section(append([]string{"Content-Length", "Transfer-Encoding"}, all...)...))
			a := c.answer(http.MethodPost)
			sent := w.origin.requests()
			if len(sent) != 1 || a.body != "ok" {
				t.Fatalf("%s, %s: %s %s, the upstream received %q", w.name, name, a.Status, a.body, sent)
			}
			if got := trailersOf(sent[0]); !slices.Equal(got, lower(trailing)) {
				t.Errorf("%s, %s: the upstream received the trailers %q", w.name, name, got)
			}
			head, _, _ := strings.Cut(sent[0], "\r\n\r\n")
			for line := range strings.Lines(head) {
				if names, ok := strings.CutPrefix(strings.TrimSpace(line), "Trailer: "); ok && !slices.Equal(lower(strings.Split(strings.ReplaceAll(names, " ", ""), ",")), lower(trailing)) {
					t.Errorf("%s, %s: the upstream is told of %s", w.name, name, line)
				}
			}
			if got := lower(keys(a.Trailer)); !slices.Equal(got, lower(trailing)) {
				t.Errorf("%s, %s: the client received the trailers %q", w.name, name, got)
			}
			w.record().want(t, map[string]any{"outcome": "ok", "mode": w.mode})
			if w.name != "intercepted" {
				continue
			}
			a = get(t, h2(w.box.client()), "https://"+w.origin.addr+"/")
			if got := lower(keys(a.Trailer)); a.ProtoMajor != 2 || a.body != "ok" || !slices.Equal(got, lower(trailing)) {
				t.Errorf("h2, %s: %s %q, the client received the trailers %q", name, a.Proto, a.body, got)
			}
		}
	}
}

// TestTrailersBesideHead: a field that stands in the head stays there, and one of its name behind the body comes there, announced or not, alone or among others (RFC 9110
// section 6.5.1).
func TestTrailersBesideHead(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer-Timing: cache;desc=hit\r\n"
	const content, late = "\r\n2\r\nok\r\n0\r\n", "Server-Timing: total;dur=5\r\n"
	for name, row := range map[string]struct{ answer, late, sum string }{
		"announced":     {head + "Trailer: Server-Timing\r\n" + content + late + "\r\n", "total;dur=5", ""},
		"unannounced":   {head + content + late + "\r\n", "total;dur=5", ""},
		"with another":  {head + "Trailer: X-Sum, Server-Timing\r\n" + content + late + "X-Sum: 1\r\n\r\n", "total;dur=5", "1"},
		"the other":     {head + "Trailer: X-Sum, Server-Timing\r\n" + content + "X-Sum: 1\r\n\r\n", "", "1"},
		"does not come": {head + "Trailer: Server-Timing\r\n" + content + "\r\n", "", ""},
	} {
		check := func(way string, a answer) {
			if got := a.Header["Server-Timing"]; a.body != "ok" || !slices.Equal(got, []string{"cache;desc=hit"}) {
				t.Errorf("%s, %s: %q, the head has %q", way, name, a.body, got)
			}
			if got, sum := a.Trailer.Get("Server-Timing"), a.Trailer.Get("X-Sum"); got != row.late || sum != row.sum {
				t.Errorf("%s, %s: the trailers are %q", way, name, a.Trailer)
			}
		}
		for _, w := range ways(t, "", row.answer) {
			c := w.open()
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			check(w.name, c.answer(http.MethodGet))
			if w.name == "intercepted" {
				check("h2", get(t, h2(w.box.client()), "https://"+w.origin.addr+"/"))
			}
		}
	}
	addr := serveH2(t, h2Script{"/": {{":status", "200", "server-timing", "cache;desc=hit", "trailer", "server-timing"}, {"ok"}, {"server-timing", "total;dur=5"}}})
	b := start(t, "defaults: {upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
	for version, c := range map[string]*http.Client{"HTTP/1.1": b.client(), "HTTP/2": h2(b.client())} {
		a := get(t, c, "https://"+addr+"/")
		if a.body != "ok" || a.Header.Get("Server-Timing") != "cache;desc=hit" || a.Trailer.Get("Server-Timing") != "total;dur=5" {
			t.Errorf("from HTTP/2 to %s: %q, the head has %q, the trailers are %q", version, a.body, a.Header["Server-Timing"], a.Trailer)
		}
	}
}

func keys(h http.Header) []string {
	var names []string
	for name, values := range h {
		if len(values) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// TestTrailersThatPoseHTTP2: the same for requests in HTTP/2. Some of them end the stream there, and then the upstream has no whole request (A38).
func TestTrailersThatPoseHTTP2(t *testing.T) {
	w := ways(t, "", okAnswer)[3]
	sent := 0
	for _, name := range append(slices.Clone(posing), "Content-Length", "Trailer") {
		h := w.box.dialH2(w.origin.addr)
		h.request(1, false, ":method", "POST", ":scheme", "https", ":authority", w.origin.addr, ":path", "/", "trailer", strings.ToLower(name)+", x-sum")
		h.send(frame(frameData, 0, 1, "body"))
		h.request(1, true, strings.ToLower(name), "1", "x-sum", "1")
		body := h.body(1)
		h.Close()
		got := w.origin.requests()
		switch {
		case body == "ok" && len(got) == sent+1:
			if names := trailersOf(got[sent]); !slices.Equal(names, []string{"x-sum"}) || strings.Contains(got[sent], "Trailer: "+name) {
				t.Errorf("%s: the upstream received %q", name, got[sent])
			}
			sent++
		case body == "ok" || len(got) != sent:
			t.Errorf("%s: the client received %q, the upstream %q", name, body, got)
		}
	}
	if sent == 0 {
		t.Error("no request arrived")
	}
	h := w.box.dialH2(w.origin.addr)
	h.request(1, false, ":method", "POST", ":scheme", "https", ":authority", w.origin.addr, ":path", "/", "trailer", strings.ToLower(strings.Join(trailing, ",")))
	h.send(frame(frameData, 0, 1, "body"))
	var fields []string
	for _, name := range trailing {
		fields = append(fields, strings.ToLower(name), "1")
	}
	h.request(1, true, fields...)
	if body := h.body(1); body != "ok" || !slices.Equal(trailersOf(w.origin.requests()[sent]), lower(trailing)) {
		t.Errorf("%q, the upstream received %q", body, w.origin.requests()[sent:])
	}
}
