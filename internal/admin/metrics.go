package admin

import (
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"httpowerd/internal/exchange"
)

// NewRegistry makes the registry that all parts of the daemon register with. It holds what Go and the operating system say of the process.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "httpowerd_build_info",
		Help: "Always 1; the labels say what runs."}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return r
}

// gather gives what can be had; what cannot is the log's business, not a scraper's.
func (h *Handler) gather() ([]*dto.MetricFamily, error) {
	families, err := h.Metrics.Gather()
	if err != nil {
		h.Log.Error("some metrics could not be gathered", "error", err)
	}
	return families, nil
}

func (h *Handler) newMetrics() http.Handler {
	return promhttp.HandlerFor(prometheus.GathererFunc(h.gather), promhttp.HandlerOpts{EnableOpenMetrics: true,
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug)})
}

// scrape is /metrics.
func (h *Handler) scrape(c *call) *problem {
	h.metrics.ServeHTTP(c.w, c.r)
	return nil
}

// tally is a counter that is split by one label.
type tally struct {
	Total float64            `json:"total"`
	By    map[string]float64 `json:"by,omitempty"`
}

func (t *tally) add(by string, n float64) {
	if n == 0 {
		return
	}
	if t.By == nil {
		t.By = map[string]float64{}
	}
	t.Total += n
	t.By[by] += n
}

// counters are what was counted for one host label since the start.
type counters struct {
	Requests       tally   `json:"requests"`        // by outcome
	Tunnels        tally   `json:"tunnels"`         // by outcome
	Attempts       tally   `json:"attempts"`        // by result
	Retries        tally   `json:"retries"`         // by reason
	RetriesRefused tally   `json:"retries_refused"` // by reason
	RateLimit      tally   `json:"rate_limit"`      // by decision
	Concurrency    tally   `json:"concurrency"`     // by decision
	InFlight       float64 `json:"concurrency_active"`
	OpenTunnels    float64 `json:"tunnels_active"`
	Connections    float64 `json:"upstream_connections_active"`
	Duration       mean    `json:"duration_seconds"`
	Overhead       mean    `json:"overhead_seconds"`
}

// mean is a histogram in one number.
type mean struct {
	Count float64 `json:"count"`
	Mean  float64 `json:"mean"`
}

// refusals are the exchanges that the proxy itself said no to.
func (c *counters) refusals() (n float64) {
	for _, t := range []tally{c.Requests, c.Tunnels} {
		for outcome, count := range t.By {
			if !slices.Contains([]string{string(exchange.OK), string(exchange.ClientGone)}, outcome) && !strings.HasPrefix(outcome, "upstream_") {
				n += count
			}
		}
	}
	return n
}

// failures are the exchanges that the upstream failed.
func (c *counters) failures() (n float64) {
	for _, t := range []tally{c.Requests, c.Tunnels} {
		for outcome, count := range t.By {
			if strings.HasPrefix(outcome, "upstream_") {
				n += count
			}
		}
	}
	return n
}

// byHost are counters by host label.
type byHost map[string]*counters

// of is what was counted for a label, empty where nothing was.
func (b byHost) of(label string) *counters {
	if c := b[label]; c != nil {
		return c
	}
	return &counters{}
}

// counted says where a family's values go.
type counted struct {
	label string // splits a tally
	tally func(*counters) *tally
	gauge func(*counters) *float64
	mean  func(*counters) *mean
}

// families are those that the pages show.
func families() map[string]counted {
	return map[string]counted{
		"httpowerd_requests_total":              {label: "outcome", tally: func(c *counters) *tally { return &c.Requests }},
		"httpowerd_tunnels_total":               {label: "outcome", tally: func(c *counters) *tally { return &c.Tunnels }},
		"httpowerd_attempts_total":              {label: "result", tally: func(c *counters) *tally { return &c.Attempts }},
		"httpowerd_retries_total":               {label: "reason", tally: func(c *counters) *tally { return &c.Retries }},
		"httpowerd_retries_refused_total":       {label: "reason", tally: func(c *counters) *tally { return &c.RetriesRefused }},
		"httpowerd_rate_limit_decisions_total":  {label: "decision", tally: func(c *counters) *tally { return &c.RateLimit }},
		"httpowerd_concurrency_decisions_total": {label: "decision", tally: func(c *counters) *tally { return &c.Concurrency }},
		"httpowerd_concurrency_active":          {gauge: func(c *counters) *float64 { return &c.InFlight }},
		"httpowerd_tunnels_active":              {gauge: func(c *counters) *float64 { return &c.OpenTunnels }},
		"httpowerd_upstream_connections_active": {gauge: func(c *counters) *float64 { return &c.Connections }},
		"httpowerd_request_duration_seconds":    {mean: func(c *counters) *mean { return &c.Duration }},
		"httpowerd_overhead_seconds":            {mean: func(c *counters) *mean { return &c.Overhead }},
	}
}

// count reads the registry. Labels are bounded by whoever counts, so this is.
func (h *Handler) count() byHost {
	all, _ := h.gather() // never fails
	wanted := families()
	out := byHost{}
	for _, family := range all {
		to, ok := wanted[family.GetName()]
		if !ok {
			continue
		}
		for _, m := range family.GetMetric() {
			out.add(to, m)
		}
	}
	return out
}

func (b byHost) add(to counted, m *dto.Metric) {
	host, by := "", ""
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "host":
			host = l.GetValue()
		case to.label:
			by = l.GetValue()
		}
	}
	c := b[host]
	if c == nil {
		c = &counters{}
		b[host] = c
	}
	switch {
	case to.tally != nil:
		to.tally(c).add(by, m.GetCounter().GetValue())
	case to.gauge != nil:
		*to.gauge(c) += m.GetGauge().GetValue()
	default:
		d := m.GetHistogram()
		if n := float64(d.GetSampleCount()); n > 0 {
			*to.mean(c) = mean{n, d.GetSampleSum() / n}
		}
	}
}
