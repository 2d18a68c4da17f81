package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// hostSummary is one line of the table that `run --summary` prints.
type hostSummary struct {
	host                                        string
	requests, tunnels, retries, refused, failed int
}

// writeSummary prints what went through a daemon, by host, the busiest first.
func writeSummary(w io.Writer, g prometheus.Gatherer) {
	hosts := summarize(g)
	if len(hosts) == 0 {
		fmt.Fprintln(w, "httpowerd: nothing came through the proxy")
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tREQUESTS\tTUNNELS\tRETRIES\tREFUSED\tFAILED")
	for _, h := range hosts {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\n", h.host, h.requests, h.tunnels, h.retries, h.refused, h.failed)
	}
	_ = table.Flush() // stderr; there is nobody to tell
}

func summarize(g prometheus.Gatherer) []*hostSummary {
	families, err := g.Gather()
	if err != nil {
		return nil
	}
	byHost := map[string]*hostSummary{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			label := labelsOf(m)
			h := byHost[label["host"]]
			if h == nil {
				h = &hostSummary{host: label["host"]}
			}
			n := int(m.GetCounter().GetValue())
			switch family.GetName() {
			case "httpowerd_requests_total":
				h.requests += n
				h.add(label["outcome"], n)
			case "httpowerd_tunnels_total":
				h.tunnels += n
				h.add(label["outcome"], n)
			case "httpowerd_retries_total":
				h.retries += n
			default:
				continue
			}
			byHost[h.host] = h
		}
	}
	hosts := make([]*hostSummary, 0, len(byHost))
	for _, h := range byHost {
		hosts = append(hosts, h)
	}
	slices.SortFunc(hosts, func(a, b *hostSummary) int {
		return cmp.Or(cmp.Compare(b.requests+b.tunnels, a.requests+a.tunnels), cmp.Compare(a.host, b.host))
	})
	return hosts
}

// add sorts an outcome: what the upstream failed at, and what the proxy refused.
func (h *hostSummary) add(outcome string, n int) {
	switch outcome {
	case "ok", "client_gone":
	case "upstream_error", "upstream_timeout", "upstream_dns", "upstream_connect", "upstream_tls", "upstream_reset", "upstream_protocol", "internal":
		h.failed += n
	default:
		h.refused += n
	}
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}
