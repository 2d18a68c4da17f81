package daemon

import (
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// CA is the interception CA's certificate in PEM, made if there was none.
func (d *Daemon) CA() ([]byte, error) { return d.ca.pem() }

// Intercepts tells whether any policy decrypts, so that programs must trust the CA.
func (d *Daemon) Intercepts() bool { return d.holder.Load().Intercepts() }

// Gatherer gives the metrics.
func (d *Daemon) Gatherer() prometheus.Gatherer { return d.metrics }

// LibraryLog takes what libraries say by themselves, a line at a time, into the daemon's own log, where it is one record of level debug.
func (d *Daemon) LibraryLog() io.Writer {
	return slog.NewLogLogger(d.log.Handler(), slog.LevelDebug).Writer()
}
