package trace

import (
	"maps"
	"time"

	"httpowerd/internal/redact"
)

// Config says where spans go and which are made. Its zero value makes none.
type Config struct {
	Endpoint string                   // scheme, host, port and path of the collector; "": tracing is off
	GRPC     bool                     // OTLP over gRPC in the place of HTTP
	Sample   float64                  // share of the exchanges without a parent that are sampled
	Carry    bool                     // requests to upstreams carry the trace
	Service  string                   // service.name
	Version  string                   // service.version
	Resource map[string]string        // more attributes of the resource
	Headers  map[string]redact.Secret // sent to the collector
	Timeout  time.Duration            // of one export, retries included
}

// sameTarget tells whether spans made by c may go where those made by o go.
func (c *Config) sameTarget(o *Config) bool {
	return c.Endpoint == o.Endpoint && c.GRPC == o.GRPC && c.Service == o.Service && c.Version == o.Version && c.Timeout == o.Timeout &&
		maps.Equal(c.Resource, o.Resource) && maps.EqualFunc(c.Headers, o.Headers, redact.Secret.Equal)
}
