package sanitize

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

const (
	card   = "4111111111111111"
	masked = "411111******1111"
	token  = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
)

// rig is both stages over an upstream that notes what it gets.
type rig struct {
	room    *Room
	config  Config
	x       *exchange.Exchange
	got     *http.Request
	body    string
	bodyErr error
	calls   int
	answer  func(*http.Request) *http.Response
}

func newRig(change func(*Config)) *rig {
	g := &rig{room: New(prometheus.NewRegistry()), config: Default()}
	if change != nil {
		change(&g.config)
	}
	return g
}

func (g *rig) send(r *http.Request) (*http.Response, error) {
	g.x = &exchange.Exchange{Host: "h", Target: exchange.Authority{Host: r.URL.Hostname(), Port: 443}}
	r = r.WithContext(exchange.NewContext(context.Background(), g.x))
	end := exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		g.calls++
		g.got = r
		if r.Body != nil {
			data, err := io.ReadAll(r.Body)
			g.body, g.bodyErr = string(data), err
			r.Body.Close()
			if err != nil {
				return nil, err
			}
		}
		if g.answer != nil {
			return g.answer(r), nil
		}
		return answer("text/plain", "ok"), nil
	})
	return exchange.Chain(end, g.room.Request(g.config), g.room.Response(g.config)).RoundTrip(r)
}

func answer(kind, body string) *http.Response {
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}, "Content-Length": {fmt.Sprint(len(body))}}, Body: io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body))}
}

func post(kind, body string) *http.Request {
	r, _ := http.NewRequest(http.MethodPost, "https://api.example.com/v1/things?x=1", io.NopCloser(strings.NewReader(body)))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Type", kind)
	return r
}

func (g *rig) finds() string {
	var out []string
	for _, s := range g.x.Story().Sanitized {
		out = append(out, fmt.Sprintf("%s %s %s %d", s.Where, s.Kind, s.Action, s.Count))
	}
	return strings.Join(out, ", ")
}

func refusalOf(t *testing.T, err error) *exchange.Refusal {
	t.Helper()
	var r *exchange.Refusal
	if !errors.As(err, &r) || r.Code != exchange.BlockedContent {
		t.Fatalf("%v; want a refusal", err)
	}
	if strings.Contains(r.Detail, card) || strings.Contains(r.Detail, "sk_live") {
		t.Errorf("the detail tells what it hides: %s", r.Detail)
	}
	return r
}

func packed(coding, s string) string {
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	switch coding {
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

func TestBlockedRequests(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*http.Request)
		finds  string
		detail string
	}{
		"body":        {func(r *http.Request) { setBody(r, `{"card":"4111 1111 1111 1111"}`) }, "request.body pan blocked 1", "policy blocks the request: there is a card number in its body"},
		"chunked":     {func(r *http.Request) { setBody(r, `{"card":"`+card+`"}`); r.ContentLength = -1 }, "request.body pan blocked 1", ""},
		"query":       {func(r *http.Request) { r.URL.RawQuery = "card=4111+1111+1111+1111&cvv=123" }, "request.url pan blocked 1, request.url cvv blocked 1", "policy blocks the request: there is a card number in its URL"},
		"path":        {func(r *http.Request) { r.URL.Path = "/cards/" + card + "/x" }, "request.url pan blocked 1", ""},
		"opaque path": {func(r *http.Request) { r.URL.Opaque = "/a|b/" + card }, "request.url pan blocked 1", ""},
		"field":       {func(r *http.Request) { r.Header.Set("X-Note", "card "+card) }, "request.headers pan blocked 1", "policy blocks the request: there is a card number in its header fields"},
		"cookie":      {func(r *http.Request) { r.Header.Set("Cookie", "last="+card) }, "request.headers pan blocked 1", ""},
		"code":        {func(r *http.Request) { r.Header.Set("X-Card-Cvv", "123") }, "request.headers cvv blocked 1", ""},
		"foreign":     {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, "request.headers secret blocked 1", "policy blocks the request: there is a secret in its header fields"},
		"token":       {func(r *http.Request) { setBody(r, "key="+token) }, "request.body secret blocked 1", "policy blocks the request: there is a secret in its body"},
		"gzip":        {func(r *http.Request) { setBody(r, packed("gzip", "a "+card)); r.Header.Set("Content-Encoding", "gzip") }, "request.body pan blocked 1", ""},
		"deflate": {func(r *http.Request) {
			setBody(r, packed("deflate", "a "+card))
			r.Header.Set("Content-Encoding", "deflate")
		}, "request.body pan blocked 1", ""},
		"br":      {func(r *http.Request) { setBody(r, packed("br", "a "+card)); r.Header.Set("Content-Encoding", "br") }, "request.body pan blocked 1", ""},
		"zstd":    {func(r *http.Request) { setBody(r, packed("zstd", "a "+card)); r.Header.Set("Content-Encoding", "zstd") }, "request.body pan blocked 1", ""},
		"trailer": {func(r *http.Request) { setBody(r, "x"); r.ContentLength = -1; r.Trailer = http.Header{"X-Sum": {card}} }, "request.trailers pan blocked 1", "policy blocks the request: there is a card number in its trailers"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(nil)
			r := post("application/json", "{}")
			c.change(r)
			_, err := g.send(r)
			refusal := refusalOf(t, err)
			if refusal.HTTPStatus() != http.StatusForbidden || c.detail != "" && refusal.Detail != c.detail {
				t.Errorf("%d %s", refusal.HTTPStatus(), refusal.Detail)
			}
			if g.calls != 0 {
				t.Error("the upstream was asked")
			}
			if g.finds() != c.finds {
				t.Errorf("the story says %q; want %q", g.finds(), c.finds)
			}
		})
	}
}

func setBody(r *http.Request, s string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s))
}

// TestNothingFound: not a byte changes, in no mode.
func TestNothingFound(t *testing.T) {
	for _, mode := range []Action{Report, Mask, Block} {
		for _, coding := range []string{"", "gzip", "deflate", "br", "zstd", "aes128gcm"} {
			for _, body := range []string{`{"a": 1}`, "\xff\x00\x80 binary", strings.Repeat("long text, ", 1000)} {
				g := newRig(func(c *Config) {
					c.Request, c.Response = Rules{mode, mode}, Rules{mode, mode}
				})
				sent := body
				if coding != "" && coding != "aes128gcm" {
					sent = packed(coding, body)
				}
				g.answer = func(*http.Request) *http.Response {
					a := answer("application/json", sent)
					a.Header.Set("Etag", `"1"`)
					a.Header.Set("Content-Encoding", coding)
					return a
				}
				r := post("application/json", sent)
				r.Header.Set("Content-Encoding", coding)
				r.Header.Set("Content-Md5", "x")
				r.Header.Set("Authorization", "Bearer opaque-1234567890abcdef")
				r.Header.Set("If-None-Match", `"`+card+`"`)
				want := r.Header.Clone()
				resp, err := g.send(r)
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(resp.Body)
				if err != nil || string(data) != sent || g.body != sent || g.got.ContentLength != int64(len(sent)) || resp.ContentLength != int64(len(sent)) {
					t.Errorf("%s %s: the upstream got %q (%d), the client %q (%d) %v", mode, coding, g.body, g.got.ContentLength, data, resp.ContentLength, err)
				}
				if !reflect.DeepEqual(g.got.Header, want) || resp.Header.Get("Etag") != `"1"` || resp.Header.Get("Content-Encoding") != coding {
					t.Errorf("%s %s: %v %v", mode, coding, g.got.Header, resp.Header)
				}
				finds := ""
				if coding == "aes128gcm" {
					finds = "request.body unreadable passed 1, response.body unreadable passed 1"
				}
				if g.finds() != finds {
					t.Errorf("%s %s: %s", mode, coding, g.finds())
				}
			}
		}
	}
}

func TestMaskedRequests(t *testing.T) {
	for name, coding := range map[string]string{"plain": "", "gzip": "gzip", "br": "br", "zstd": "zstd"} {
		t.Run(name, func(t *testing.T) {
			g := newRig(func(c *Config) { c.Request = Rules{Mask, Mask} })
			body := `{"card":"4111 1111 1111 1111","n":` + card + `,"key":"` + token + `","cvv":"123"}`
			want := `{"card":"411111******1111","n":"411111******1111","key":"REDACTED","cvv":"***"}`
			sent := body
			if coding != "" {
				sent = packed(coding, body)
			}
			r := post("application/json", sent)
			r.URL.Path, r.URL.RawQuery = "/c/"+card, "a=%20b&n="+card
			for k, v := range map[string]string{"Content-Encoding": coding, "Content-Length": fmt.Sprint(len(sent)), "Digest": "x", "X-Note": "n " + card, "Authorization": "Bearer " + token} {
				if v != "" {
					r.Header.Set(k, v)
				}
			}
			before := r.Header.Clone()
			if _, err := g.send(r); err != nil {
				t.Fatal(err)
			}
			h := g.got.Header
			if g.body != want || g.got.ContentLength != int64(len(want)) || h.Get("Content-Length") != fmt.Sprint(len(want)) || h.Get("Content-Encoding") != "" || h.Get("Digest") != "" {
				t.Errorf("the upstream got %q, %d, %v", g.body, g.got.ContentLength, h)
			}
			if h.Get("X-Note") != "n "+masked || h.Get("Authorization") != "Bearer REDACTED" {
				t.Errorf("fields: %v", h)
			}
			if got := g.got.URL.RequestURI(); got != "/c/"+masked+"?a=%20b&n="+masked {
				t.Errorf("the target is %s", got)
			}
			if !reflect.DeepEqual(r.Header, before) || r.URL.Path != "/c/"+card {
				t.Error("the caller's request was changed")
			}
			if want := "request.url pan masked 2, request.headers secret masked 1, request.headers pan masked 1, request.body secret masked 1, request.body pan masked 2, request.body cvv masked 1"; g.finds() != want {
				t.Errorf("the story says %s", g.finds())
			}
			if !exchange.Ready(g.got.Body) {
				t.Error("the body is here as a whole, and does not say so")
			}
			var count dto.Metric
			if err := g.room.metrics.finds.WithLabelValues("h", "request", "pan", "masked").Write(&count); err != nil || count.GetCounter().GetValue() != 5 {
				t.Errorf("counted %v %v", &count, err)
			}
		})
	}
}

func TestResponses(t *testing.T) {
	g := newRig(nil)
	g.answer = func(r *http.Request) *http.Response {
		a := answer("application/json", `{"card":"`+card+`","key":"`+token+`"}`)
		a.Header.Set("Etag", `"1"`)
		a.Header.Set("Content-Digest", "x")
		a.Header.Set("Accept-Ranges", "bytes")
		return a
	}
	r, _ := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
	r.Header.Set("Range", "bytes=0-10")
	r.Header.Set("Accept-Encoding", "br, gzip;q=0.5, aes128gcm")
	resp, err := g.send(r)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(resp.Body)
	want := `{"card":"` + masked + `","key":"` + token + `"}`
	if string(data) != want || resp.ContentLength != int64(len(want)) || resp.Header.Get("Content-Length") != fmt.Sprint(len(want)) || resp.Header.Get("Etag") != `W/"1"` ||
		resp.Header.Get("Content-Digest") != "" || resp.Header.Get("Accept-Ranges") != "" {
		t.Errorf("%q %v", data, resp.Header)
	}
	if h := g.got.Header; h.Get("Range") != "" || h.Get("Accept-Encoding") != "br, gzip;q=0.5" || r.Header.Get("Range") == "" {
		t.Errorf("the upstream was asked for %v", h)
	}
	if g.finds() != "response.body pan masked 1" {
		t.Errorf("the story says %s", g.finds())
	}

	g.config.Response.Cards = Block
	resp, err = g.send(r)
	if refusal := refusalOf(t, err); refusal.HTTPStatus() != http.StatusBadGateway || refusal.Detail != "policy blocks the response: there is a card number in its body" || resp != nil {
		t.Errorf("%d %s", refusal.HTTPStatus(), refusal.Detail)
	}
}

// TestObserve: everything is noted, nothing is changed.
func TestObserve(t *testing.T) {
	g := newRig(func(c *Config) { c.Mode = setting.Observe; c.Unreadable = unreadableBlock })
	for _, coding := range []string{"", "gzip"} {
		body := `{"card":"` + card + `"}`
		if coding != "" {
			body = packed(coding, body)
		}
		g.answer = func(*http.Request) *http.Response {
			a := answer("application/json", body)
			a.Header.Set("Content-Encoding", coding)
			return a
		}
		r := post("application/json", body)
		r.Header.Set("Content-Encoding", coding)
		r.Header.Set("Range", "bytes=0-1")
		resp, err := g.send(r)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(iotest.OneByteReader(resp.Body))
		if string(data) != body || g.body != body || g.got.Header.Get("Range") == "" || err != nil {
			t.Errorf("%q %q %v", g.body, data, err)
		}
		if want := "request.body pan observed 1, response.body pan observed 1"; g.finds() != want {
			t.Errorf("the story says %s", g.finds())
		}
		if got := fmt.Sprint(g.x.Story().Observed); got != "[sanitize request sanitize response]" {
			t.Errorf("observed: %s", got)
		}
	}
	r := post("application/json", "not gzip at all "+card)
	r.Header.Set("Content-Encoding", "gzip")
	if _, err := g.send(r); err != nil || g.body != "not gzip at all "+card {
		t.Errorf("%v %q", err, g.body)
	}
	if want := "request.body unreadable observed 1"; !strings.Contains(g.finds(), want) {
		t.Errorf("the story says %s", g.finds())
	}
}

func TestUnreadable(t *testing.T) {
	broken := packed("gzip", "some text")
	bodies := map[string][2]string{"br": {"br", "whatever"}, "zstd": {"zstd", packed("zstd", "a") + "behind"}, "other": {"aes128gcm", "whatever"}, "twice": {"gzip, gzip", "whatever"}, "broken": {"gzip", broken[:len(broken)-9] + "xxxxxxxxx"}, "none": {"gzip", "no gzip"},
		"more behind": {"deflate", packed("deflate", "x") + "y"}}
	for _, how := range []string{unreadablePass, unreadableBlock} {
		for name, b := range bodies {
			g := newRig(func(c *Config) { c.Unreadable = how; c.Request.Cards = Mask })
			r := post("text/plain", b[1])
			r.Header.Set("Content-Encoding", b[0])
			_, err := g.send(r)
			if how == unreadableBlock {
				if refusal := refusalOf(t, err); g.calls != 0 || !strings.Contains(refusal.Detail, "cannot be looked into") {
					t.Errorf("%s: %s", name, refusal.Detail)
				}
				continue
			}
			if err != nil || g.body != b[1] || !strings.Contains(g.finds(), "request.body unreadable passed 1") {
				t.Errorf("%s: %v %q %s", name, err, g.body, g.finds())
			}
		}
	}
}

// TestUnreadableIsLookedAt: what cannot be decoded is looked at as it is, and what was masked in a part of it is not sent after all.
func TestUnreadableIsLookedAt(t *testing.T) {
	whole, frame := packed("gzip", "some text "+card), packed("zstd", "some text "+card)
	for name, c := range map[string]struct{ kind, coding, body, want, finds string }{
		"no gzip":      {"application/json", "gzip", `{"n":` + card + `}`, `{"n":"` + masked + `"}`, "request.body unreadable passed 1, request.body pan masked 1"},
		"unknown":      {"application/json", "dcb", `{"n":` + card + `}`, `{"n":"` + masked + `"}`, "request.body unreadable passed 1, request.body pan masked 1"},
		"charset":      {"text/plain; charset=utf-16", "", card, masked, "request.body unreadable passed 1, request.body pan masked 1"},
		"behind":       {"text/plain", "deflate", packed("deflate", "x") + " " + card, packed("deflate", "x") + " " + strings.Repeat("*", 16), "request.body unreadable passed 1, request.body pan masked 1"},
		"garbage":      {"text/plain", "gzip", whole + "x", "", "request.body pan masked 1, request.body unreadable blocked 1"},
		"checksum":     {"text/plain", "gzip", whole[:len(whole)-8] + "xxxxxxxx", "", "request.body pan masked 1, request.body unreadable blocked 1"},
		"breaks off":   {"text/plain", "gzip", whole[:len(whole)-2], "", "request.body pan masked 1, request.body unreadable blocked 1"},
		"zstd's sum":   {"text/plain", "zstd", frame[:len(frame)-4] + "xxxx", "", "request.body pan masked 1, request.body unreadable blocked 1"},
		"no such sum":  {"text/plain", "zstd", frame[:len(frame)-1], "", "request.body pan masked 1, request.body unreadable blocked 1"},
		"large no zip": {"text/plain", "gzip", large(200_000), strings.Replace(large(200_000), card, masked, 1), "request.body unreadable passed 1, request.body pan masked 1"},
	} {
		g := newRig(func(c *Config) { c.Request.Cards, c.MaxBody = Mask, 64<<10 })
		r := post(c.kind, c.body)
		r.Header.Set("Content-Encoding", c.coding)
		_, err := g.send(r)
		got := strings.Replace(g.body, masked, strings.Repeat("*", 16), 1)
		if c.want == "" {
			refusalOf(t, err)
			got = g.body
		} else if err != nil || g.got.Header.Get("Content-Encoding") != c.coding || g.got.ContentLength >= 0 && int(g.got.ContentLength) != len(g.body) {
			t.Errorf("%s: %v %v %d", name, err, g.got.Header, g.got.ContentLength)
		}
		if got != strings.Replace(c.want, masked, strings.Repeat("*", 16), 1) || g.finds() != c.finds {
			t.Errorf("%s: %.60q %s", name, g.body, g.finds())
		}
		g = newRig(func(c *Config) { c.Mode = setting.Observe })
		r = post(c.kind, c.body)
		r.Header.Set("Content-Encoding", c.coding)
		if _, err := g.send(r); err != nil || g.body != c.body || !strings.Contains(g.finds(), "request.body pan observed 1") || !strings.Contains(g.finds(), "request.body unreadable observed 1") &&
			!strings.Contains(g.finds(), "request.body unreadable passed 1") {
			t.Errorf("%s observed: %v %.60q %s", name, err, g.body, g.finds())
		}
	}
}

// TestWide: UTF-16 and UTF-32 that no charset announces are as unreadable as those that one does.
func TestWide(t *testing.T) {
	text := `{"card": "` + card + `"}` + "\n"
	spelt := func(order binary.AppendByteOrder, size int) string {
		var b []byte
		for _, c := range text {
			if size == 2 {
				b = order.AppendUint16(b, uint16(c))
			} else {
				b = order.AppendUint32(b, uint32(c))
			}
		}
		return string(b)
	}
	for name, body := range map[string]string{
		"utf-16le": spelt(binary.LittleEndian, 2), "utf-16be": spelt(binary.BigEndian, 2), "utf-32le": spelt(binary.LittleEndian, 4), "utf-32be": spelt(binary.BigEndian, 4),
		"mark": "\xff\xfe" + spelt(binary.LittleEndian, 2), "mark be": "\xfe\xff" + spelt(binary.BigEndian, 2), "large": strings.Repeat(spelt(binary.LittleEndian, 2), 2000),
	} {
		for _, kind := range []string{"application/json", "text/plain", "application/octet-stream", "text/event-stream", "application/json; charset=unicode", "text/plain; charset=UTF16"} {
			for _, how := range []string{unreadablePass, unreadableBlock} {
				g := newRig(func(c *Config) { c.Unreadable = how })
				r := post(kind, body)
				r.Body = io.NopCloser(iotest.OneByteReader(strings.NewReader(body)))
				_, err := g.send(r)
				if how == unreadableBlock {
					if refusal := refusalOf(t, err); g.body != "" && kind != "text/event-stream" || !strings.Contains(refusal.Detail, "cannot be looked into") || g.finds() != "request.body unreadable blocked 1" {
						t.Errorf("%s as %s: %q %s", name, kind, g.body, g.finds())
					}
				} else if err != nil || g.body != body || g.finds() != "request.body unreadable passed 1" {
					t.Errorf("%s as %s: %v %.60q %s", name, kind, err, g.body, g.finds())
				}
			}
		}
	}
	for _, body := range []string{"\x00\x00\x00\x00\x06\x0a\x04abcd", "?\x00\x00\x00\x02id\x00\x05", "P\x00\x00\x00", "\x00a\x00", "plain text"} {
		g := newRig(func(c *Config) { c.Unreadable = unreadableBlock })
		if _, err := g.send(post("application/octet-stream", body)); err != nil || g.body != body || g.finds() != "" {
			t.Errorf("%q: %v %s", body, err, g.finds())
		}
	}
}

// drip is a body that comes byte by byte, and breaks off.
type drip struct {
	n, most int
	seen    func(n int)
}

func (d *drip) Read(p []byte) (int, error) {
	if d.n >= d.most {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, "0123456 ")
	d.n += n
	if d.seen != nil {
		d.seen(d.n)
	}
	return n, nil
}
func (d *drip) Close() error { return nil }

// TestHeldIsBounded: what all bodies together hold back is bounded, also for those that began while there was room; what they took is given back on every way.
func TestHeldIsBounded(t *testing.T) {
	g := newRig(nil)
	short := false
	g.room.Short(func() bool { return short })
	r := post("text/plain", "")
	r.Body, r.ContentLength = &drip{most: 200_000, seen: func(n int) { short = n > 100_000 }}, 900_000
	if _, err := g.send(r); err == nil || g.calls != 1 || len(g.body) < 90_000 {
		t.Errorf("a body is held back while memory is short: %v, %d calls, %d bytes", err, g.calls, len(g.body))
	}
	short = false
	g.room.held.Store(memoryLimit)
	r = post("text/plain", "")
	r.Body, r.ContentLength = &drip{most: 50_000}, 900_000
	if _, err := g.send(r); err == nil || g.calls != 2 {
		t.Errorf("a body is held back beyond the limit: %v, %d calls", err, g.calls)
	}
	g.room.held.Store(0)
	r = post("text/plain", "")
	r.Body, r.ContentLength = &drip{most: 80_000, seen: func(n int) {
		if n == 72_000 && g.room.held.Load() < 36_000 { // the rest is in the window
			t.Errorf("%d bytes are counted", g.room.held.Load())
		}
	}}, 900_000
	var refusal *exchange.Refusal
	if _, err := g.send(r); !errors.As(err, &refusal) || refusal.Code != exchange.BadRequest || g.calls != 2 {
		t.Errorf("%v, %d calls", err, g.calls)
	}
	for _, body := range []string{"text", large(100_000), large(4 << 20), packed("gzip", "x"), packed("gzip", card)} {
		for _, action := range []Action{Block, Mask} {
			g.config.Request.Cards, g.config.Response.Cards = action, action
			r := post("text/plain", body)
			if strings.HasPrefix(body, "\x1f\x8b") {
				r.Header.Set("Content-Encoding", "gzip")
			}
			g.answer = func(*http.Request) *http.Response { return answer("text/plain", body) }
			resp, err := g.send(r)
			if err == nil {
				if n := g.room.held.Load(); len(body) < 1<<20 && n < int64(len(body)) {
					t.Errorf("%d bytes of an answer are held, %d are counted", len(body), n)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if n := g.room.held.Load(); n != 0 {
				t.Errorf("%d bytes, %s: %d are still counted", len(body), action, n)
			}
		}
	}
}

// TestWindows: a few bytes of zstd cannot set aside megabytes without bound; what there is no room for cannot be looked into.
func TestWindows(t *testing.T) {
	frame := "\x28\xb5\x2f\xfd\x00\x68\x20\x00\x00abcd" // a window of 8 MiB, four bytes, and more to come
	g := newRig(func(c *Config) { c.Unreadable = unreadableBlock })
	send := func(rest string) error {
		r := post("text/plain", "")
		r.Header.Set("Content-Encoding", "zstd")
		r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader(frame), readFunc(func([]byte) (int, error) {
			if n := g.room.windows.Load(); n != 8<<20 && rest != "full" {
				t.Errorf("%d bytes are counted", n)
			}
			return 0, io.ErrUnexpectedEOF
		}))), -1
		_, err := g.send(r)
		return err
	}
	var refusal *exchange.Refusal
	if err := send(""); !errors.As(err, &refusal) || refusal.Code != exchange.BadRequest || g.room.windows.Load() != 0 {
		t.Errorf("%v, %d are still counted", err, g.room.windows.Load())
	}
	g.room.windows.Store(windowLimit - 1<<20)
	refusalOf(t, send("full"))
	if n := g.room.windows.Load(); n != windowLimit-1<<20 {
		t.Errorf("%d are counted", n)
	}
	for _, body := range []string{"a", large(100_000), large(8 << 20), ""} {
		for _, action := range []Action{Mask, Block, Report} {
			g = newRig(func(c *Config) { c.Request.Cards = action })
			r := post("text/plain", packed("zstd", body))
			r.Header.Set("Content-Encoding", "zstd")
			_, err := g.send(r)
			if n := g.room.windows.Load(); n != 0 || action != Block && err != nil {
				t.Errorf("%d bytes, %s: %v, %d are still counted", len(body), action, err, n)
			}
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestReadersFault: a body that breaks off while it is held back is said to be what it is.
func TestReadersFault(t *testing.T) {
	for _, c := range []struct {
		err  error
		want exchange.Code
	}{
		{io.ErrUnexpectedEOF, exchange.BadRequest}, {&http.MaxBytesError{Limit: 1}, exchange.TooLarge}, {exchange.Refuse(exchange.Denied, "no"), exchange.Denied},
	} {
		g := newRig(nil)
		r := post("text/plain", "")
		r.Body, r.ContentLength = io.NopCloser(iotest.ErrReader(c.err)), -1
		var refusal *exchange.Refusal
		if _, err := g.send(r); !errors.As(err, &refusal) || refusal.Code != c.want || g.calls != 0 {
			t.Errorf("%v: %v, %d calls", c.err, err, g.calls)
		}
	}
}

func TestSkip(t *testing.T) {
	g := newRig(func(c *Config) { c.Skip = Skip{Headers: []string{"x-legit"}, Fields: []string{"card_token"}} })
	r := post("application/json", `{"card_token":"`+card+`"}`)
	r.URL.RawQuery = "card_token=" + card
	r.Header.Set("X-Legit", token)
	if _, err := g.send(r); err != nil || g.finds() != "" {
		t.Errorf("%v %s", err, g.finds())
	}
	// A token to its own vendor, wherever it stands.
	r = post("application/json", `{"key":"`+token+`"}`)
	r.URL.Host = "api.stripe.com"
	r.Header.Set("Authorization", "Bearer "+token)
	if _, err := g.send(r); err != nil || g.finds() != "" {
		t.Errorf("%v %s", err, g.finds())
	}
}

// large gives the find after n bytes.
func large(n int) string { return strings.Repeat("0123456 ", n/8) + " " + card + " end" }

// TestBeyondMaxBody: what is larger than is held back is cut off before the find, or masked as it goes.
func TestBeyondMaxBody(t *testing.T) {
	for _, coding := range []string{"", "gzip"} {
		body := large(4 << 20)
		sent := body
		if coding != "" {
			var noise strings.Builder // that does not shrink
			for i := range 600_000 {
				fmt.Fprintf(&noise, "%x ", uint32(i)*2654435761)
			}
			body = noise.String() + " " + card + " end"
			sent = packed(coding, body)
		}
		g := newRig(nil)
		r := post("text/plain", sent)
		r.Header.Set("Content-Encoding", coding)
		_, err := g.send(r)
		refusalOf(t, err)
		if g.calls != 1 || g.bodyErr == nil || len(g.body) == 0 || !strings.HasPrefix(body, g.body) || strings.Contains(g.body, "41111111") {
			t.Errorf("%s: the upstream was sent %d of %d bytes, ending in %v", coding, len(g.body), len(body), g.bodyErr)
		}
		if coding == "" && g.got.ContentLength != int64(len(sent)) {
			t.Errorf("the length is %d", g.got.ContentLength)
		}
		g = newRig(func(c *Config) { c.Request.Cards = Mask })
		r = post("text/plain", sent)
		r.Header.Set("Content-Encoding", coding)
		if _, err := g.send(r); err != nil || g.body != strings.Replace(body, card, masked, 1) || g.got.ContentLength != -1 || g.got.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %v, %d bytes, length %d", coding, err, len(g.body), g.got.ContentLength)
		}
		g = newRig(func(c *Config) { c.Request = Rules{Report, Report} })
		r = post("text/plain", sent)
		r.Header.Set("Content-Encoding", coding)
		if _, err := g.send(r); err != nil || g.body != sent || g.finds() != "request.body pan reported 1" {
			t.Errorf("%s: %v, %s, %d bytes of %d", coding, err, g.finds(), len(g.body), len(sent))
		}
	}
}

// TestShortOfMemory: nothing is held back.
func TestShortOfMemory(t *testing.T) {
	g := newRig(nil)
	g.room.Short(func() bool { return true })
	_, err := g.send(post("text/plain", large(200_000)))
	refusalOf(t, err)
	if g.calls != 1 || len(g.body) < 100_000 || strings.Contains(g.body, "41111111") {
		t.Errorf("%d calls, %d bytes", g.calls, len(g.body))
	}
}

// pieces gives a body piece by piece, and counts what was asked for.
type pieces struct {
	list []string
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.n == len(p.list) {
		return 0, io.EOF
	}
	p.n++
	return copy(b, p.list[p.n-1]), nil
}
func (p *pieces) Close() error { return nil }

// TestHeldBackForTheUpstream: the time that an answer's body takes to come, while its head is held back for it, is the upstream's.
func TestHeldBackForTheUpstream(t *testing.T) {
	for _, coding := range []string{"", "gzip"} {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(nil)
			text := "a card " + card
			if coding != "" {
				text = packed(coding, text)
			}
			g.answer = func(*http.Request) *http.Response {
				a := answer("text/plain", text)
				a.Header.Set("Content-Encoding", coding)
				a.Body = io.NopCloser(io.MultiReader(strings.NewReader(text[:5]), late{}, strings.NewReader(text[5:])))
				return a
			}
			r, _ := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
			begin := time.Now()
			resp, err := g.send(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if held := time.Since(begin); held != time.Second || g.x.Story().Upstream != held || string(body) != "a card "+masked {
				t.Errorf("%q: %v, %v of which are the upstream's; %q", coding, held, g.x.Story().Upstream, body)
			}
		})
	}
}

// late is nothing, after a second.
type late struct{}

func (late) Read([]byte) (int, error) {
	time.Sleep(time.Second)
	return 0, io.EOF
}

// TestStreamsFlow: what has come of a stream is passed on before more of it comes.
func TestStreamsFlow(t *testing.T) {
	for kind, c := range map[string]struct{ in, want []string }{
		"text/event-stream": {[]string{"data: {\"n\":" + card + "}\n\n", "data: 411111", "1111111111\n\n", "data: end"}, []string{"data: {\"n\":\"" + masked + "\"}\n\n", "data: " + masked + "\n\n", "data: end"}},
		"application/grpc":  {[]string{"\x00\x00\x00\x00\x05hello", "\x00\x00\x00\x00\x12\x0a\x10" + card, "\x00\x00\x00\x00\x01x"}, []string{"\x00\x00\x00\x00\x05hello", "\x00\x00\x00\x00\x12\x0a\x10" + masked, "\x00\x00\x00\x00\x01x"}},
		"text/plain":        {[]string{"one\n", "two " + card + "\n"}, []string{"one\n", "two " + masked + "\n"}},
	} {
		g := newRig(nil)
		p := &pieces{list: c.in}
		g.answer = func(*http.Request) *http.Response {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: p, ContentLength: -1}
		}
		r, _ := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
		resp, err := g.send(r)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		b := make([]byte, 4096)
		for {
			n, err := resp.Body.Read(b)
			if n > 0 {
				got = append(got, string(b[:n]))
			}
			if len(got) == 1 && p.n > 1 {
				t.Errorf("%s: the second piece was asked for before the first was passed on", kind)
			}
			if err != nil {
				break
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", kind, got, c.want)
		}
	}
}

func TestSwitchedProtocols(t *testing.T) {
	g := newRig(nil)
	body := struct{ io.ReadWriteCloser }{}
	g.answer = func(*http.Request) *http.Response {
		return &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: http.Header{}, Body: body}
	}
	r, _ := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
	resp, err := g.send(r)
	if err != nil || resp.Body != body || fmt.Sprint(g.x.Story().Unapplied) != "[sanitize]" {
		t.Errorf("%v %v %v", err, resp, g.x.Story().Unapplied)
	}
}

// TestMemory: however long a stream is, it takes no more than its window.
func TestMemory(t *testing.T) {
	line := []byte(`{"id":1,"name":"a customer"}` + "\n")
	for _, size := range []int64{16 << 20} {
		g := newRig(nil)
		g.answer = func(*http.Request) *http.Response {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/x-ndjson"}}, ContentLength: -1, Body: io.NopCloser(io.LimitReader(&repeat{line: line}, size))}
		}
		r, _ := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
		resp, err := g.send(r)
		if err != nil {
			t.Fatal(err)
		}
		s := resp.Body.(*screened)
		most, total, b := 0, int64(0), make([]byte, 32<<10)
		for {
			n, err := resp.Body.Read(b)
			total += int64(n)
			most = max(most, cap(s.out)+s.sieve.Held())
			if err != nil {
				break
			}
		}
		if total != size || most > 256<<10 {
			t.Errorf("%d bytes came, %d were held", total, most)
		}
	}
}

type repeat struct {
	line []byte
	at   int
}

func (r *repeat) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.line[r.at:])
		n, r.at = n+k, (r.at+k)%len(r.line)
	}
	return n, nil
}

// TestBomb: a body that grows beyond all measure is one that cannot be read.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	zeros := make([]byte, 1<<20)
	for range 80 {
		w.Write(zeros)
	}
	w.Close()
	d := &decoder{coding: "gzip", tap: tap{src: &b}}
	n, err := io.Copy(io.Discard, d)
	if err != errCoding || n > grace+(1<<20) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestTargetStays(t *testing.T) {
	for _, raw := range []string{"/a%2Fb/c?x=%7b&y", "/a|b", "//x", "/?", "/%41"} {
		u, err := url.Parse("https://h" + raw)
		if err != nil {
			continue
		}
		m := &message{side: New(nil).side(Default(), "request", Rules{Mask, Mask}), x: &exchange.Exchange{}}
		out, err := m.target(u)
		if err != nil || out != u {
			t.Errorf("%s: %v %v", raw, out, err)
		}
	}
}

func FuzzStages(f *testing.F) {
	f.Add("application/json", `{"a":"`, `"}`, uint8(3))
	f.Add("application/x-www-form-urlencoded", "a=%41&b=", "&c", uint8(1))
	f.Add("text/event-stream", "data: ", "\n\n", uint8(7))
	f.Add("application/grpc", "\x00", "\xff", uint8(2))
	f.Fuzz(func(t *testing.T, kind, before, after string, size uint8) {
		body := before + "\n 5105105105105100 \n" + after
		for _, action := range []Action{Mask, Block} {
			for _, length := range []int64{int64(len(body)), -1} {
				g := newRig(func(c *Config) { c.Request.Cards = action; c.MaxBody = leastBody })
				r := post("text/plain", "")
				r.Header["Content-Type"] = []string{kind}
				r.Body, r.ContentLength = io.NopCloser(iotest.HalfReader(strings.NewReader(body))), length
				_, err := g.send(r)
				unread := strings.Contains(g.finds(), kindUnreadable)
				if !unread && (strings.Contains(g.body, " 5105105105105100 ") || action == Block && err == nil) {
					t.Errorf("%s: the number left: %q %v", action, g.body, err)
				}
			}
		}
	})
}

func BenchmarkMask(b *testing.B) {
	body := "[" + strings.Repeat(`{"id":1234,"name":"a customer","email":"a@example.com","note":"ships on Monday"},`, 800) + `{"card":"4111 1111 1111 1111"}]`
	for name, a := range map[string]Action{"mask": Mask, "block": Block, "report": Report} {
		b.Run(name, func(b *testing.B) {
			g := newRig(func(c *Config) { c.Request.Cards, c.Response = a, Rules{Off, Off} })
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				g.send(post("application/json", body))
			}
		})
	}
}
