package admin

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/setting"
)

//go:embed status.html
var statusPage string

//go:embed status.css
var statusStyle string

// page is the status page: one file without scripts, and a content policy that lets nothing in but its own style.
type page struct {
	template *template.Template
	style    template.CSS
	security string
}

func newPage() *page {
	sum := sha256.Sum256([]byte(statusStyle))
	return &page{
		template: template.Must(template.New("status").Parse(statusPage)),
		style:    template.CSS(statusStyle), // ours, and the hash below is taken of it
		security: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
}

// maxRows bounds each table of the page; the API has the rest.
const maxRows = 100

// statusView is what the page shows.
type statusView struct {
	Style                         template.CSS
	Version, Uptime, Hash, Loaded string
	Ready, LogLevel               string
	Reload                        *reloaded
	Restart                       []string
	Warnings                      []policy.Fault
	Hosts                         []statusHost
	Breakers                      []statusBreaker
	Limits                        []statusLimit
	More                          struct{ Warnings, Faults, Hosts, Breakers, Limits int }
}

type statusHost struct {
	Name                                                                string
	Requests, Tunnels, Attempts, Retries, Failures, Refusals, Mean, Own string
}

type statusBreaker struct {
	Authority, Policy, State, Since, Reason, Left string
	Forced                                        bool
}

type statusLimit struct{ What, Where, Limit, Remaining, Waiting, Closed string }

// status is the page.
func (h *Handler) status(c *call) *problem {
	snapshot := h.Policies.Load()
	v := statusView{Style: h.page.style, Version: h.Version, Uptime: span(time.Since(h.Started)), Hash: snapshot.Hash, Loaded: at(snapshot.Loaded),
		Ready: "ready", Reload: h.last.Load(), Restart: h.Policies.RestartNeeded()}
	if h.draining() {
		v.Ready = "draining"
	}
	level, _ := h.Level.Level()
	v.LogLevel = level.String()
	v.Warnings, v.More.Warnings = head(shown(snapshot.Warnings))
	if v.Reload != nil {
		last := *v.Reload
		last.Faults, v.More.Faults = head(last.Faults)
		v.Reload = &last
	}
	v.Hosts, v.More.Hosts = head(hostRows(snapshot, h.count()))
	v.Breakers, v.More.Breakers = head(h.breakerRows())
	v.Limits, v.More.Limits = h.limitRows()
	var b bytes.Buffer
	if err := h.page.template.Execute(&b, v); err != nil {
		panic("the status page cannot be written: " + err.Error())
	}
	c.w.Header().Set("Content-Security-Policy", h.page.security)
	c.bytes(http.StatusOK, "text/html; charset=utf-8", b.Bytes())
	return nil
}

// head is the part of a table that is shown, and how many rows are not.
func head[T any](rows []T) ([]T, int) {
	n := min(len(rows), maxRows)
	return rows[:n], len(rows) - n
}

// hostRows are the host blocks, then the other names, each by what was asked of it most.
func hostRows(snapshot *policy.Snapshot, counts byHost) []statusHost {
	var out []statusHost
	for _, host := range snapshot.Hosts() {
		out = append(out, hostRow(host.Pattern, counts.of(host.Pattern)))
		delete(counts, host.Pattern)
	}
	names := slices.Collect(maps.Keys(counts))
	slices.SortFunc(names, func(a, b string) int {
		busy := func(name string) float64 { return counts[name].Requests.Total + counts[name].Tunnels.Total }
		return cmp.Or(cmp.Compare(busy(b), busy(a)), cmp.Compare(a, b))
	})
	for _, name := range names {
		out = append(out, hostRow(name, counts[name]))
	}
	return out
}

func hostRow(name string, c *counters) statusHost {
	return statusHost{Name: name, Requests: number(c.Requests.Total), Tunnels: number(c.Tunnels.Total), Attempts: number(c.Attempts.Total),
		Retries: number(c.Retries.Total), Failures: number(c.failures()), Refusals: number(c.refusals()), Mean: seconds(c.Duration),
		Own: seconds(c.Overhead)}
}

// breakerRows are the breakers that are not closed, and those that an operator set.
func (h *Handler) breakerRows() []statusBreaker {
	var out []statusBreaker
	for _, s := range h.breakersOf(func(s breaker.Status) bool { return s.State != breaker.Closed || s.Forced }) {
		row := statusBreaker{Authority: s.Authority, Policy: cmp.Or(s.Policy, "defaults"), State: s.State, Since: at(s.Since), Reason: s.Reason,
			Forced: s.Forced}
		if s.RetryAfter > 0 {
			row.Left = span(s.Status.RetryAfter)
		}
		out = append(out, row)
	}
	return out
}

// limitRows are the limits, those that hold requests back first, and how many are not shown.
func (h *Handler) limitRows() ([]statusLimit, int) {
	all := h.limitsOf(func(ratelimit.LimitStatus) bool { return true })
	slices.SortStableFunc(all, func(a, b ratelimit.LimitStatus) int {
		return cmp.Or(cmp.Compare(b.Closed, a.Closed), cmp.Compare(b.Waiting, a.Waiting))
	})
	all, more := head(all)
	out := make([]statusLimit, len(all))
	for i, s := range all {
		out[i] = limitRow(s)
	}
	return out, more
}

func limitRow(s ratelimit.LimitStatus) statusLimit {
	row := statusLimit{What: s.Kind, Where: cmp.Or(s.Authority, s.Pattern), Limit: "unknown", Remaining: "unknown", Waiting: number(float64(s.Waiting))}
	if s.Name != "" {
		row.What += " " + s.Name
	}
	if s.Limit >= 0 {
		row.Limit = number(float64(s.Limit)) + " " + s.Unit
	}
	if s.Per > 0 {
		row.Limit += " per " + span(time.Duration(s.Per*float64(time.Second)))
	}
	if s.Remaining >= 0 {
		row.Remaining = number(math.Floor(s.Remaining))
	}
	if s.Closed > 0 {
		row.Closed = span(time.Duration(s.Closed * float64(time.Second)))
	}
	return row
}

func number(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

func seconds(m mean) string {
	if m.Count == 0 {
		return ""
	}
	return time.Duration(m.Mean * float64(time.Second)).Round(10 * time.Microsecond).String()
}

func span(d time.Duration) string { return setting.Duration(d.Round(time.Second)).String() }

func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
