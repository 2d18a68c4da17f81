package daemon

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// collector takes spans by OTLP, and keeps what it got byte for byte.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	t       *testing.T
	url     string
	partial *collectorpb.ExportTracePartialSuccess // what it says of each batch; nil: nothing

	mu       sync.Mutex
	spans    []span
	resource map[string]string
	raw      bytes.Buffer
	heads    []http.Header
	path     string
}

// span is one as tests read it.
type span struct {
	name, kind, trace, id, parent string
	status                        tracepb.Status_StatusCode
	attrs                         map[string]string
	events                        map[string]map[string]string
	flags                         uint32
	start, end                    uint64
}

func httpCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		text, err := io.ReadAll(body)
		var in collectorpb.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(text, &in) != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
			http.Error(w, "no OTLP", http.StatusBadRequest)
			return
		}
		c.take(&in, text, r.Header, r.URL.Path)
		said, _ := proto.Marshal(&collectorpb.ExportTraceServiceResponse{PartialSuccess: c.partial})
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(said)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

func grpcCollector(t *testing.T) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{t: t, url: "grpc://" + l.Addr().String()}
	s := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, c)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return c
}

// Export is the gRPC side.
func (c *collector) Export(ctx context.Context, in *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	text, err := proto.Marshal(in)
	h := http.Header{}
	md, _ := metadata.FromIncomingContext(ctx)
	for name, values := range md {
		h[http.CanonicalHeaderKey(name)] = values
	}
	c.take(in, text, h, "")
	return &collectorpb.ExportTraceServiceResponse{PartialSuccess: c.partial}, err
}

func (c *collector) take(in *collectorpb.ExportTraceServiceRequest, text []byte, head http.Header, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(text)
	c.heads = append(c.heads, head)
	c.path = path
	for _, rs := range in.GetResourceSpans() {
		c.resource = map[string]string{}
		for _, a := range rs.GetResource().GetAttributes() {
			c.resource[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, readSpan(s))
			}
		}
	}
}

func readSpan(s *tracepb.Span) span {
	out := span{name: s.GetName(), kind: strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"), trace: hex.EncodeToString(s.GetTraceId()),
		id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()), status: s.GetStatus().GetCode(), flags: s.GetFlags(),
		attrs: map[string]string{}, events: map[string]map[string]string{}, start: s.GetStartTimeUnixNano(), end: s.GetEndTimeUnixNano()}
	for _, a := range s.GetAttributes() {
		out.attrs[a.GetKey()] = strings.Trim(strings.SplitN(a.GetValue().String(), ":", 2)[1], `"`)
	}
	for _, e := range s.GetEvents() {
		attrs := map[string]string{"time": time.Unix(0, int64(e.GetTimeUnixNano())).String()}
		for _, a := range e.GetAttributes() {
			attrs[a.GetKey()] = strings.Trim(strings.SplitN(a.GetValue().String(), ":", 2)[1], `"`)
		}
		out.events[e.GetName()] = attrs
	}
	return out
}

// got waits for n spans, and finds that there are no more.
func (c *collector) got(n int) []span {
	c.t.Helper()
	var out []span
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		out = append(out[:0], c.spans...)
		c.mu.Unlock()
		if len(out) >= n {
			break
		}
	}
	if len(out) != n {
		c.t.Fatalf("%d spans arrived; want %d: %+v", len(out), n, out)
	}
	return out
}

// of finds the spans of a kind, in the order in which they began.
func of(spans []span, kind string) []span {
	var out []span
	for _, s := range spans {
		if s.kind == kind {
			out = append(out, s)
		}
	}
	return out
}

// placeholder stands for all of them.
const placeholder = "[redacted]"

var anyPlaceholder = regexp.MustCompile(`<redacted:[a-z0-9-]+(:[0-9a-f]{4})?>`)

// want checks attributes; "-": not there.
func (s span) want(t *testing.T, attrs map[string]string) {
	t.Helper()
	for key, want := range attrs {
		got, there := s.attrs[key]
		got = anyPlaceholder.ReplaceAllString(got, placeholder)
		if want == "-" && there || want != "-" && got != want {
			t.Errorf("%s %s: %s is %q; want %q\n%v", s.kind, s.name, key, got, want, s.attrs)
		}
	}
}
