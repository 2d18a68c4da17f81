package audit

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/setting"
)

// TestCollectorClaims: a collector that says it refused more records than it was sent ends nothing, and is believed for what it was sent alone.
func TestCollectorClaims(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"partialSuccess":{"rejectedLogRecords":"400"}}`)
	}))
	defer s.Close()
	for name, adjust := range map[string]func(*Config){
		"as the output": func(c *Config) { c.Output = "otlp+" + s.URL + "/v1/logs" },
		"as a copy":     func(c *Config) { c.Also = []string{"otlp+" + s.URL + "/v1/logs"} },
	} {
		t.Run(name, func(t *testing.T) {
			tr := at(t, filepath.Join(t.TempDir(), "audit.jsonl"), adjust)
			time.Sleep(50 * time.Millisecond)
			tr.end()
			lost := tr.counter("httpowerd_audit_unsendable_total") + tr.counter("httpowerd_audit_copy_dropped_total")
			if lost < 2 || lost > 8 { // the first and the last record, and what the trail says of the loss
				t.Errorf("%v records lost", lost)
			}
		})
	}
}

// TestRetryAfter: a collector that says when to come back is not asked before, and cannot ask for ever.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for value, after := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "0": 0, "-5": 0, "1.5": 0, "soon": 0, "99999": longestAfter, "99999999999999999999": 0,
		"Wed, 04 Mar 2026 05:06:10 GMT": 3 * time.Second, "Wed, 04 Mar 2020 05:06:10 GMT": 0, "Wed, 04 Mar 2099 05:06:10 GMT": longestAfter,
	} {
		want(t, value, retryAfter(http.Header{"Retry-After": {value}}, now), after)
	}
	c := &collector{}
	var times []time.Time
	c.answer = func(int) (int, string) {
		times = append(times, time.Now())
		if len(times) == 1 {
			return http.StatusTooManyRequests, ""
		}
		return http.StatusOK, ""
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "1")
		c.ServeHTTP(w, r)
	}))
	defer s.Close()
	tr := at(t, "otlp+"+s.URL, nil)
	tr.end()
	if d := times[1].Sub(times[0]); d < 900*time.Millisecond {
		t.Errorf("asked again after %s", d)
	}
	chained(t, c.got)
}

// roundTrip is an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestCollectorAnswersEarly: the memory of a request is not written to while the transport may still read it, which it may until it closes the body.
func TestCollectorAnswersEarly(t *testing.T) {
	target, err := setting.ParseTarget("otlp+http://127.0.0.1:4318")
	if err != nil {
		t.Fatal(err)
	}
	o := newOTLP(target, TLSFiles{})
	var first io.ReadCloser
	o.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		answer := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}
		if first == nil {
			first, answer.StatusCode = r.Body, http.StatusRequestEntityTooLarge // without a look at it
			return answer, nil
		}
		return answer, r.Body.Close()
	})
	lines := strings.Repeat(opening+"2026-03-04T05:06:07.000000000Z\",\"kind\":\"request\"}\n", 8)
	if n, err := o.Write([]byte(lines)); n != len(lines) || err != nil {
		t.Fatal(n, err)
	}
	text, err := io.ReadAll(first)
	if err != nil || !json.Valid(text) || strings.Count(string(text), "timeUnixNano") != 8 {
		t.Errorf("%v in %s", err, text)
	}
}

// TestEmptiedCheckpointFile: with the key, a trail that no checkpoint speaks of is a fault, also where the file is there and is empty, or is of other records.
func TestEmptiedCheckpointFile(t *testing.T) {
	s := newStory(t)
	own, genuine := publicOf(t, s.dir), filepath.Join(s.dir, "audit.jsonl"+checkpointSuffix)
	forged, _ := sealedLines(genesis(), "new", 8)
	trail := put(t, filepath.Join(t.TempDir(), "audit.jsonl"), join(forged))
	_, err := Verify(Evidence{Keys: own, Checkpoints: put(t, filepath.Join(t.TempDir(), "none"), "")}, trail)
	wantText(t, "an empty file", faultOf(t, err).What, "no checkpoint is signed by the key given")
	_, err = Verify(Evidence{Keys: own, Checkpoints: genuine}, trail)
	wantText(t, "a new trail", faultOf(t, err).What, "the end was cut off")
	later, _ := sealedLines(link{seq: 10_000, hash: genesis().hash}, "continued", 8)
	_, err = Verify(Evidence{Keys: own, Checkpoints: genuine}, put(t, trail, join(later)))
	wantText(t, "a trail that begins behind all checkpoints", faultOf(t, err).What, "no checkpoint is signed by the key given")
}

// TestCheckpointsNotInTheFile: where the file is behind the trail, the report says so, and how far the trail's own checkpoints reach.
func TestCheckpointsNotInTheFile(t *testing.T) {
	s := newStory(t)
	var paths []string
	for _, f := range s.files {
		paths = append(paths, filepath.Join(s.dir, f))
	}
	genuine := filepath.Join(s.dir, "audit.jsonl"+checkpointSuffix)
	lines := splitLines(read(t, genuine))
	put(t, genuine, join(lines[:2]))
	wantText(t, "cut off", verified(t, paths...).String(), "the end was checked: ", "note: the trail has a checkpoint of record ", "which the file lacks")
	put(t, genuine, "")
	wantText(t, "empty", verified(t, paths...).String(), "the end was not checked: ", "note: the last checkpoint in the trail is of record ", "; behind it ")
}

// TestSetAsideAndRemoved: a trail that its attacker made the daemon set aside is missed when it is gone; one that the daemon's own retention took is not.
func TestSetAsideAndRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	run := func(most int, records int) {
		synctest.Test(t, func(t *testing.T) {
			tr := at(t, path, func(c *Config) { signed(dir)(c); c.MaxFiles, c.MaxSize = most, 64<<10 })
			tr.fill(records)
			time.Sleep(2 * time.Minute)
			tr.end()
		})
	}
	run(0, 10_000)
	text := read(t, path)
	put(t, path, text[:len(text)-4]+"0\"}\n")
	if read(t, path) == text {
		put(t, path, text[:len(text)-4]+"1\"}\n")
	}
	run(0, 30_000) // more records than the first had
	all := trailFiles(t, path)
	want(t, "files", len(all), 2)
	kept := read(t, all[0])
	if err := os.Remove(all[0]); err != nil {
		t.Fatal(err)
	}
	_, err := VerifyFiles(path)
	wantText(t, "removed", faultOf(t, err).What, "of which the checkpoint at ", "the file that was set aside because its last record was altered was removed, or was not given")

	put(t, all[0], kept)
	run(1, 100_000) // and now it goes for its age
	r := verified(t, trailFiles(t, path)...)
	if r.Earlier == 0 || r.Deleted == 0 {
		t.Errorf("%d earlier checkpoints, %d deletions", r.Earlier, r.Deleted)
	}
}

// TestDeletionExcusesOnlyWithACheckpoint: whoever appends a deletion to the trail excuses nothing by it.
func TestDeletionExcusesOnlyWithACheckpoint(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	vouch := func(l link, at time.Time) string {
		p := &checkpoint{time: at, of: l, records: 1, key: key.Public().(ed25519.PublicKey)}
		p.signature = ed25519.Sign(key, p.text())
		return string(p.append(nil)) + "}"
	}
	event := func(l link, rest string) (string, link) {
		line, next := l.seal([]byte(`{"time":"2026-03-04T06:06:07.000000000Z","kind":"lifecycle","event":`+rest), 0)
		return string(line), next
	}
	first, one := event(genesis(), `"audit_started","chain":"new"`)
	gone, two := event(one, `"file_deleted","name":"audit-20260304T053000.000000000Z.jsonl.gz","bound":"max_files"`)
	earlier := vouch(link{seq: 700, hash: genesis().hash}, when)
	trail := put(t, filepath.Join(t.TempDir(), "audit.jsonl"), join([]string{first, gone}))

	put(t, trail+checkpointSuffix, join([]string{earlier, vouch(two, when.Add(time.Hour))}))
	want(t, "vouched for", verified(t, trail).Earlier, 1)
	put(t, trail+checkpointSuffix, join([]string{earlier, vouch(one, when.Add(time.Hour))}))
	_, err = VerifyFiles(trail)
	wantText(t, "appended", faultOf(t, err).What, "an earlier trail was removed")
	put(t, trail+checkpointSuffix, join([]string{vouch(link{seq: 700, hash: genesis().hash}, when.Add(30*time.Minute)), vouch(two, when.Add(time.Hour))}))
	_, err = VerifyFiles(trail)
	wantText(t, "of younger records", faultOf(t, err).What, "an earlier trail was removed")
}

// TestCheckpointFileThatOnlyGrows: on storage where files can be appended to and nothing else, a torn line and the bound end no checkpoints.
func TestCheckpointFileThatOnlyGrows(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{}
	signed(dir)(&cfg)
	var said buffer
	begin := func() *checkpoints {
		t.Helper()
		c, err := openCheckpoints(cfg.Checkpoint, path, said.logger(), m)
		if err != nil {
			t.Fatal(err)
		}
		c.truncate = func(int64) error { return errors.New("only appending") }
		return c
	}
	c := begin()
	c.sign(link{seq: 7, hash: genesis().hash}, time.Now())
	whole := read(t, c.path)
	if _, err := c.f.WriteString(whole[:50]); err != nil { // a process that died over it
		t.Fatal(err)
	}
	if err := c.cut(); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	c = begin() // whose file ends with the piece
	c.sign(link{seq: 8, hash: genesis().hash}, time.Now())
	all, torn, err := readCheckpoints(c.path)
	if err != nil || !torn || len(all) != 2 {
		t.Errorf("%d checkpoints, torn %v, %v", len(all), torn, err)
	}

	if err := os.MkdirAll(filepath.Join(c.path+nextSuffix, "x"), 0o700); err != nil { // no other file can be begun
		t.Fatal(err)
	}
	c.size = maxCheckpoints
	c.sign(link{seq: 9, hash: genesis().hash}, time.Now())
	c.sign(link{seq: 10, hash: genesis().hash}, time.Now())
	if all, _, err = readCheckpoints(c.path); err != nil || len(all) != 4 {
		t.Errorf("%d checkpoints, %v", len(all), err)
	}
	want(t, "told", strings.Count(said.String(), "goes on growing"), 1)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// TestFirstRecordComesFirst: what the keeper finds to delete at the start is told behind the record that says how the chain goes on.
func TestFirstRecordComesFirst(t *testing.T) {
	for range 30 {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		for _, stamp := range []string{"20260101T000000.000000000Z", "20260102T000000.000000000Z"} {
			put(t, filepath.Join(filepath.Dir(path), "audit-"+stamp+".jsonl"), "x\n")
		}
		tr := at(t, path, func(c *Config) { c.MaxFiles = 1 })
		eventually(t, "it is gone", func() bool { return tr.counter("httpowerd_audit_files_deleted_total") == 1 })
		tr.end()
		want(t, "trail", summary(t, splitLines(read(t, path))), "audit_started file_deleted audit_stopped")
	}
}

// TestDeletionWaitsForItsRecord: a file goes when the output has the record of it, or takes nothing, and not when the trail ends without it.
func TestDeletionWaitsForItsRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fake{}
		tr := on(t, s, true, standard)
		time.Sleep(time.Second)
		if !tr.written(t.Context(), KindLifecycle, slog.String("event", deletedEvent)) {
			t.Error("not written")
		}
		want(t, "in the output", strings.Count(strings.Join(s.lines(), "\n"), deletedEvent), 1)
		s.failing(refuse)
		tr.events(1)
		time.Sleep(time.Second)
		if !tr.written(t.Context(), KindLifecycle, slog.String("event", deletedEvent)) {
			t.Error("a full disk keeps the file that fills it")
		}
		s.failing(nil)
		tr.end()
		want(t, "after the end", tr.written(t.Context(), KindLifecycle, slog.String("event", deletedEvent)), false)
	})
	dir := t.TempDir()
	name := "audit-20260101T000000.000000000Z.jsonl"
	tr := at(t, filepath.Join(dir, "audit.jsonl"), nil)
	tr.end()
	put(t, filepath.Join(dir, name), "x\n")
	k := &keeper{names: newNaming(filepath.Join(dir, "audit.jsonl")), log: (&buffer{}).logger(), event: tr.written, gone: func() { t.Error("it counts") }}
	if err := k.remove(t.Context(), rotated{name: name}, "keep"); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		t.Error("deleted without a record:", err)
	}
}

// TestInheritedAlteration: an altered record at the end of the newest rotated file is told as one, also where no other file is left.
func TestInheritedAlteration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := at(t, path, nil)
	tr.events(3)
	tr.end()
	text := read(t, path)
	put(t, filepath.Join(filepath.Dir(path), "audit-20260101T000000.000000000Z.jsonl"), strings.Replace(text, "audit_stopped", "audit_stoppeD", 1))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	tr = at(t, path, nil)
	tr.end()
	wantText(t, "trail", read(t, path), `"chain":"broken"`)
	wantText(t, "log", tr.said.String(), "is not what was written")
}

// TestEventsDoNotHang: an output that takes nothing for days holds up neither a breaker, nor a reload, nor the stop; what found no room is counted.
func TestEventsDoNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fake{}
		s.failing(refuse)
		tr := on(t, s, true, limits{records: 4, bytes: 1 << 20})
		for range 7 { // and the first record
			tr.Event(KindBreaker, slog.String("event", "opened"))
		}
		begin := time.Now()
		tr.Event(KindBreaker, slog.String("event", "opened"))
		want(t, "a breaker waits", time.Since(begin), 0)
		tr.Event(KindLifecycle, slog.String("event", "stopped"))
		want(t, "the daemon waits", time.Since(begin), patience)
		want(t, "lost", tr.counter("httpowerd_audit_dropped_total"), 2)
		go func() {
			time.Sleep(time.Second)
			s.failing(nil)
		}()
		tr.Event(KindAdmin, slog.String("event", "reset"))
		if d := time.Since(begin); d >= 2*patience {
			t.Errorf("the room that there was in time was not taken: %s", d)
		}
		tr.end()
		wantText(t, "trail", summary(t, s.lines()), "records_missing:2", "reset")
	})
}

// TestChainInFront: a chain that somebody puts before the trail passes, as a short run looks the same, but the report says that no checkpoint holds it.
func TestChainInFront(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	tr := at(t, path, signed(dir))
	tr.events(3)
	tr.end()
	own, trail := publicOf(t, dir), splitLines(read(t, path))
	evidence := Evidence{Keys: own, Checkpoints: path + checkpointSuffix}
	forged, _ := sealedLines(genesis(), "new", 8)
	r, err := Verify(evidence, put(t, filepath.Join(dir, "both.jsonl"), join(forged, trail)))
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, "report", r.String(), "a new chain begins behind record 8", "behind its last checkpoint 8 records")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	tr = at(t, path, signed(dir)) // a trail that was restarted, and all of it is there
	tr.end()
	if r, err = Verify(evidence, put(t, filepath.Join(dir, "both.jsonl"), join(trail, splitLines(read(t, path))))); err != nil {
		t.Fatal(err)
	}
	wantText(t, "report", r.String(), "a new chain begins behind record 5")
	if strings.Contains(r.String(), "behind its last checkpoint") {
		t.Error(r)
	}
}
