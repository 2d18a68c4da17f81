package test

import (
	"fmt"
	"regexp"
	"strings"
)

// samples are counters and gauges of a metrics page, by name.
type samples map[string][]sample

type sample struct {
	labels map[string]string
	value  float64
}

var labelPair = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)

// parseMetrics reads the text format as far as the tests need it.
func parseMetrics(page string) samples {
	out := samples{}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		name, labels, _ := strings.Cut(line[:max(0, end)], "{")
		s := sample{labels: map[string]string{}}
		if _, err := fmt.Sscan(line[max(0, end):], &s.value); err != nil {
			continue
		}
		for _, pair := range labelPair.FindAllStringSubmatch(labels, -1) {
			s.labels[pair[1]] = pair[2]
		}
		out[name] = append(out[name], s)
	}
	return out
}

// of are a host's values that are not 0, by these labels' values.
func (s samples) of(family, host string, labels ...string) map[string]float64 {
	out := map[string]float64{}
	for _, one := range s[family] {
		if one.labels["host"] != host || one.value == 0 {
			continue
		}
		var key []string
		for _, l := range labels {
			key = append(key, one.labels[l])
		}
		out[strings.Join(key, " ")] += one.value
	}
	return out
}
