package trace

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	tracesPath = "/v1/traces"
	grpcPort   = "4317"
	maxAnswer  = 64 << 10 // bytes of a collector's answer
	dialTime   = 10 * time.Second
	pauseTime  = 500 * time.Millisecond // before an export is tried again, at first
)

// newExporter makes what talks to the collector. Every option that OTEL_ variables could set is set here, and no proxy variable is read: the request would
// come back to this proxy.
func newExporter(c *Config) (exporter, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, errors.New("tracing.otlp is no URL")
	}
	headers := map[string]string{}
	for name, value := range c.Headers {
		headers[name] = value.Reveal()
	}
	secure := u.Scheme == "https" || u.Scheme == "grpcs"
	if c.GRPC {
		return newGRPC(c, u, headers, secure)
	}
	return newHTTP(c, u, headers)
}

func newHTTP(c *Config, u *url.URL, headers map[string]string) (exporter, error) {
	transport := &http.Transport{
		Proxy: nil, DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSHandshakeTimeout: dialTime, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the headers are meant for the collector alone
	}}
	target := *u
	if !strings.HasSuffix(target.Path, tracesPath) {
		target.Path = path.Join("/", target.Path, tracesPath)
	}
	e, err := otlptrace.New(context.Background(), otlptracehttp.NewClient(
		otlptracehttp.WithTLSClientConfig(nil), otlptracehttp.WithHTTPClient(client), otlptracehttp.WithEndpointURL(target.String()),
		otlptracehttp.WithHeaders(headers), otlptracehttp.WithTimeout(c.Timeout), otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression), otlptracehttp.WithMaxResponseSize(maxAnswer),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: pauseTime, MaxInterval: 10 * pauseTime, MaxElapsedTime: c.Timeout})))
	if err != nil {
		return nil, err
	}
	return &closing{e, func() error { transport.CloseIdleConnections(); return nil }}, nil
}

func newGRPC(c *Config, u *url.URL, headers map[string]string, secure bool) (exporter, error) {
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	port := u.Port()
	if port == "" {
		port = grpcPort
	}
	target := "dns:///" + net.JoinHostPort(u.Hostname(), port)
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, err
	}
	e, err := otlptrace.New(context.Background(), otlptracegrpc.NewClient(
		otlptracegrpc.WithGRPCConn(conn), otlptracegrpc.WithHeaders(headers), otlptracegrpc.WithTimeout(c.Timeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: pauseTime, MaxInterval: 10 * pauseTime, MaxElapsedTime: c.Timeout})))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &closing{e, conn.Close}, nil
}

// closing closes the exporter's connections with it.
type closing struct {
	exporter
	close func() error
}

// Shutdown implements exporter.
func (c *closing) Shutdown(ctx context.Context) error {
	return errors.Join(c.exporter.Shutdown(ctx), c.close())
}

// resourceOf says who makes the spans.
func resourceOf(c *Config) *resource.Resource {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	attrs := []attribute.KeyValue{
		semconv.ServiceName(c.Service), semconv.ServiceVersion(c.Version), semconv.ServiceInstanceID(hex.EncodeToString(id[:])),
	}
	for _, key := range slices.Sorted(maps.Keys(c.Resource)) {
		attrs = append(attrs, attribute.String(key, c.Resource[key]))
	}
	return resource.NewWithAttributes(semconv.SchemaURL, attrs...)
}
