package dedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStore is what any Store must do.
func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore(Default().Writes)
		defer m.Close()
		ctx, hour := context.Background(), time.Hour
		begin := func(key, digest, owner string) string {
			t.Helper()
			s, err := m.Begin(ctx, Claim{key, digest, owner}, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			text := map[State]string{Claimed: "claimed", Running: "running", Finished: "finished", Mismatch: "mismatch"}[s.State] + " " + string(s.Record)
			return strings.TrimSpace(text)
		}
		want := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s; want %s", got, want)
			}
		}
		want(begin("k", "f", "1"), "claimed")
		want(begin("k", "f", "2"), "running")
		want(begin("k", "g", "2"), "mismatch")
		want(begin("k", "f", "1"), "claimed")
		want(begin("l", "g", "2"), "claimed")
		_ = m.Release(ctx, Claim{"k", "f", "2"}, hour) // not the owner
		_ = m.Finish(ctx, Claim{"k", "f", "2"}, []byte("stale"), hour)
		want(begin("k", "f", "2"), "running")
		_ = m.Release(ctx, Claim{"k", "f", "1"}, hour)
		want(begin("k", "g", "2"), "claimed")
		_ = m.Finish(ctx, Claim{"k", "g", "2"}, []byte("answer"), hour)
		want(begin("k", "g", "3"), "finished answer")
		want(begin("k", "f", "3"), "mismatch")
		_ = m.Release(ctx, Claim{"k", "g", "2"}, hour) // too late
		_ = m.Finish(ctx, Claim{"k", "g", "2"}, nil, hour)
		want(begin("k", "g", "3"), "finished answer")

		_ = m.Finish(ctx, Claim{"l", "g", "2"}, nil, hour)
		want(begin("l", "f", "3"), "mismatch")
		want(begin("l", "g", "3"), "claimed")
		want(begin("l", "g", "4"), "running")
		want(begin("l", "g", "3"), "claimed")

		time.Sleep(50 * time.Second)
		want(begin("l", "g", "3"), "claimed") // renewed
		_ = m.Release(ctx, Claim{"l", "g", "3"}, hour)
		want(begin("l", "f", "3"), "mismatch") // what came of the one before is as unknown as it was
		want(begin("l", "g", "3"), "claimed")
		time.Sleep(50 * time.Second)
		want(begin("l", "g", "4"), "running")
		time.Sleep(10 * time.Second)
		want(begin("l", "f", "4"), "claimed") // the lease is over
		_ = m.Finish(ctx, Claim{"l", "g", "3"}, []byte("stale"), hour)
		want(begin("l", "f", "5"), "running")
		time.Sleep(hour)
		want(begin("k", "x", "6"), "claimed")
	})
}

// TestStoreIsBounded: nor do keyed writes take more than they may (A65).
func TestStoreIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Writes{MaxEntries: 3, MaxBytes: 3*overhead + 100}
		m := newMemoryStore(c)
		ctx := context.Background()
		begin := func(key string) State {
			s, err := m.Begin(ctx, Claim{key, "f", key}, time.Minute)
			if err != nil && !errors.Is(err, errFull) {
				t.Error(err)
			}
			return s.State
		}
		finish := func(key string, size int, keep time.Duration) {
			_ = m.Finish(ctx, Claim{key, "f", key}, bytes.Repeat([]byte("x"), size), keep)
		}
		kept := func(key string) *entry { // the store's timer runs beside us
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.entries[key]
		}
		for _, key := range []string{"a", "b", "c"} {
			if begin(key) != Claimed {
				t.Error(key)
			}
		}
		if begin("d") != 0 {
			t.Error("a key that runs was forgotten")
		}
		finish("a", 10, time.Hour)
		finish("b", 10, time.Hour)
		begin("a") // b is now the least recently used
		if begin("d") != Claimed || kept("b") != nil || kept("a") == nil {
			t.Error("the wrong entry went")
		}
		finish("c", 95, time.Hour) // a has to go
		if kept("a") != nil || begin("c") != Finished {
			t.Error("the wrong entry went")
		}
		finish("d", 2000, 5*time.Second) // has no room at all: only the fingerprint is kept
		if e := kept("d"); e == nil || e.record != nil {
			t.Errorf("%d bytes of it are kept", len(e.record))
		}
		time.Sleep(6 * time.Second)
		if kept("d") != nil {
			t.Error("what is expired stays while nobody comes by")
		}
		m.Close()
		if m.bytes != 0 || len(m.entries) != 0 || m.recent.Len() != 0 || len(m.expiry) != 0 {
			t.Errorf("%d bytes, %d entries, %d, %d", m.bytes, len(m.entries), m.recent.Len(), len(m.expiry))
		}
	})
}

func TestStoreUnderLoad(t *testing.T) {
	m := newMemoryStore(Writes{MaxEntries: 50, MaxBytes: 50 * 2 * overhead})
	defer m.Close()
	done := make(chan struct{})
	for i := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for n := range 2000 {
				c := Claim{fmt.Sprint(n * (i + 1) % 97), fmt.Sprint(n % 2), fmt.Sprint(i, n)}
				s, err := m.Begin(context.Background(), c, time.Minute)
				switch {
				case err != nil || s.State != Claimed:
				case n%3 == 0:
					_ = m.Release(context.Background(), c, time.Hour)
				default:
					_ = m.Finish(context.Background(), c, make([]byte, n%700), time.Hour)
				}
			}
		}()
	}
	for range 8 {
		<-done
	}
	bytes := int64(0)
	for _, e := range m.entries {
		bytes += overhead + int64(len(e.record))
		if e.owner != "" {
			t.Errorf("%s still runs", e.key)
		}
	}
	if bytes != m.bytes || len(m.entries) > 50 || m.bytes > m.maxBytes || len(m.entries) != len(m.expiry) || m.recent.Len() != len(m.entries) {
		t.Errorf("%d bytes, counted %d; %d entries, %d, %d", bytes, m.bytes, len(m.entries), len(m.expiry), m.recent.Len())
	}
}

func TestRecord(t *testing.T) {
	head := &http.Response{StatusCode: 201, ProtoMajor: 2, ContentLength: 4, Header: http.Header{"A": {"1", "2"}, "B": {""}, "Content-Type": nil}}
	b := appendRecord(nil, head, http.Header{"T": {"x"}}, []byte("body"))
	got, err := parseRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(got.Body)
	if string(body) != "body" || got.Status != "201 Created" || got.Proto != "HTTP/2.0" || got.ContentLength != 4 ||
		!reflect.DeepEqual(got.Header, head.Header) || got.Trailer.Get("T") != "x" {
		t.Errorf("%+v, %q", got, body)
	}
	for n := range len(b) - 4 {
		if _, err := parseRecord(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are a record", n, len(b))
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendRecord(nil, &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"A": {"1"}}}, nil, []byte("body")))
	f.Add(append([]byte{1, 200, 1, 1, 1, 0}, bytes.Repeat([]byte{0xff}, 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		resp, err := parseRecord(b)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(resp.Body)
		again, err := parseRecord(appendRecord(nil, resp, resp.Trailer, body))
		if err != nil || again.StatusCode != resp.StatusCode || again.ContentLength != resp.ContentLength || !reflect.DeepEqual(again.Header, resp.Header) {
			t.Errorf("%v: %+v became %+v", err, resp, again)
		}
	})
}
