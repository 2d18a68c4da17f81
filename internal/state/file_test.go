package state

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// note is a room that keeps one text.
type note struct {
	mu   sync.Mutex
	text string
	got  string
	err  error
}

func (n *note) Export() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return []byte(n.text)
}

func (n *note) Import(data []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.text, n.got = string(data), string(data)
	}
	return n.err
}

func (n *note) set(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = text
}

const nothing = `{"breakers":[]}`

// process is one life of a daemon with two rooms over the same folder.
func process(t *testing.T, dir string) (f *File, breaker, limit *note, log *bytes.Buffer) {
	t.Helper()
	breaker, limit, log = &note{text: nothing}, &note{}, &bytes.Buffer{}
	f = NewFile(dir, slog.New(slog.NewTextHandler(log, nil)), map[string]Keeps{"breaker": breaker, "rate_limit": limit})
	f.Load()
	t.Cleanup(func() { _ = f.Close() })
	return f, breaker, limit, log
}

func TestFileCarriesStateOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	f, breaker, limit, _ := process(t, dir)
	f.Save()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("nothing was learnt, and something was written: %v", err)
	}
	breaker.set(`{"breakers":["open"]}`)
	limit.set("\x00\xffno JSON")
	f.Save()
	info, err := os.Stat(filepath.Join(dir, "state.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g, breaker, limit, _ := process(t, dir)
	if breaker.got != `{"breakers":["open"]}` || limit.got != "\x00\xffno JSON" {
		t.Errorf("%q and %q came back", breaker.got, limit.got)
	}
	breaker.set(nothing)
	limit.set("")
	g.Save()
	_ = g.Close()
	if _, breaker, limit, _ = process(t, dir); breaker.got+limit.got != "" {
		t.Errorf("%q and %q came back although they were over", breaker.got, limit.got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("the folder holds %v", left)
	}
}

// What cannot be used is set aside, whatever it is, and the next life starts anew.
func TestFileThatCannotBeUsed(t *testing.T) {
	for name, content := range map[string]string{
		"empty":     "",
		"damaged":   `{"format":"httpowerd state","version":1,"rooms":{"breaker":{"json":`,
		"no object": `[1,2,3]`,
		"foreign":   `{"format":"something else","version":1}`,
		"newer":     `{"format":"httpowerd state","version":2,"rooms":{}}`,
		"two":       `{"format":"httpowerd state","version":1,"rooms":{}}{}`,
		"large":     `{"format":"httpowerd state","version":1,"rooms":{"x":{"data":"` + strings.Repeat("A", maxFile) + `"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			f, breaker, _, log := process(t, dir)
			if aside, err := os.ReadFile(path + ".unusable"); err != nil || string(aside) != content {
				t.Errorf("it was not set aside: %v", err)
			}
			if !strings.Contains(log.String(), "set aside") || breaker.got != "" {
				t.Errorf("%q was taken over; the log says %s", breaker.got, log)
			}
			breaker.set("1")
			f.Save()
			_ = f.Close()
			if _, breaker, _, _ := process(t, dir); breaker.got != "1" {
				t.Errorf("the next one got %q", breaker.got)
			}
		})
	}
}

func TestFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, breaker, _, log := process(t, dir)
	for i := range 3 {
		breaker.set(strings.Repeat("1", i+1))
		f.Save()
	}
	if n := strings.Count(log.String(), "was not written"); n != 1 || !strings.Contains(log.String(), "was not read") {
		t.Errorf("%d complaints about writing; the log says %s", n, log)
	}
}

// A part that its room does not take does not keep the others from theirs, nor does one that no room asks for.
func TestFilePartsOnTheirOwn(t *testing.T) {
	dir := t.TempDir()
	text := `{"format":"httpowerd state","version":1,"rooms":{"breaker":{"json":{"x":1}},"rate_limit":{"data":"aGVsbG8="},"gone":{"json":null}}}`
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	breaker, limit, log := &note{err: errors.New("of another kind")}, &note{}, &bytes.Buffer{}
	f := NewFile(dir, slog.New(slog.NewTextHandler(log, nil)), map[string]Keeps{"breaker": breaker, "rate_limit": limit})
	f.Load()
	defer func() { _ = f.Close() }()
	if limit.got != "hello" || !strings.Contains(log.String(), "of another kind") {
		t.Errorf("%q came back; the log says %s", limit.got, log)
	}
}

func TestFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	f, breaker, limit, log := process(t, dir)
	breaker.set(`"` + strings.Repeat("x", maxFile) + `"`)
	limit.set("small")
	f.Save()
	_ = f.Close()
	if info, err := os.Stat(filepath.Join(dir, "state.json")); err != nil || info.Size() > 1024 {
		t.Errorf("%v, %v", info, err)
	}
	if !strings.Contains(log.String(), "too large") {
		t.Errorf("the log says %s", log)
	}
	if _, breaker, limit, _ = process(t, dir); breaker.got != "" || limit.got != "small" {
		t.Errorf("%d bytes and %q came back", len(breaker.got), limit.got)
	}
}

// One process at a time has the folder; the next one gets it when it is free.
func TestFileHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	f, first, _, _ := process(t, dir)
	first.set("first")
	f.Save()
	g, second, _, log := process(t, dir)
	second.set("second")
	g.Save()
	g.Save()
	if second.got != "" || strings.Count(log.String(), "another process") != 1 {
		t.Errorf("%q was taken over; the log says %s", second.got, log)
	}
	_ = f.Close()
	g.Save()
	_ = g.Close()
	if _, third, _, _ := process(t, dir); third.got != "second" {
		t.Errorf("the third one got %q", third.got)
	}
}

// While it runs, a File is written every few seconds at most, and only when something changed.
func TestFileIsWrittenNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f, breaker, _, _ := process(t, dir)
		ctx, stop := context.WithCancel(t.Context())
		go f.Run(ctx)
		path := filepath.Join(dir, "state.json")
		size := func() int {
			data, _ := os.ReadFile(path)
			return len(data)
		}
		breaker.set("1")
		time.Sleep(SaveEvery - time.Millisecond)
		if size() != 0 {
			t.Error("it was written at once")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if size() == 0 {
			t.Fatal("it was not written")
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * SaveEvery)
		synctest.Wait()
		if size() != 0 {
			t.Error("it was written although nothing changed")
		}
		breaker.set("2")
		time.Sleep(SaveEvery)
		synctest.Wait()
		if size() == 0 {
			t.Error("it was not written after a change")
		}
		stop()
		synctest.Wait()
	})
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"format":"httpowerd state","version":1,"rooms":{"breaker":{"json":{"x":1}},"rate_limit":{"data":"aGVsbG8="}}}`))
	f.Add([]byte(`{"format":1}`))
	f.Add([]byte(`{"rooms":{"a":{"data":"\u0000"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseState(data)
		if err == nil && (d.Format != fileFormat || d.Version != fileVersion) {
			t.Errorf("%+v was taken", d)
		}
		for _, s := range d.Rooms {
			_ = s.content()
		}
	})
}
