package daemon

import (
	"context"

	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/trace"
)

// retrace makes exchanges that begin from now on follow the settings.
func (d *Daemon) retrace(t policy.TracingSettings) {
	c := trace.Config{Endpoint: t.OTLP, GRPC: t.GRPC(), Sample: t.Sample, Carry: t.Propagate, Service: t.Service, Version: d.version,
		Resource: t.Resource, Headers: t.Headers, Timeout: t.Timeout.D()}
	if err := d.tracer.Use(c); err != nil {
		d.log.Error("tracing goes on as before", "error", err)
	}
}

// closeTracer sends the spans that wait. After a drain that took all its time they get a moment still.
func (d *Daemon) closeTracer(ctx context.Context) {
	if ctx.Err() != nil {
		last, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		ctx = last
	}
	d.tracer.Close(ctx)
}
