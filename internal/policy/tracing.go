package policy

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// TracingSettings say where spans go and which exchanges make some. Without OTLP there are none.
type TracingSettings struct {
	// OTLP is the collector's URL; "" switches tracing off.
	OTLP string `yaml:"otlp"`
	// Protocol is what is spoken to it: auto goes by the URL's scheme.
	Protocol string `yaml:"protocol"`
	// Sample is the share of the exchanges without a trace of their client's that are sampled.
	Sample float64 `yaml:"sample"`
	// Propagate lets requests to upstreams carry the trace; without it the client's fields pass untouched.
	Propagate bool `yaml:"propagate"`
	// Service is the name under which the spans are shown.
	Service string `yaml:"service"`
	// Resource are more attributes of whoever makes the spans.
	Resource map[string]string `yaml:"resource"`
	// Headers go to the collector with each export.
	Headers map[string]redact.Secret `yaml:"headers"`
	// Timeout bounds an export, its repetitions included.
	Timeout setting.Duration `yaml:"timeout"`
}

// Values of TracingSettings.Protocol.
const (
	ProtocolAuto = "auto"
	ProtocolHTTP = "http"
	ProtocolGRPC = "grpc"
)

func defaultTracing() TracingSettings {
	return TracingSettings{Protocol: ProtocolAuto, Sample: 0.1, Propagate: true, Service: "httpowerd", Timeout: setting.Duration(10 * time.Second)}
}

// On tells whether there is tracing.
func (t *TracingSettings) On() bool { return t.OTLP != "" }

// GRPC tells whether OTLP goes over gRPC.
func (t *TracingSettings) GRPC() bool {
	return t.Protocol == ProtocolGRPC || t.Protocol == ProtocolAuto && strings.HasPrefix(t.OTLP, "grpc")
}

// Bounds of the configuration.
const (
	maxResource = 64
	maxHeaders  = 32
	maxWord     = 1024
)

var (
	resourceKey = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,127}$`)
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
)

// Validate returns every fault of the block.
func (t TracingSettings) Validate() []setting.Fault {
	var c checks
	if !t.On() {
		d := defaultTracing()
		if t.Protocol != d.Protocol || t.Sample != d.Sample || t.Propagate != d.Propagate || t.Service != d.Service || t.Timeout != d.Timeout ||
			len(t.Resource) > 0 || len(t.Headers) > 0 {
			c = append(c, setting.Faultf("otlp", "is missing: write the collector's URL, such as http://127.0.0.1:4318"))
		}
		return c
	}
	c.collector(&t)
	c.oneOf("protocol", t.Protocol, ProtocolAuto, ProtocolHTTP, ProtocolGRPC)
	if !(t.Sample >= 0 && t.Sample <= 1) {
		c = append(c, setting.Faultf("sample", "must be from 0 to 1, is %v", t.Sample))
	}
	if !plainWord(t.Service) {
		c = append(c, setting.Faultf("service", "must be a text of at most %d characters, without control characters", maxWord))
	}
	c.count("resource", len(t.Resource), 0, maxResource)
	for _, key := range slices.Sorted(maps.Keys(t.Resource)) {
		at := fmt.Sprintf("resource[%q]", key)
		switch {
		case key == "service.name":
			c = append(c, setting.Faultf(at, "has a key of its own: write service"))
		case !resourceKey.MatchString(key):
			c = append(c, setting.Faultf(at, "is no name of an attribute: write small letters, digits, dots, dashes and underscores"))
		case !plainWord(t.Resource[key]):
			c = append(c, setting.Faultf(at, "must be a text of at most %d characters, without control characters", maxWord))
		}
	}
	c.count("headers", len(t.Headers), 0, maxHeaders)
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		at := fmt.Sprintf("headers[%q]", name)
		lower := strings.ToLower(name)
		switch {
		case !headerName.MatchString(name):
			c = append(c, setting.Faultf(at, "is no name of a header field"))
		case strings.HasPrefix(lower, "content-") || strings.HasPrefix(lower, "grpc-") || strings.HasSuffix(lower, "-bin") || lower == "host" || lower == "te" ||
			lower == "connection" || lower == "transfer-encoding" || lower == "user-agent":
			c = append(c, setting.Faultf(at, "is written by the exporter itself"))
		case t.Headers[name].IsZero() || strings.ContainsFunc(t.Headers[name].Reveal(), func(r rune) bool { return r < ' ' || r > '~' }):
			c = append(c, setting.Faultf(at, "is empty, or has characters that no header field may have"))
		}
	}
	c.span("timeout", t.Timeout, 100*time.Millisecond, time.Minute)
	return c
}

// plainWord is a text that every backend can show.
func plainWord(s string) bool {
	return s != "" && len(s) <= maxWord && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' })
}

// collector checks the URL. Its faults do not repeat what was written: it may hold a password.
func (c *checks) collector(t *TracingSettings) {
	u, err := url.Parse(t.OTLP)
	if err != nil || u.Host == "" || u.Opaque != "" || !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme) {
		*c = append(*c, setting.Faultf("otlp", "must be a URL that begins with http://, https://, grpc:// or grpcs://"))
		return
	}
	switch {
	case u.User != nil:
		*c = append(*c, setting.Faultf("otlp", "holds a user or password, which belongs into headers"))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		*c = append(*c, setting.Faultf("otlp", "has a query or fragment, which would not be sent"))
	case t.GRPC() && u.Path != "" && u.Path != "/":
		*c = append(*c, setting.Faultf("otlp", "has a path, which gRPC does not send"))
	case t.Protocol == ProtocolHTTP && strings.HasPrefix(u.Scheme, "grpc"):
		*c = append(*c, setting.Faultf("protocol", "is http, and otlp says %s://", u.Scheme))
	}
	if _, err := exchange.ParseAuthority(u.Host, 1); err != nil {
		*c = append(*c, setting.Faultf("otlp", "has a host or port that is none"))
	}
}

// checkTracing warns of what others could read on the way to the collector.
func (a *assembly) checkTracing(n *node) {
	t := &a.file.settings.Tracing
	if n == nil || !t.On() || len(t.Headers) == 0 || strings.HasPrefix(t.OTLP, "https://") || strings.HasPrefix(t.OTLP, "grpcs://") {
		return
	}
	u, err := url.Parse(t.OTLP)
	if err != nil {
		return
	}
	if host, err := exchange.ParseAuthority(u.Host, 1); err == nil {
		if addr, literal := host.Addr(); host.Host == "localhost" || literal && addr.IsLoopback() {
			return
		}
	}
	a.warnings.at(n, "is not encrypted: whoever is on the way reads the headers; write https:// or grpcs://")
}
