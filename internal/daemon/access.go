package daemon

import "github.com/prometheus/client_golang/prometheus"

// CA is the interception CA's certificate in PEM, made if there was none.
func (d *Daemon) CA() ([]byte, error) { return d.ca.pem() }

// Intercepts tells whether any policy decrypts, so that programs must trust the CA.
func (d *Daemon) Intercepts() bool {
	s := d.holder.Load()
	if s.Default().Intercept {
		return true
	}
	for _, h := range s.Hosts() {
		if h.Base.Intercept {
			return true
		}
	}
	return false
}

// Gatherer gives the metrics.
func (d *Daemon) Gatherer() prometheus.Gatherer { return d.metrics }
