package policy

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	reloads    *prometheus.CounterVec
	successful prometheus.Gauge
	info       *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httpowerd_config_reloads_total", Help: "Loads of the configuration by result (success, failure), the first one included."}, []string{"result"}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httpowerd_config_last_reload_successful", Help: "1 where the last load of the configuration succeeded; at 0 an older one is in use."}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "httpowerd_config_info", Help: "Always 1; the label is the hash of the effective configuration in use."}, []string{"hash"}),
	}
	m.reloads.WithLabelValues("success")
	m.reloads.WithLabelValues("failure")
	if reg != nil {
		reg.MustRegister(m.reloads, m.successful, m.info)
	}
	return m
}

func (m *metrics) loaded(hash string) {
	m.reloads.WithLabelValues("success").Inc()
	m.successful.Set(1)
	m.info.Reset()
	m.info.WithLabelValues(hash).Set(1)
}

func (m *metrics) failed() {
	m.reloads.WithLabelValues("failure").Inc()
	m.successful.Set(0)
}
