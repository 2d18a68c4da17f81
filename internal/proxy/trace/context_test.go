package trace

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

const (
	theirTrace = "0af7651916cd43dd8448eb211c80319c"
	theirSpan  = "b7ad6b7169203331"
	theirs     = "00-" + theirTrace + "-" + theirSpan + "-01"
)

// tracerOf is a Tracer with settings and a sink that keeps what it gets.
func tracerOf(t testing.TB, c Config) (*Tracer, *kept) {
	t.Helper()
	tr := New(prometheus.NewRegistry(), discard(), redact.Default())
	k := &kept{}
	c.Timeout = max(c.Timeout, 1e9)
	tr.current.Store(&settings{Config: c, bound: uint64(c.Sample * (1 << 63)), sink: startSink(k, &c, tr.metrics, tr.log)})
	t.Cleanup(func() { tr.Close(t.Context()) })
	return tr, k
}

// through is what becomes of a request's fields, and the exchange.
func through(t *Tracer, h http.Header) (*exchange.Exchange, http.Header) {
	x := &exchange.Exchange{}
	h = h.Clone()
	if h == nil {
		h = http.Header{}
	}
	t.Begin(x, h)
	Carry(x, h)
	return x, h
}

func fields(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
	}
	return h
}

// TestTraceparent holds the rules of W3C Trace Context: a valid field is continued, any other one begins a trace anew.
func TestTraceparent(t *testing.T) {
	tracer, _ := tracerOf(t, Config{Carry: true})
	const rest = "-" + theirTrace + "-" + theirSpan + "-01"
	for _, c := range []struct {
		name      string
		lines     []string
		continued bool
	}{
		{"none", nil, false},
		{"a valid one", []string{theirs}, true},
		{"twice the same", []string{theirs, theirs}, false},
		{"two", []string{theirs, "00-" + strings.Repeat("a", 32) + "-" + theirSpan + "-01"}, false},
		{"two in one line", []string{theirs + "," + theirs}, false},
		{"empty", []string{""}, false},
		{"blanks around", []string{" \t" + theirs + "\t "}, true},
		{"version 00 that goes on", []string{theirs + "."}, false},
		{"version 00 with one field more", []string{theirs + "-what-the-future-will-be-like"}, false},
		{"version 00 with a dash more", []string{theirs + "-"}, false},
		{"a later version", []string{"cc" + rest}, true},
		{"a later version with one field more", []string{"cc" + rest + "-what-the-future-will-be-like"}, true},
		{"a later version with an empty field more", []string{"cc" + rest + "-"}, true},
		{"a later version that goes on without a dash", []string{"cc" + rest + ".what-the-future-will-be-like"}, false},
		{"version ff", []string{"ff" + rest}, false},
		{"version with a dot before", []string{".0" + rest}, false},
		{"version with a dot behind", []string{"0." + rest}, false},
		{"version in capitals", []string{"CC" + rest}, false},
		{"version of three digits", []string{"000" + rest}, false},
		{"version of four digits", []string{"0000" + rest}, false},
		{"version of one digit", []string{"0" + rest}, false},
		{"trace id of zeros", []string{"00-" + strings.Repeat("0", 32) + "-" + theirSpan + "-01"}, false},
		{"trace id with a dot before", []string{"00-." + theirTrace[1:] + "-" + theirSpan + "-01"}, false},
		{"trace id with a dot behind", []string{"00-" + theirTrace[1:] + ".-" + theirSpan + "-01"}, false},
		{"trace id in capitals", []string{"00-" + strings.ToUpper(theirTrace) + "-" + theirSpan + "-01"}, false},
		{"trace id too long", []string{"00-" + theirTrace + "0-" + theirSpan + "-01"}, false},
		{"trace id too short", []string{"00-" + theirTrace[1:] + "-" + theirSpan + "-01"}, false},
		{"span id of zeros", []string{"00-" + theirTrace + "-0000000000000000-01"}, false},
		{"span id with a dot before", []string{"00-" + theirTrace + "-." + theirSpan[1:] + "-01"}, false},
		{"span id with a dot behind", []string{"00-" + theirTrace + "-" + theirSpan[1:] + ".-01"}, false},
		{"span id in capitals", []string{"00-" + theirTrace + "-" + strings.ToUpper(theirSpan) + "-01"}, false},
		{"span id too long", []string{"00-" + theirTrace + "-" + theirSpan + "0-01"}, false},
		{"span id too short", []string{"00-" + theirTrace + "-" + theirSpan[1:] + "-01"}, false},
		{"flags with a dot before", []string{"00-" + theirTrace + "-" + theirSpan + "-.0"}, false},
		{"flags with a dot behind", []string{"00-" + theirTrace + "-" + theirSpan + "-0."}, false},
		{"flags in capitals", []string{"00-" + theirTrace + "-" + theirSpan + "-0A"}, false},
		{"flags of three digits", []string{"00-" + theirTrace + "-" + theirSpan + "-001"}, false},
		{"flags of one digit", []string{"00-" + theirTrace + "-" + theirSpan + "-1"}, false},
		{"no flags", []string{"00-" + theirTrace + "-" + theirSpan}, false},
		{"underscores for dashes", []string{strings.ReplaceAll(theirs, "-", "_")}, false},
	} {
		h := fields()
		if c.lines != nil {
			h[traceparent] = c.lines
		}
		x, out := through(tracer, h)
		got := out[traceparent]
		if len(got) != 1 || len(got[0]) != 55 || !strings.HasPrefix(got[0], "00-") {
			t.Errorf("%s: the upstream gets %q", c.name, got)
			continue
		}
		id, span := got[0][3:35], got[0][36:52]
		if (id == theirTrace) != c.continued || span == theirSpan || x.TraceID != id || id == strings.Repeat("0", 32) || span == strings.Repeat("0", 16) {
			t.Errorf("%s: the upstream gets %q, the record %s; continued %v", c.name, got, x.TraceID, c.continued)
		}
		var again exchange.Exchange
		if Identify(&again, h); (again.TraceID == theirTrace) != c.continued || !c.continued && again.TraceID != "" {
			t.Errorf("%s: with tracing off the record gets %q", c.name, again.TraceID)
		}
	}
}

// Names that are no more than similar are nobody's business, and pass.
func TestSimilarNames(t *testing.T) {
	tracer, _ := tracerOf(t, Config{Carry: true})
	for _, name := range []string{"Trace-Parent", "Trace.parent"} {
		x, out := through(tracer, fields(name, theirs))
		if x.TraceID == theirTrace || out.Get(name) != theirs && out[name][0] != theirs {
			t.Errorf("%s: %s, %v", name, x.TraceID, out)
		}
	}
	_, out := through(tracer, fields(traceparent, theirs, "Trace-State", "foo=1"))
	if out[tracestate] != nil || out["Trace-State"] == nil {
		t.Errorf("%v", out)
	}
}

// TestTracestate: the members are carried in their order, and all of them fall with one that breaks the rules.
func TestTracestate(t *testing.T) {
	tracer, _ := tracerOf(t, Config{Carry: true})
	members := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("bar%02d=%02d", i, i))
		}
		return strings.Join(all, ",")
	}
	z := func(n int) string { return strings.Repeat("z", n) }
	var value []byte
	for c := byte(' '); c <= '~'; c++ {
		if c != ',' && c != '=' {
			value = append(value, c)
		}
	}
	same := "\x00"
	for _, c := range []struct {
		name  string
		lines []string
		want  string // same: as it was; "": none
	}{
		{"one member", []string{"foo=1"}, same},
		{"two members", []string{"foo=1,bar=2"}, same},
		{"several lines", []string{"foo=1,bar=2", "rojo=1,congo=2", "baz=3"}, "foo=1,bar=2,rojo=1,congo=2,baz=3"},
		{"an empty line before", []string{"", "foo=1"}, "foo=1"},
		{"an empty line behind", []string{"foo=1", ""}, "foo=1"},
		{"nothing but an empty line", []string{""}, ""},
		{"blanks between", []string{"foo=1 \t , \t bar=2, \t baz=3"}, same},
		{"blanks around", []string{" foo=1", "bar=2 \t"}, "foo=1,bar=2"},
		{"a key twice", []string{"foo=1,foo=2"}, same},
		{"all characters of keys", []string{"abcdefghijklmnopqrstuvwxyz0123456789_-*/=1"}, same},
		{"all characters of tenants", []string{"0abcdefghijklmnopqrstuvwxyz_-*/@a-z0-9_-*/=1"}, same},
		{"all characters of values", []string{"foo=" + strings.TrimSpace(string(value)) + "~"}, same},
		{"a blank before =", []string{"foo =1"}, ""},
		{"a key in capitals", []string{"FOO=1"}, ""},
		{"a key with a dot", []string{"foo.bar=1"}, ""},
		{"a key that begins with a digit", []string{"0foo=1"}, ""},
		{"no system", []string{"foo@=1,bar=2"}, ""},
		{"no tenant", []string{"@foo=1,bar=2"}, ""},
		{"two @", []string{"foo@@bar=1,bar=2"}, ""},
		{"two systems", []string{"foo@bar@baz=1,bar=2"}, ""},
		{"32 members", []string{members(32)}, same},
		{"33 members", []string{members(33)}, ""},
		{"33 members in two lines", []string{members(32), "foo=1"}, ""},
		{"a long key", []string{"foo=1," + z(256) + "=1"}, same},
		{"a key that is too long", []string{"foo=1," + z(257) + "=1"}, ""},
		{"a long tenant", []string{"foo=1," + z(241) + "@v=1"}, same},
		{"a tenant that is too long", []string{"foo=1," + z(242) + "@v=1"}, ""},
		{"a long system", []string{"foo=1,t@" + z(14) + "=1"}, same},
		{"a system that is too long", []string{"foo=1,t@" + z(15) + "=1"}, ""},
		{"= in a value", []string{"foo=bar=baz"}, ""},
		{"no value", []string{"foo=,bar=3"}, ""},
		{"no =", []string{"foo"}, ""},
		{"a long value", []string{"foo=" + z(256)}, same},
		{"a value that is too long", []string{"foo=" + z(257)}, ""},
		{"a control character", []string{"foo=a\x01b"}, ""},
		{"no ASCII", []string{"foo=ä"}, ""},
		{"more than anybody needs", []string{members(16) + strings.Repeat(",", 9000)}, ""},
	} {
		h := fields(traceparent, theirs, "Baggage", "k=v")
		h[tracestate] = c.lines
		_, out := through(tracer, h)
		want := []string{c.want}
		switch c.want {
		case same:
			want = c.lines
		case "":
			want = nil
		}
		if !slices.Equal(out[tracestate], want) || out.Get("Baggage") != "k=v" || !strings.HasPrefix(out.Get(traceparent), "00-"+theirTrace) {
			t.Errorf("%s: the upstream gets %q of %q", c.name, out[tracestate], c.lines)
		}
	}
	for _, broken := range [][]string{nil, {"nonsense"}, {theirs, theirs}} {
		h := fields(tracestate, "foo=1,bar=2", "Baggage", "k=v")
		if broken != nil {
			h[traceparent] = broken
		}
		if _, out := through(tracer, h); out[tracestate] != nil || out.Get("Baggage") != "k=v" {
			t.Errorf("a trace that begins here has the state of another one: %v", out)
		}
	}
}

// The client's decision is followed; where there is none, the share of the settings decides. Flags that nobody knows end here.
func TestSampling(t *testing.T) {
	none, _ := tracerOf(t, Config{Carry: true, Sample: 0})
	all, _ := tracerOf(t, Config{Carry: true, Sample: 1})
	half, _ := tracerOf(t, Config{Carry: true, Sample: 0.5})
	for _, c := range []struct {
		tracer  *Tracer
		flags   string // of the client; "": it sends nothing
		sampled bool
		want    string
	}{
		{none, "", false, "00"}, {none, "00", false, "00"}, {none, "01", true, "01"}, {none, "ff", true, "03"}, {none, "fe", false, "02"},
		{all, "", true, "01"}, {all, "00", false, "00"}, {all, "01", true, "01"}, {all, "02", false, "02"}, {all, "03", true, "03"},
	} {
		h := fields()
		if c.flags != "" {
			h = fields(traceparent, "00-"+theirTrace+"-"+theirSpan+"-"+c.flags)
		}
		x, out := through(c.tracer, h)
		if x.Trace.Sampled != c.sampled || !strings.HasSuffix(out.Get(traceparent), "-"+c.want) {
			t.Errorf("flags %q: sampled %v, the upstream gets %s", c.flags, x.Trace.Sampled, out.Get(traceparent))
		}
	}
	n := 0
	for range 10_000 {
		if x, _ := through(half, fields()); x.Trace.Sampled {
			n++
		}
	}
	if n < 4500 || n > 5500 {
		t.Errorf("%d of 10000 are sampled; want half", n)
	}
}

// Without leave to carry a trace, and with tracing off, the client's fields pass as they came.
func TestUntouched(t *testing.T) {
	quiet, _ := tracerOf(t, Config{Sample: 1})
	for name, tracer := range map[string]*Tracer{"nil": nil, "off": New(nil, discard(), redact.Default()), "not propagated": quiet} {
		for _, h := range []http.Header{fields(), fields(traceparent, "nonsense", tracestate, "B@D", tracestate, "foo=1"), fields(traceparent, theirs, tracestate, "foo=1")} {
			x, out := through(tracer, h)
			if !slices.Equal(out[traceparent], h[traceparent]) || !slices.Equal(out[tracestate], h[tracestate]) {
				t.Errorf("%s: %v becomes %v", name, h, out)
			}
			if h.Get(traceparent) == theirs && x.TraceID != theirTrace {
				t.Errorf("%s: the record has %q", name, x.TraceID)
			}
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(theirs, "foo=1", "bar=2")
	f.Add("cc-"+theirTrace+"-"+theirSpan+"-01-x", "t@s=1", "")
	f.Fuzz(func(t *testing.T, parentField, first, second string) {
		h := fields(traceparent, parentField, tracestate, first, tracestate, second)
		x, out := through(fuzzed, h)
		got := out[traceparent]
		if len(got) != 1 || len(out[tracestate]) > 1 {
			t.Fatalf("%q", out)
		}
		p, ok := parse(got[0])
		if !ok || p.trace != x.Trace.ID || p.text != x.TraceID {
			t.Fatalf("the upstream gets %q, the record %q", got, x.TraceID)
		}
		for _, line := range out[tracestate] {
			if strings.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("%q", line)
			}
		}
	})
}

var fuzzed = func() *Tracer {
	tr := New(nil, discard(), redact.Default())
	tr.current.Store(&settings{Config: Config{Carry: true}})
	return tr
}()
