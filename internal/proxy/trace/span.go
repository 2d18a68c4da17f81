package trace

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// The bounds of what a client controls, in bytes, and of what one exchange may make.
const (
	maxURL      = 2 << 10
	maxURLRead  = 64 << 10
	maxText     = 512
	maxMethod   = 32
	maxAttempts = 100
)

// End is what the door knows of an exchange that is over.
type End struct {
	Time     time.Time
	Redactor *redact.Redactor // nil: the Tracer's
	Protocol string           // the client's version of HTTP: 1.0, 1.1, 2
}

// span is a finished span, as exporters read it. The embedded interface is nil: it only lets the type be one.
type span struct {
	sdk.ReadOnlySpan
	name       string
	kind       trace.SpanKind
	context    trace.SpanContext
	parent     trace.SpanContext
	start, end time.Time
	attributes []attribute.KeyValue
	events     []sdk.Event
	status     sdk.Status
	resource   *resource.Resource
	children   int
}

func (s *span) Name() string                                { return s.name }
func (s *span) SpanContext() trace.SpanContext              { return s.context }
func (s *span) Parent() trace.SpanContext                   { return s.parent }
func (s *span) SpanKind() trace.SpanKind                    { return s.kind }
func (s *span) StartTime() time.Time                        { return s.start }
func (s *span) EndTime() time.Time                          { return s.end }
func (s *span) Attributes() []attribute.KeyValue            { return s.attributes }
func (s *span) Links() []sdk.Link                           { return nil }
func (s *span) Events() []sdk.Event                         { return s.events }
func (s *span) Status() sdk.Status                          { return s.status }
func (s *span) InstrumentationScope() instrumentation.Scope { return scope }
func (s *span) Resource() *resource.Resource                { return s.resource }
func (s *span) DroppedAttributes() int                      { return 0 }
func (s *span) DroppedLinks() int                           { return 0 }
func (s *span) DroppedEvents() int                          { return 0 }
func (s *span) ChildSpanCount() int                         { return s.children }

// InstrumentationLibrary is the old name of InstrumentationScope.
func (s *span) InstrumentationLibrary() instrumentation.Scope { return scope }

var scope = instrumentation.Scope{Name: "httpowerd", SchemaURL: semconv.SchemaURL}

// Our own attributes and events.
const (
	keyRequestID   = attribute.Key("httpowerd.request_id")
	keyOutcome     = attribute.Key("httpowerd.outcome")
	keyMode        = attribute.Key("httpowerd.mode")
	keyPolicy      = attribute.Key("httpowerd.policy")
	keyTenant      = attribute.Key("httpowerd.tenant")
	keyStatusBy    = attribute.Key("httpowerd.status_by")
	keyAttempts    = attribute.Key("httpowerd.attempts")
	keyBreaker     = attribute.Key("httpowerd.breaker")
	keyDedup       = attribute.Key("httpowerd.dedup")
	keyNotRetried  = attribute.Key("httpowerd.not_retried")
	keyObserved    = attribute.Key("httpowerd.observed")
	keyUnapplied   = attribute.Key("httpowerd.unapplied")
	keyBytesIn     = attribute.Key("httpowerd.request_bytes")
	keyBytesOut    = attribute.Key("httpowerd.response_bytes")
	keyReason      = attribute.Key("httpowerd.reason")
	keyWait        = attribute.Key("httpowerd.wait_seconds")
	keyReused      = attribute.Key("httpowerd.connection.reused")
	keyResult      = attribute.Key("httpowerd.result")
	eventLimitWait = "httpowerd.limit.wait"
	eventRetry     = "httpowerd.retry.pause"
	eventHedge     = "httpowerd.hedge"
	eventRefused   = "httpowerd.refused"
	eventBreaker   = "httpowerd.breaker.refused"
)

// maker makes the spans of one exchange.
type maker struct {
	x        *exchange.Exchange
	e        *End
	redactor *redact.Redactor
	url      string // redacted
	method   []attribute.KeyValue
	name     string
	address  []attribute.KeyValue // of the server
}

// spansOf makes the spans of x: its own first, then those of its attempts.
func spansOf(x *exchange.Exchange, e *End) []*span {
	m := maker{x: x, e: e, redactor: e.Redactor}
	m.url = clip(string(m.redactor.AppendURL(nil, x.URL[:min(len(x.URL), maxURLRead)], nil)), maxURL)
	m.name, m.method = m.methodOf()
	m.address = m.addressOf()
	story := x.Story()
	all := []*span{m.server(&story)}
	if x.Kind == exchange.KindTunnel {
		m.name, m.method = "connect", nil // by itself this is no request
	}
	for i := range story.Attempts[:min(len(story.Attempts), maxAttempts)] {
		all = append(all, m.client(&story.Attempts[i]))
	}
	all[0].children = len(all) - 1
	return all
}

// methodOf is the span's name and what says which method was asked for. Names must be few.
func (m *maker) methodOf() (string, []attribute.KeyValue) {
	switch m.x.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return m.x.Method, []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(m.x.Method)}
	case "":
		return "HTTP", []attribute.KeyValue{semconv.HTTPRequestMethodKey.String("_OTHER")} // a head that could not be read
	}
	return "HTTP", []attribute.KeyValue{semconv.HTTPRequestMethodKey.String("_OTHER"), semconv.HTTPRequestMethodOriginal(m.clean(m.x.Method, maxMethod))}
}

func (m *maker) addressOf() []attribute.KeyValue {
	t := m.x.Target
	if t.Host == "" {
		return nil
	}
	host := t.Host
	if said := exchange.HostIn(m.x.URL, host); said != host && m.redactor.Text(said) != said {
		host = said // its case gives a secret away
	}
	attrs := []attribute.KeyValue{semconv.ServerAddress(m.clean(host, maxText))}
	if t.Port != 0 {
		attrs = append(attrs, semconv.ServerPort(int(t.Port)))
	}
	return attrs
}

// clean is a text of the client's without its secrets.
func (m *maker) clean(s string, limit int) string {
	return clip(string(m.redactor.AppendText(nil, s[:min(len(s), maxURLRead)], nil)), limit)
}

// clip makes s short and valid: a collector refuses whole batches for one byte that is not UTF-8.
func clip(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "")
}

func (m *maker) context(id [8]byte) trace.SpanContext {
	t := &m.x.Trace
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: t.ID, SpanID: id, TraceFlags: trace.TraceFlags(t.Flags)})
}

// server is the span of the exchange.
func (m *maker) server(story *exchange.Story) *span {
	x := m.x
	s := &span{name: m.name, kind: trace.SpanKindServer, context: m.context(x.Trace.Span), start: x.Start, end: m.e.Time}
	if x.Trace.Parent != [8]byte{} {
		s.parent = m.context(x.Trace.Parent).WithRemote(true)
	}
	a := append(make([]attribute.KeyValue, 0, 24), m.method...)
	a = append(a, m.address...)
	a = m.appendURL(a)
	a = appendPeer(a, x.Client, semconv.ClientAddressKey, semconv.ClientPortKey)
	a = appendText(a, semconv.NetworkProtocolVersionKey, m.e.Protocol)
	a = appendText(a, keyRequestID, m.clean(x.ID, maxText))
	a = appendText(a, keyMode, string(x.Mode))
	a = appendText(a, keyPolicy, clip(x.Policy, maxText))
	a = appendText(a, keyTenant, clip(x.Tenant, maxText))
	a = appendText(a, keyOutcome, string(story.Outcome))
	a = appendText(a, keyStatusBy, story.StatusBy)
	a = appendText(a, keyBreaker, story.Breaker)
	a = appendText(a, keyDedup, story.Dedup)
	a = appendText(a, keyNotRetried, story.NotRetried)
	a = appendList(a, keyObserved, story.Observed)
	a = appendList(a, keyUnapplied, story.Unapplied)
	a = append(a, keyAttempts.Int(len(story.Attempts)), keyBytesIn.Int64(story.BytesIn), keyBytesOut.Int64(story.BytesOut))
	if story.Status != 0 {
		a = append(a, semconv.HTTPResponseStatusCode(story.Status))
	}
	if failed(story.Outcome) {
		a = append(a, semconv.ErrorTypeKey.String(string(story.Outcome)))
		if story.Status >= 500 || story.Status == 0 {
			s.status.Code = codes.Error
		}
	}
	s.attributes, s.events = a, m.events(story)
	return s
}

// failed tells outcomes that are the proxy's or the upstream's fault from those that are nobody's.
func failed(outcome exchange.Code) bool {
	return outcome != exchange.OK && outcome != exchange.ClientGone && outcome != ""
}

// appendURL takes the URL apart, as spans of servers have it.
func (m *maker) appendURL(a []attribute.KeyValue) []attribute.KeyValue {
	if m.x.Kind == exchange.KindTunnel || m.url == "" {
		return a
	}
	a = append(a, semconv.URLFull(m.url))
	scheme, rest, found := strings.Cut(m.url, "://")
	if !found {
		return a
	}
	target := ""
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		target = rest[at:]
	}
	p, query, _ := strings.Cut(target, "?")
	if p == "" {
		p = "/"
	}
	return appendText(append(a, semconv.URLScheme(scheme), semconv.URLPath(p)), semconv.URLQueryKey, query)
}

// client is the span of an attempt.
func (m *maker) client(at *exchange.Attempt) *span {
	began := at.Began()
	s := &span{name: m.name, kind: trace.SpanKindClient, context: m.context(at.Span), parent: m.context(m.x.Trace.Span), start: began, end: began.Add(at.Duration)}
	a := append(make([]attribute.KeyValue, 0, 16), m.method...)
	a = append(a, m.address...)
	a = appendPeer(a, at.Address, semconv.NetworkPeerAddressKey, semconv.NetworkPeerPortKey)
	if at.N > 1 {
		a = append(a, semconv.HTTPRequestResendCount(at.N-1))
	}
	a = appendText(a, keyReason, at.Reason)
	if m.x.Kind != exchange.KindTunnel {
		a = appendText(a, semconv.URLFullKey, m.sentURL())
		if at.Address != "" {
			version := "1.1"
			if at.HTTP2 {
				version = "2"
			}
			a = append(a, semconv.NetworkProtocolVersion(version), keyReused.Bool(at.Reused))
		}
		if at.Status != 0 {
			a = append(a, semconv.HTTPResponseStatusCode(at.Status))
		}
	}
	switch {
	case at.Error == exchange.Superseded || at.Error == exchange.ClientGone || at.Error == exchange.Draining:
		a = append(a, keyResult.String(string(at.Error))) // nobody failed
	case at.Error != "":
		a = append(a, semconv.ErrorTypeKey.String(string(at.Error)))
		s.status.Code = codes.Error
	case at.Status >= 400:
		a = append(a, semconv.ErrorTypeKey.String(strconv.Itoa(at.Status)))
		s.status.Code = codes.Error
	}
	s.attributes = a
	return s
}

// sentURL is the URL with the scheme that is spoken upstream.
func (m *maker) sentURL() string {
	if m.x.Mode != exchange.ModeUpgrade {
		return m.url
	}
	return "https://" + strings.TrimPrefix(m.url, "http://")
}

// events tells what happened between the attempts.
func (m *maker) events(story *exchange.Story) []sdk.Event {
	var events []sdk.Event
	for _, w := range story.Waits {
		events = append(events, event(eventLimitWait, w.End, keyWait.Float64(w.Took.Seconds())))
	}
	for i := range story.Attempts[:min(len(story.Attempts), maxAttempts)] {
		switch at := &story.Attempts[i]; at.Reason {
		case "":
		case exchange.ReasonHedge:
			events = append(events, event(eventHedge, at.Began(), keyWait.Float64(at.Wait.Seconds())))
		default:
			events = append(events, event(eventRetry, at.Began().Add(-at.Wait), keyReason.String(at.Reason), keyWait.Float64(at.Wait.Seconds())))
		}
	}
	switch {
	case story.Outcome == exchange.BreakerOpen:
		events = append(events, event(eventBreaker, m.e.Time, keyBreaker.String(story.Breaker)))
	case story.StatusBy == "proxy" && failed(story.Outcome):
		events = append(events, event(eventRefused, m.e.Time, keyReason.String(string(story.Outcome))))
	}
	return events
}

func event(name string, at time.Time, attrs ...attribute.KeyValue) sdk.Event {
	return sdk.Event{Name: name, Time: at, Attributes: attrs}
}

func appendText(a []attribute.KeyValue, key attribute.Key, value string) []attribute.KeyValue {
	if value == "" {
		return a
	}
	return append(a, key.String(value))
}

func appendList(a []attribute.KeyValue, key attribute.Key, values []string) []attribute.KeyValue {
	if len(values) == 0 {
		return a
	}
	clipped := make([]string, 0, len(values))
	for _, v := range values[:min(len(values), maxAttempts)] {
		clipped = append(clipped, clip(v, maxText))
	}
	return append(a, key.StringSlice(clipped))
}

// appendPeer appends an address and a port.
func appendPeer(a []attribute.KeyValue, peer string, address, port attribute.Key) []attribute.KeyValue {
	p, err := netip.ParseAddrPort(peer)
	if err != nil {
		return a
	}
	return append(a, address.String(p.Addr().String()), port.Int(int(p.Port())))
}
