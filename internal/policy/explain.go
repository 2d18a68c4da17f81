package policy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/match"
	tenants "httpowerd/internal/policy/tenant"
	"httpowerd/internal/redact"
)

// Explanation says what the configuration does to one request, and why.
type Explanation struct {
	Method    string   `json:"method"`
	URL       string   `json:"url"`
	Authority string   `json:"authority"`
	Tenant    string   `json:"tenant,omitempty"`
	Host      string   `json:"host"`   // the pattern that matched; "": nothing but defaults
	Route     string   `json:"route"`  // its name or number; "": none
	Policy    string   `json:"policy"` // as records name it
	Mode      string   `json:"mode"`   // plain, tunnel, intercept, upgrade
	Access    string   `json:"access"`
	Chain     []string `json:"chain"`
	Values    []Value  `json:"values"`
	Unapplied []string `json:"unapplied,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// Value is one value of the effective policy with the place it came from.
type Value struct {
	Path   string `json:"path"`
	Value  any    `json:"value"`
	Origin string `json:"origin"`          // default, derived, profile, provider, defaults, host, route, tenant, flag
	Where  string `json:"where,omitempty"` // FILE:LINE:COL of the key, or the flag
}

// ErrNoTenant is for a name that no tenant has.
var ErrNoTenant = errors.New("there is no tenant of that name")

// Explain answers for a request that a client would make. rawURL is absolute, or host:port for CONNECT.
func Explain(f *File, method, rawURL, tenant string, header http.Header) (*Explanation, error) {
	r, authority, err := requestOf(method, rawURL, header)
	if err != nil {
		return nil, err
	}
	if r.URL.User != nil {
		return nil, exchange.Refuse(exchange.BadRequest, "the URL has userinfo: the proxy refuses it; send an Authorization field instead")
	}
	x := &Explanation{Method: harmless(r.Method), URL: harmless(r.URL.String()), Tenant: tenant}
	if r.Method == http.MethodConnect {
		x.URL = harmless(authority.String())
	}
	host, err := f.find(authority)
	if err != nil {
		return nil, err
	}
	if len(f.settings.Tenants) > 0 {
		if err := x.who(f, authority); err != nil {
			return nil, err
		}
		host = f.ownFor(tenant, authority, host)
	} else if tenant != "" {
		x.Notes = append(x.Notes, "no tenants are configured: the tenant changes nothing")
	}
	p := host.base
	x.Host = host.pattern
	x.Mode = mode(p, r)
	inside := x.Mode == string(exchange.ModeIntercept) // that it is looked into was decided at CONNECT, before there was a route
	switch {
	case r.Method == http.MethodConnect:
	case inside || r.URL.Scheme == "http":
		if p, x.Route, err = host.choose(r); err != nil {
			return nil, err
		}
		if !inside {
			x.Mode = mode(p, r)
		}
	}
	x.fill(p, &authority)
	if r.Method == http.MethodConnect && inside && len(host.routes) > 0 {
		x.Notes = append(x.Notes, "each request inside is asked for access by its own route: explain its URL")
	} else {
		x.access()
	}
	x.Authority = harmless(authority.String())
	return x, x.destination(f, authority)
}

// RedactionFor is what the policy that a request would meet adds to redaction; without a URL, what defaults add.
func RedactionFor(f *File, method, rawURL, tenant string) (redact.Config, error) {
	p := f.base
	if rawURL != "" {
		r, authority, err := requestOf(method, rawURL, nil)
		if err != nil {
			return redact.Config{}, err
		}
		host, err := f.find(authority)
		if err != nil {
			return redact.Config{}, err
		}
		if tenant != "" {
			host = f.ownFor(tenant, authority, host)
		}
		if p, _, err = host.choose(r); err != nil {
			return redact.Config{}, err
		}
	}
	c, _ := config[redact.Config](p, "redact")
	return c, nil
}

// destination notes what can be known of a refusal without a name server.
func (x *Explanation) destination(f *File, authority exchange.Authority) error {
	rules, err := destination.Compile(f.settings.Destinations, f.settings.Proxy.LoopbackOnly())
	if err != nil {
		return err
	}
	var refusal *exchange.Refusal
	if errors.As(rules.CheckHost(authority), &refusal) {
		x.Notes = append(x.Notes, fmt.Sprintf("refused with %s: %s", refusal.Code, refusal.Detail))
	}
	return nil
}

// who notes what comes of the tenant.
func (x *Explanation) who(f *File, authority exchange.Authority) error {
	set, err := tenants.New(f.settings.Tenants, &tenants.Room{})
	if err != nil {
		return err
	}
	switch {
	case x.Tenant == "":
		x.Notes = append(x.Notes, "refused with 407 unless the client shows which tenant it is: write --tenant NAME")
	case !set.Has(x.Tenant):
		return fmt.Errorf("%w: %q", ErrNoTenant, harmless(x.Tenant))
	case !set.May(x.Tenant, authority):
		x.Notes = append(x.Notes, "refused: the host is not among the tenant's only")
	}
	return nil
}

// choose is Host.Policy for a File that was not compiled; label is that of the route, "" for none.
func (h *hostPlan) choose(r *http.Request) (p *plan, label string, err error) {
	if p, label, err = h.first(r); err != nil || len(h.routes) == 0 {
		return p, label, err
	}
	other, ok := match.Resolved(r)
	if !ok {
		return p, label, nil
	}
	q, second, err := h.first(other)
	if err == nil && outranks(Access(q.wordOf("access")), Access(p.wordOf("access")), q == h.base) {
		p, label = q, second
	}
	return p, label, err
}

func (h *hostPlan) first(r *http.Request) (*plan, string, error) {
	for _, route := range h.routes {
		m, err := match.Compile(route.plan.matches)
		if err != nil {
			return nil, "", err
		}
		if m.Match(r) {
			return route.plan, route.label, nil
		}
	}
	return h.base, "", nil
}

func (x *Explanation) fill(p *plan, authority *exchange.Authority) {
	x.Policy, x.Access = p.name, p.wordOf("access")
	switch exchange.Mode(x.Mode) {
	case exchange.ModeTunnel:
		x.Chain, x.Unapplied = names(tunnelOrder(settingsOf(p))), p.deaf
		x.Notes = append(x.Notes, "a tunnel: the proxy sees the connection, not what is said on it; tls: intercept or upgrade: https would change that")
	default:
		x.Chain = names(requestOrder(settingsOf(p)))
		if x.Mode == string(exchange.ModeUpgrade) && authority.Port == 80 {
			authority.Port = 443
		}
	}
	x.Values = p.values()
}

// access notes what the policy's access means for the request.
func (x *Explanation) access() {
	switch Access(x.Access) {
	case Deny:
		x.Notes = append(x.Notes, "refused: access is deny")
	case Report:
		x.Notes = append(x.Notes, "passes, and is recorded as one that would be refused: access is report")
	}
}

// mode is how the request would travel. A request for https:// is taken for one through CONNECT, as nearly every client does it.
func mode(p *plan, r *http.Request) string {
	switch {
	case r.Method == http.MethodConnect || r.URL.Scheme == "https":
		if p.wordOf("tls") == "intercept" {
			return string(exchange.ModeIntercept)
		}
		return string(exchange.ModeTunnel)
	case p.wordOf("upgrade") == "https":
		return string(exchange.ModeUpgrade)
	}
	return string(exchange.ModePlain)
}

func requestOf(method, rawURL string, header http.Header) (*http.Request, exchange.Authority, error) {
	method = strings.ToUpper(method)
	if method == "" {
		method = http.MethodGet
	}
	var none exchange.Authority
	if !exchange.IsToken(method) {
		return nil, none, fmt.Errorf("%q is not a method: write one such as GET", harmless(method))
	}
	for name := range header {
		if !exchange.IsToken(name) {
			return nil, none, fmt.Errorf("%q is not the name of a header field", harmless(name))
		}
	}
	if method == http.MethodConnect && !strings.Contains(rawURL, "://") {
		rawURL = "https://" + rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, none, fmt.Errorf("%s is not an absolute URL: write http://HOST/PATH or https://HOST/PATH", harmless(rawURL))
	}
	port := uint16(80)
	if u.Scheme == "https" {
		port = 443
	}
	authority, err := exchange.ParseAuthority(u.Host, port)
	if err != nil {
		return nil, none, err
	}
	if header = header.Clone(); header == nil {
		header = http.Header{}
	}
	match.Hide(header)
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		length = 0
	}
	r := &http.Request{Method: method, URL: u, Host: authority.ForScheme(u.Scheme), Header: header, ContentLength: length, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return r, authority, nil
}

// find is Snapshot.Host for a File that was not compiled.
func (f *File) find(a exchange.Authority) (*hostPlan, error) {
	index := match.NewIndex[*hostPlan]()
	for i := range f.hosts {
		pattern, err := match.ParsePattern(f.hosts[i].pattern)
		if err == nil {
			err = index.Add(pattern, &f.hosts[i])
		}
		if err != nil {
			return nil, err
		}
	}
	if h, _, ok := index.Find(a); ok {
		return h, nil
	}
	return &hostPlan{base: f.base}, nil
}

// values lists the effective policy, each value with its origin.
func (p *plan) values() []Value {
	var out []Value
	for _, c := range choices() {
		v := Value{Path: c.name, Value: p.word(c), Origin: originDefault}
		if n := p.words[c.name]; n != nil {
			v.Origin, v.Where = n.origin, n.at.String()
		}
		out = append(out, v)
	}
	for _, key := range []string{"profile", "provider"} {
		v := Value{Path: key, Value: "none", Origin: originDefault}
		if n := p.set(key); n != nil {
			v.Value, v.Origin, v.Where = n.text, n.origin, n.at.String()
		}
		out = append(out, v)
	}
	for _, b := range blocks() {
		out = append(out, p.blockValues(b)...)
	}
	return out
}

func (p *plan) blockValues(b block) []Value {
	m := p.blocks[b.name]
	if !m.on || (b.adds == levels && len(m.levels) == 0) {
		v := Value{Path: b.name, Value: "off", Origin: originDefault}
		if m.wrote != nil && m.wrote.origin != "" {
			v.Origin, v.Where = m.wrote.origin, m.wrote.at.String()
		}
		return []Value{v}
	}
	var out []Value
	fresh := reflect.ValueOf(b.config()).Elem()
	collect := func(body *node, skip int, prefix string) encoder {
		return encoder{visit: func(path []string, v reflect.Value, shown any) {
			key := path[skip:]
			value := Value{Path: prefix, Value: shown, Origin: originDefault}
			for _, k := range key {
				value.Path = join(value.Path, k)
			}
			if n, rest := find(body, key); n != nil && len(rest) == 0 && n.origin != "" {
				value.Origin, value.Where = n.origin, n.at.String()
			} else if !sameAsDefault(fresh, key, v) {
				value.Origin = originDerived
			}
			out = append(out, value)
		}}
	}
	if b.adds != levels {
		collect(m.body, 1, b.name).value(reflect.ValueOf(m.config).Elem(), m.body, []string{b.name})
		return out
	}
	for _, l := range m.levels {
		prefix := b.name + "[" + strconv.Quote(l.name) + "]"
		collect(l.body, 0, prefix).value(reflect.ValueOf(l.config).Elem(), l.body, nil)
	}
	return out
}

// sameAsDefault compares a field with that of a fresh block.
func sameAsDefault(fresh reflect.Value, key []string, v reflect.Value) bool {
	for _, k := range key {
		if fresh.Kind() != reflect.Struct {
			return false
		}
		found := false
		for _, f := range fieldsOf(fresh.Type()) {
			if f.key == k {
				fresh, found = fresh.FieldByIndex(f.index), true
				break
			}
		}
		if !found {
			return false
		}
	}
	return reflect.DeepEqual(fresh.Interface(), v.Interface())
}

func (p position) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column)
}

// Text is the explanation for people.
func (x *Explanation) Text() string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-10s %s\n", name, value) }
	line("request", x.Method+" "+x.URL)
	line("authority", x.Authority)
	host := x.Host
	if host == "" {
		host = "none (the defaults hold)"
	}
	line("host", host)
	if x.Route != "" {
		line("route", x.Route)
	}
	line("mode", x.Mode)
	line("access", x.Access)
	line("chain", strings.Join(x.Chain, " → "))
	for _, n := range x.Notes {
		line("note", n)
	}
	for _, u := range x.Unapplied {
		line("unapplied", u)
	}
	b.WriteByte('\n')
	width := 0
	for _, v := range x.Values {
		width = max(width, len(v.Path))
	}
	for _, v := range x.Values {
		where := v.Origin
		if v.Where != "" {
			where += " (" + v.Where + ")"
		}
		fmt.Fprintf(&b, "%-*s  %-28v # %s\n", width, v.Path, shownText(v.Value), where)
	}
	return b.String()
}

func shownText(v any) string {
	if items, ok := v.([]any); ok {
		words := make([]string, len(items))
		for i, item := range items {
			words[i] = fmt.Sprint(item)
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	if s, ok := v.(string); ok && s == "" {
		return `""`
	}
	return fmt.Sprint(v)
}
