package admin

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/redact"
)

// healthz: the daemon is alive, or it could not say so.
func (h *Handler) healthz(c *call) *problem {
	c.bytes(http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	return nil
}

// readyz: there is a policy and the daemon stays. It never depends on an upstream.
func (h *Handler) readyz(c *call) *problem {
	if h.draining() {
		return leaving()
	}
	if h.Policies.Load() == nil {
		return notReady()
	}
	c.bytes(http.StatusOK, "text/plain; charset=utf-8", []byte("ready\n"))
	return nil
}

func (h *Handler) draining() bool {
	select {
	case <-h.Leaving:
		return true
	default:
		return false
	}
}

func leaving() *problem {
	p := refuse(codeDraining, "the daemon is shutting down")
	p.retryAfter = time.Second
	return p
}

// ca is the certificate that programs must trust where TLS is intercepted. The first who asks makes the CA.
func (h *Handler) ca(c *call) *problem {
	pem, err := h.CA()
	if err != nil {
		h.Log.Error("the interception CA cannot be shown", "id", c.id, "error", err)
		return refuse(codeInternal, "there is no CA certificate; the log says why, under this request's id")
	}
	c.w.Header().Set("Content-Disposition", `inline; filename="httpowerd-ca.pem"`)
	c.bytes(http.StatusOK, "application/x-pem-file", pem)
	return nil
}

// config shows the effective configuration, as JSON or as a file of YAML.
func (h *Handler) config(c *call) *problem {
	f := h.Policies.File()
	if f == nil {
		return notReady()
	}
	hash, restart, warnings := f.Hash(), list(h.Policies.RestartNeeded()), shown(f.Warnings())
	c.w.Header().Set("Vary", "Accept")
	switch format := c.r.URL.Query().Get("format"); {
	case format == "yaml" || format == "" && wantsYAML(c.r):
		text, err := f.Effective().YAML()
		if err != nil {
			panic("the configuration cannot be written: " + err.Error())
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "# hash: %s\n", hash)
		for _, key := range restart {
			fmt.Fprintf(&b, "# needs a restart: %s\n", key)
		}
		for _, w := range warnings {
			fmt.Fprintf(&b, "# warning: %s\n", oneLine(w.String()))
		}
		b.Write(text)
		c.bytes(http.StatusOK, "application/yaml", b.Bytes())
		return nil
	case format != "" && format != "json":
		return refuse(codeBadRequest, "format must be json or yaml")
	}
	return c.json(struct {
		Hash          string         `json:"hash"`
		RestartNeeded []string       `json:"restart_needed"`
		Warnings      []policy.Fault `json:"warnings"`
		Config        policy.Object  `json:"config"`
	}{hash, restart, warnings, f.Effective()})
}

// oneLine keeps a text inside its comment.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// wantsYAML tells whether YAML is asked for by name, and before JSON.
func wantsYAML(r *http.Request) bool {
	for item := range strings.SplitSeq(strings.Join(r.Header["Accept"], ","), ",") {
		kind, _, err := mime.ParseMediaType(item)
		if err != nil {
			continue
		}
		switch kind {
		case "application/yaml", "application/x-yaml", "text/yaml":
			return true
		case "application/json":
			return false
		}
	}
	return false
}

// explain says what the configuration in use does to a request.
func (h *Handler) explain(c *call) *problem {
	f := h.Policies.File()
	if f == nil {
		return notReady()
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return refuse(codeBadRequest, "the query is not well encoded")
	}
	for key := range q {
		if !slices.Contains([]string{"method", "url", "tenant", "header"}, key) {
			return refuse(codeBadRequest, "the query may have method, url, tenant and header")
		}
	}
	method := cmp.Or(q.Get("method"), http.MethodGet)
	if !exchange.IsToken(method) || len(method) > 32 {
		return refuse(codeBadRequest, "method is not one")
	}
	header := http.Header{}
	for _, line := range q["header"] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !exchange.IsToken(name) || strings.ContainsAny(value, "\r\n\x00") {
			return refuse(codeBadRequest, "header must be NAME:VALUE")
		}
		header.Add(name, strings.TrimSpace(value))
	}
	x, err := policy.Explain(f, method, q.Get("url"), q.Get("tenant"), header)
	if errors.Is(err, policy.ErrNoTenant) {
		return refuse(codeBadRequest, policy.ErrNoTenant.Error())
	}
	if err != nil {
		return refuse(codeBadRequest, detailOf(err, "url must be absolute, such as https://api.example.com/v1, or HOST:PORT with method=CONNECT"))
	}
	return c.json(x)
}

// breakerStatus is a breaker as it is shown.
type breakerStatus struct {
	breaker.Status
	RetryAfter float64 `json:"retry_after_seconds,omitempty"` // until probes are let through
}

type breakerList struct {
	Breakers []breakerStatus `json:"breakers"`
}

// breakersOf lists those that want holds for, by authority.
func (h *Handler) breakersOf(want func(breaker.Status) bool) []breakerStatus {
	out := []breakerStatus{}
	for _, s := range h.Breakers.Status() {
		if want(s) {
			s.Authority = cleaned(s.Authority)
			out = append(out, breakerStatus{s, s.RetryAfter.Seconds()})
		}
	}
	slices.SortFunc(out, func(a, b breakerStatus) int {
		return cmp.Or(cmp.Compare(a.Authority, b.Authority), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Tenant, b.Tenant))
	})
	return out
}

// breakers lists all of them.
func (h *Handler) breakers(c *call) *problem {
	return c.json(breakerList{h.breakersOf(func(breaker.Status) bool { return true })})
}

// limitsOf lists those that want holds for, by authority.
func (h *Handler) limitsOf(want func(ratelimit.LimitStatus) bool) []ratelimit.LimitStatus {
	out := []ratelimit.LimitStatus{}
	h.Limits(func(s ratelimit.LimitStatus) {
		if want(s) {
			s.Authority, s.Name = cleaned(s.Authority), cleaned(s.Name)
			out = append(out, s)
		}
	})
	slices.SortFunc(out, func(a, b ratelimit.LimitStatus) int {
		return cmp.Or(cmp.Compare(a.Authority, b.Authority), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Level, b.Level),
			cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Unit, b.Unit))
	})
	return out
}

// limits lists all of them.
func (h *Handler) limits(c *call) *problem {
	return c.json(struct {
		Limits []ratelimit.LimitStatus `json:"limits"`
	}{h.limitsOf(func(ratelimit.LimitStatus) bool { return true })})
}

// cleaned is the name of a host or a quota as it may be shown: whoever chose it may have put a card number or key there.
func cleaned(name string) string { return redact.Default().Text(name) }

// hostOf is the host of an authority as records and limits write it.
func hostOf(authority string) string {
	a, err := exchange.ParseAuthority(authority, 0)
	if err != nil {
		return ""
	}
	return a.Host
}
