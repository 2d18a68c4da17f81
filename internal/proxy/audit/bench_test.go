package audit

import (
	"crypto/sha256"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/redact"
)

// BenchmarkExchange is what an exchange pays for its record: redaction, encoding, the queue.
func BenchmarkExchange(b *testing.B) {
	l := &Log{queue: newQueue(limits{records: 1 << 30, bytes: 1 << 40}), builtin: redact.Default()}
	l.metrics, _ = newMetrics(prometheus.NewRegistry())
	l.scratch.New = func() any { return &scratch{} }
	x := typical()
	var spare batch
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		l.Exchange(x, nil)
		if n++; n%1000 == 0 { // what a writer does
			var full batch
			full, _ = l.queue.take(spare)
			l.queue.done(len(full.entries), full.size(0, len(full.entries)))
			spare = full
		}
	}
}

// BenchmarkEncode is the same without the queue, also for a question that is remembered.
func BenchmarkEncode(b *testing.B) {
	for name, known := range map[string]*repeats{"anew": nil, "repeated": newRepeats()} {
		b.Run(name, func(b *testing.B) {
			r := record{redactor: redact.Default(), repeats: known}
			x := typical()
			var line []byte
			b.ReportAllocs()
			for b.Loop() {
				line = r.appendExchange(line[:0], x, &Extra{})
			}
			b.SetBytes(int64(len(line)))
		})
	}
}

// BenchmarkSeal is the chain's part in the writer.
func BenchmarkSeal(b *testing.B) {
	r := record{redactor: redact.Default()}
	rec := r.appendExchange(nil, typical(), &Extra{})
	state, d := genesis(), digest{Hash: sha256.New()}
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line, state = state.sealBy(&d, append(line[:0], rec...), 0)
	}
	b.SetBytes(int64(len(line)))
}

// BenchmarkTrail is all of it with the chain on: one iteration is one record from the exchange into the file.
func BenchmarkTrail(b *testing.B) {
	for name, output := range map[string]string{"file": filepath.Join(b.TempDir(), "audit.jsonl"), "null": "/dev/null"} {
		b.Run(name, func(b *testing.B) {
			cfg := Default()
			cfg.Output, cfg.MaxSize = output, 0
			l, err := Open(cfg, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(io.Discard, nil)))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				x := typical()
				for pb.Next() {
					l.Exchange(x, &Extra{End: x.Start})
				}
			})
			if err := l.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
