package daemon

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// cases are how many requests are compared in each way.
const cases = 500

// trip is a request and the answer that an upstream gives to it.
type trip struct{ request, answer string }

// trips makes well-formed exchanges of all kinds, always the same ones. {T} stands for what comes before the target, {H} for the host.
func trips() []trip {
	r := rand.New(rand.NewPCG(1, 2)) // the same in every run
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	all := make([]trip, cases)
	for i := range all {
		method := pick("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT")
		var b strings.Builder
		fmt.Fprintf(&b, "%s {T}/%s HTTP/1.1\r\nHost: {H}\r\nX-Case: %d\r\n", method, path(r), i)
		for range r.IntN(6) {
			b.WriteString(pick("Accept: */*\r\n", "Accept-Encoding: gzip, br\r\n", "Cookie: a=b; c=d\r\n", "X-Long: "+strings.Repeat("x", r.IntN(3000))+"\r\n", "Pragma: no-cache\r\n", "x-lower: 1\r\n",
				"X-Twice: 1\r\nX-Twice: 2\r\n", "X-Empty:\r\n", "X-Latin: caf\xe9\r\n", "X_Under: 1\r\n", "Range: bytes=0-9\r\n", "If-None-Match: \"x\"\r\n", "Authorization: Basic eDp5\r\n", "User-Agent: test/1\r\n",
				"X-Tab: a\tb\r\n", "Content-Type: application/json\r\n", "Referer: http://example.com/?q=1\r\n", "Forwarded: for=192.0.2.1\r\n"))
		}
		b.WriteString(requestBodyOf(r, method))
		all[i] = trip{b.String(), answerOf(r, method)}
	}
	return all
}

func path(r *rand.Rand) string {
	pieces := []string{"a", "b.c", "~x", "%2F", "%20", "caf%C3%A9", "a;b=c", "a@b", "a:b", "a,b", "$&+", "!'()*", "a/./b", "a//b", "a=b"}
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString(pieces[r.IntN(len(pieces))] + "/")
	}
	return b.String() + []string{"", "?", "?a=b", "?a=%20b+c", "?q=a/b?c", "?x[]=1", "?a&b", "?'"}[r.IntN(8)]
}

func requestBodyOf(r *rand.Rand, method string) string {
	if method == "GET" || method == "HEAD" || method == "OPTIONS" {
		return "\r\n"
	}
	body := strings.Repeat("0123456789", []int{0, 1, 100, 2000}[r.IntN(4)])
	if r.IntN(2) == 0 {
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	head, tail := "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"
	if r.IntN(2) == 0 {
		head, tail = head+"Trailer: X-Sum\r\n", "0\r\nX-Sum: 1\r\n\r\n"
	}
	return head + "\r\n" + chunked(r, body) + tail
}

func chunked(r *rand.Rand, body string) string {
	var b strings.Builder
	for body != "" {
		n := min(len(body), 1+r.IntN(3000))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String()
}

func answerOf(r *rand.Rand, method string) string {
	status := []int{200, 200, 200, 201, 204, 206, 301, 304, 400, 401, 404, 409, 500}[r.IntN(13)]
	var b strings.Builder
	if r.IntN(10) == 0 {
		b.WriteString("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for range r.IntN(5) {
		b.WriteString([]string{"Content-Type: text/plain\r\n", "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n", "etag: W/\"x\"\r\n", "Cache-Control: no-store\r\n", "X-Empty:\r\n", "Content-Encoding: gzip\r\n",
			"Location: http://example.com/\r\n", "X-Long: " + strings.Repeat("y", r.IntN(3000)) + "\r\n", "WWW-Authenticate: Basic realm=\"x\"\r\n", "Server: test\r\n", "Vary: Accept\r\n"}[r.IntN(11)])
	}
	body := strings.Repeat("abcdefghij", []int{0, 1, 300, 9000}[r.IntN(4)])
	switch {
	case status == 204 || status == 304:
		return b.String() + "\r\n"
	case method == "HEAD":
		return b.String() + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	case r.IntN(3) == 0:
		tail := "0\r\n\r\n"
		if r.IntN(2) == 0 {
			b.WriteString("Trailer: X-Sum\r\n")
			tail = "0\r\nX-Sum: 1\r\n\r\n"
		}
		return b.String() + "Transfer-Encoding: chunked\r\n\r\n" + chunked(r, body) + tail
	}
	return b.String() + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// seenRequest is what an upstream received, without what a proxy may change.
func seenRequest(t *testing.T, raw string) string {
	t.Helper()
	line, _, _ := strings.Cut(raw, "\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	r.Header.Del("Via")
	if r.ContentLength == 0 && onStandard() {
		r.Header.Del("Content-Length") // net/http says it with some methods only
	}
	if onStandard() || !strings.Contains(strings.ToLower(raw), "cache-control:") {
		r.Header.Del("Cache-Control") // net/http invents one beside Pragma
	}
	if agents := r.Header["User-Agent"]; onStandard() && len(agents) > 1 {
		r.Header["User-Agent"] = agents[:1] // net/http sends one
	}
	return fmt.Sprintf("%s\n%s\nlength %d %v\ntrailer %s\n%s", line, fieldsOf(r.Header), r.ContentLength, r.TransferEncoding, fieldsOf(r.Trailer), body)
}

// seenAnswer is what a client received, without what a proxy may add.
func seenAnswer(t *testing.T, r *bufio.Reader, method string) string {
	t.Helper()
	informational := ""
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Via", "Date", "Httpowerd-Request-Id"} {
			resp.Header.Del(name)
		}
		if onStandard() && resp.StatusCode == http.StatusNotModified {
			resp.Header.Del("Content-Type") // net/http takes it away
		}
		if method != http.MethodHead && len(resp.Trailer) == 0 && resp.StatusCode != http.StatusNotModified { // chunks and a length are the same where the body is
			resp.Header.Del("Content-Length")
			resp.ContentLength, resp.TransferEncoding = 0, nil
		}
		if resp.StatusCode < 200 {
			informational += fmt.Sprintf("%d %s\n", resp.StatusCode, fieldsOf(resp.Header))
			continue
		}
		return fmt.Sprintf("%s%d\n%s\nlength %d %v\ntrailer %s\n%s", informational, resp.StatusCode, fieldsOf(resp.Header), resp.ContentLength, resp.TransferEncoding, fieldsOf(resp.Trailer), body)
	}
}

func fieldsOf(h http.Header) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "%s: %q; ", name, h[name])
	}
	return b.String()
}

// TestDifferential: the same requests, sent straight and in every way through the proxy, reach the upstream as the same requests and come back with the same answers, but for the
// fields that the contract lets a proxy add.
func TestDifferential(t *testing.T) {
	all := trips()
	answers := func(_ int, request string) string {
		_, rest, _ := strings.Cut(request, "X-Case: ")
		n, err := strconv.Atoi(rest[:strings.Index(rest, "\r\n")])
		if err != nil {
			return "<close>"
		}
		return all[n].answer
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	straight := &way{name: "straight", origin: serveRaw(t, l, answers)}
	straight.open = func() *rawClient {
		c, err := net.Dial("tcp", straight.origin.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return &rawClient{Conn: c, t: t, r: bufio.NewReader(c)}
	}
	type view struct{ request, answer string }
	run := func(t *testing.T, w *way) []view {
		c := w.open()
		views := make([]view, len(all))
		for i, trip := range all {
			c.send(w.text(trip.request))
			method, _, _ := strings.Cut(trip.request, " ")
			views[i].answer = seenAnswer(t, c.r, method)
		}
		for i, raw := range w.origin.requests() {
			views[i].request = strings.ReplaceAll(seenRequest(t, raw), w.origin.addr, "{H}")
		}
		return views
	}
	want := run(t, straight)
	for _, w := range scriptedWays(t, "retry: off, breaker: off", answers) {
		t.Run(w.name, func(t *testing.T) {
			for i, got := range run(t, w) {
				if got.request != want[i].request {
					t.Errorf("%q\nthe upstream received\n%s\nwant\n%s", all[i].request, got.request, want[i].request)
				}
				if got.answer != want[i].answer {
					t.Errorf("%q answered with %.200q\nthe client received\n%.500s\nwant\n%.500s", all[i].request, all[i].answer, got.answer, want[i].answer)
				}
			}
		})
	}
}
