package daemon

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// pipesOpen counts the process's pipe ends. Idle ones are kept for the next transfer, so that only growth over many means something.
func pipesOpen(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// idlePipes is how many pipes are kept for the next transfer.
const idlePipes = 32

func random(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{7})
	_, _ = source.Read(b)
	return b
}

// spliceStages are policies whose stages all pass long bodies on unseen.
var spliceStages = map[string]string{
	"defaults": "",
	"all":      "defaults: {dedup: {}, hedge: {after: 5s}, concurrency: {max: 100}, rate_limit: {requests: 1000, per: 1s}}",
}

// TestSplicedAnswers: a long body arrives whole and is counted, whatever stages are on, and the connections on both sides go on to serve.
func TestSplicedAnswers(t *testing.T) {
	data := random(5 << 20)
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(data)
	}))
	t.Cleanup(o.Close)
	for name, config := range spliceStages {
		for _, body := range []string{"off", "response"} { // recorded bodies are read
			b := start(t, config+fmt.Sprintf("\nhosts: {127.0.0.1: {audit: {bodies: %s}}}\n", body))
			client := b.client()
			for i := range 3 {
				a := do(t, client, request(t, http.MethodGet, o.URL, ""))
				if a.StatusCode != http.StatusOK || a.body != string(data) {
					t.Fatalf("%s, recorded %s, %d: %s, %d of %d bytes, or others", name, body, i, a.Status, len(a.body), len(data))
				}
			}
			for i, r := range b.records(3) {
				r.want(t, map[string]any{"outcome": "ok", "status": 200, "response_bytes": float64(len(data))})
				if try := r["attempts"].([]any)[0].(map[string]any); i > 0 && try["reused"] != true {
					t.Errorf("%s: the upstream's connection was not kept: %v", name, try)
				}
			}
		}
	}
}

// TestSplicedMidway: what is under way in a pipe ends like any body: at the client's leaving, at the upstream's breaking off, and at its silence. No pipe is lost.
// On net/http's transport, which reads bodies into memory, they end the same way without one.
func TestSplicedMidway(t *testing.T) {
	const size, half = 8 << 20, 4 << 20
	first := half
	if onStandard() {
		first -= 8 << 10 // net/http's server has buffers that it sends when they are full
	}
	data := random(half)
	for name, c := range map[string]struct {
		config  string
		slowly  bool                        // the upstream goes on a byte at a time until all have read their half, which a busy machine takes its time for
		after   func(w http.ResponseWriter) // what it does then
		outcome string
	}{
		"the client leaves": {"", false, func(w http.ResponseWriter) {
			for range 64 {
				if _, err := w.Write(data[:64<<10]); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}, "client_gone"},
		"the upstream breaks off": {spliceStages["all"], false, func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "upstream_reset"},
		"the upstream is silent":  {"defaults: {timeout: {body_idle: 3s}}", true, func(http.ResponseWriter) { time.Sleep(4 * time.Second) }, "upstream_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			read := make(chan struct{})
			release := sync.OnceFunc(func() { close(read) })
			o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(data)
				for c.slowly {
					select {
					case <-read:
						c.after(w)
						return
					case <-time.After(300 * time.Millisecond):
						_, _ = w.Write(data[:1])
						w.(http.Flusher).Flush()
					}
				}
				<-read
				c.after(w)
			}))
			defer o.Close()
			defer release()
			b := start(t, c.config)
			var clients []*rawClient
			var answers []*http.Response
			for i := range idlePipes + 1 {
				client := b.dialProxy()
				client.send("GET " + o.URL + "/" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: " + o.Listener.Addr().String() + "\r\n\r\n")
				resp, err := http.ReadResponse(client.r, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, first)
				if _, err := io.ReadFull(resp.Body, got); err != nil || !bytes.Equal(got, data[:first]) {
					t.Fatalf("the first half: %v", err)
				}
				clients, answers = append(clients, client), append(answers, resp)
			}
			if n := pipesOpen(t); n < 2*len(clients) && !onStandard() {
				t.Errorf("%d pipe ends while %d bodies are under way", n, len(clients))
			}
			if name == "the client leaves" {
				for _, client := range clients {
					client.Close()
				}
			}
			release()
			for i, client := range clients {
				if rest, err := io.ReadAll(answers[i].Body); err == nil {
					t.Errorf("%d more bytes, and an end", len(rest))
				}
				client.Close()
			}
			for _, r := range b.records(len(clients)) {
				r.want(t, map[string]any{"outcome": c.outcome})
			}
			b.stop()
			if n := pipesOpen(t); n > 2*idlePipes+8 { // some are the test's own
				t.Errorf("%d pipe ends are left", n)
			}
		})
	}
}
