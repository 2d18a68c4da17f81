package policy

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/setting"
)

// derive fits the values that nobody wrote to those that somebody did, across blocks.
func (a *assembly) derive(p *plan) {
	a.checkUnrecorded(p)
	t, r, b := p.blocks["timeout"], p.blocks["retry"], p.blocks["breaker"]
	if a.spoilt(t) || a.spoilt(r) || a.spoilt(b) {
		return
	}
	field := func(m *merged, key ...string) func() (bool, bool) {
		return func() (bool, bool) { return m.written(key...) }
	}
	w := dependent(field(t, "attempt"), field(t, "total"))
	limits := t.config.(*timeout.Config)
	attemptWritten, totalWritten := w[0], w[1]
	if t.on {
		a.report(t.body, t.wrote, limits.Derive(timeout.Written{Attempt: attemptWritten, Total: totalWritten}))
	} else {
		*limits = timeout.Config{Connect: limits.Connect, TLS: limits.TLS} // a connection that never comes helps nobody
	}
	if r.on {
		w := dependent(field(r, "backoff", "base"), field(r, "backoff", "throttled"), field(r, "backoff", "max"))
		waits := dependent(field(t, "total"), field(r, "retry_after", "max"))
		a.report(r.body, r.wrote, r.config.(*retry.Config).Derive(limits.Total.D(), retry.Written{
			Total: totalWritten && waits[0], RetryAfterMax: waits[1], BackoffBase: w[0], BackoffThrottled: w[1], BackoffMax: w[2]}))
	}
	if b.on {
		w := dependent(field(b, "open"), field(b, "open_max"))
		spans := dependent(field(t, "attempt"), field(b, "window"))
		a.report(b.body, b.wrote, b.config.(*breaker.Config).Derive(limits.Attempt.D(), breaker.Written{
			Attempt: attemptWritten && spans[0], Window: spans[1], Open: w[0], OpenMax: w[1]}))
		if c := b.config.(*breaker.Config); c.Slow.On && c.Ratio == 0 {
			if n, rest := find(b.body, []string{"slow"}); n != nil && len(rest) == 0 {
				a.warnings.at(n, "does nothing beside ratio: 0, the rule that it counts for")
			}
		}
	}
	a.checkUpstream(p.blocks["upstream"])
	for _, l := range p.blocks["rate_limit"].levels {
		if c := l.config.(*ratelimit.Config); c.Burst == 0 {
			c.Burst = c.Requests
		}
	}
}

// checkUpstream warns of connections that others can read, or pose as.
func (a *assembly) checkUpstream(u *merged) {
	c := u.config.(*upstream.Config)
	if n, rest := find(u.body, []string{"insecure_skip_verify"}); c.InsecureSkipVerify && n != nil && len(rest) == 0 && !stays(n.path, c.Resolve) {
		a.warnings.at(n, "certificates of upstreams are not verified: whoever is on the way can read and change everything; name their CA in upstream.ca instead")
	}
	if n, rest := find(u.body, []string{"min_version"}); c.MinVersion < "1.2" && n != nil && len(rest) == 0 {
		a.warnings.at(n, "TLS before 1.2 is broken (RFC 8996), and PCI DSS forbids it: leave it out where the upstream can do better")
	}
}

// stays tells whether the host in whose block path stands leads to this machine, where nobody is on the way.
func stays(path string, resolve map[string]string) bool {
	_, path, _ = strings.Cut(path, `hosts["`)
	name, _, _ := strings.Cut(path, `"`)
	to := resolve[name]
	return to != "" && (loopback(to) || loopback(net.JoinHostPort(to, "443")))
}

// spoilt tells whether a fault of the block was reported already: what would be derived from it would only confuse.
func (a *assembly) spoilt(m *merged) bool {
	return m.body != nil && m.body.hasBroken()
}

// publicSuffix warns of a pattern that takes in hosts of strangers.
func (a *assembly) publicSuffix(n *node, pattern string) {
	name, ok := strings.CutPrefix(pattern, "*.")
	if !ok {
		return
	}
	name, _, _ = strings.Cut(name, ":")
	suffix, icann := publicsuffix.PublicSuffix(name)
	if suffix == name && (icann || strings.Contains(name, ".")) {
		a.warnings.at(n, "takes in every site below the public suffix %s, whoever owns it", name)
	}
}

// checkTunnel warns of blocks that cannot act, because all that the proxy sees of this host is a tunnel.
func (a *assembly) checkTunnel(h *hostPlan) {
	plans := []*plan{h.base}
	for _, r := range h.routes {
		plans = append(plans, r.plan)
	}
	for i, p := range plans {
		if i > 0 {
			a.checkConnectionWords(h.base, p)
		}
		if h.base.wordOf("tls") != "tunnel" || p.wordOf("upgrade") != "off" || p.wordOf("access") == string(Deny) {
			continue
		}
		for _, l := range p.layers {
			if l.origin != originHost && l.origin != originRoute && l.origin != originTenant {
				continue
			}
			for _, n := range deaf(l) {
				name := strings.TrimPrefix(n.path, l.level+".")
				p.deaf = append(p.deaf, name)
				if l.level == p.level {
					a.warnings.at(n, "cannot act on the tunnels of this host: write tls: intercept or upgrade: https, or remove it")
				}
			}
		}
		if i > 0 {
			name := fmt.Sprintf("routes[%s]", h.routes[i-1].label)
			h.base.deaf = append(h.base.deaf, name)
			a.warnings.add(p.at, p.level, "a route sees nothing of this host's tunnels: write tls: intercept or upgrade: https, or remove it")
		}
	}
}

// checkConnectionWords warns of what a route says about connections: what becomes of one is decided before there is a request that could meet a route.
func (a *assembly) checkConnectionWords(base, route *plan) {
	for _, key := range []string{"tls", "sni"} {
		n := route.layers[len(route.layers)-1].body.get(key)
		if n != nil && n.kind == scalar && n.text != base.wordOf(key) {
			a.warnings.at(n, "has no effect in a route: it is decided for a connection, before there is a request; write it under the host")
		}
	}
}

// deaf lists the nodes of a level's blocks that mean nothing to a tunnel.
func deaf(l layer) []*node {
	var out []*node
	for _, b := range blocks() {
		n := l.body.get(b.name)
		if n == nil || n.kind != mapping {
			continue
		}
		for _, key := range b.tunnels {
			if key == "" {
				out = append(out, n)
			} else if v := n.get(key); v != nil {
				out = append(out, v)
			}
		}
	}
	return out
}

// checkSettings looks at what no block can see alone.
func (a *assembly) checkSettings() {
	s := &a.file.settings
	top := func(block string, keys ...string) *node {
		for _, b := range a.file.tops {
			if b.name == block {
				n, rest := find(b.body, keys)
				if n != nil && len(rest) == 0 {
					return n
				}
			}
		}
		return nil
	}
	a.secretFile(top("proxy", "tls", "key"))
	a.secretFile(top("ca", "key"))
	if n := top("admin", "listen"); n != nil && s.Admin.Listen != "" && !loopback(s.Admin.Listen) && s.Admin.Token.IsZero() {
		a.warnings.at(n, "is open to the network and has no token, so it serves health, metrics and the CA certificate only")
	}
	if n := top("admin", "token"); n != nil && n.kind == scalar && slices.Contains([]string{"off", "false", "no", "none", "null"}, strings.ToLower(n.text)) {
		a.warnings.at(n, "is that word as a token, which anybody guesses: for none leave the key out, or write \"\"")
	}
	if n := top("admin", "listen"); n != nil && slices.Contains(s.Proxy.Listen, s.Admin.Listen) && !strings.HasSuffix(s.Admin.Listen, ":0") {
		a.faults.at(n, "%s is the proxy's own address: the admin listener needs one of its own", s.Admin.Listen)
	}
	a.checkTargets(top)
	a.checkState(top)
	a.checkTracing(top("tracing", "otlp"))
	a.checkAudit(top)
	if s.Proxy.Open == OpenNo && len(s.Tenants) == 0 {
		for _, addr := range s.Proxy.Listen {
			if n := top("proxy", "listen"); n != nil && n.kind != broken && !loopback(addr) {
				a.faults.at(n, "%s is open to the network: configure tenants, or write open: private (or true) too, or listen on 127.0.0.1", addr)
			}
		}
	}
	if s.Proxy.Open == OpenYes && !s.Proxy.LoopbackOnly() {
		if n := top("proxy", "open"); n != nil {
			a.warnings.at(n, "everybody who reaches the listener may use the proxy: private admits private networks alone")
		}
	}
}

// checkTargets warns of notifications that anybody can read, or that will not be sent.
func (a *assembly) checkTargets(top func(block string, keys ...string) *node) {
	s := &a.file.settings
	rules, err := destination.Compile(s.Destinations, s.Proxy.LoopbackOnly())
	for name, target := range s.Notify {
		n := top("notify", name, "url")
		if n == nil || target.URL.IsZero() {
			continue
		}
		if addr, ok := target.URL.Authority().Addr(); !target.URL.Encrypted() && !(ok && addr.IsLoopback()) {
			a.warnings.at(n, "is not encrypted: whoever is on the way reads it, and with it what it takes to post there; write https://")
		}
		if err == nil && rules.CheckHost(target.URL.Authority()) != nil {
			a.warnings.at(n, "cannot be reached under destinations: what is posted there is lost; name its network in destinations.allow, its port in ports")
		}
	}
}

// checkAudit warns of rotation that was asked for where there is no file. An output that a flag names is for this run alone.
func (a *assembly) checkAudit(top func(block string, keys ...string) *node) {
	now, usual := a.file.settings.Audit, defaultSettings().Audit
	for i, to := range append([]string{now.Output}, now.Also...) {
		t, err := setting.ParseTarget(to)
		n := top("audit", "output")
		if i > 0 {
			n = top("audit", "also")
		}
		if n != nil && err == nil && !t.Private() {
			a.warnings.at(n, "%s is not encrypted: whoever is on the way reads every record; write syslog+tls:// or otlp+https://", to)
		}
	}
	if n := top("audit", "checkpoint"); n != nil && !isFile(now.Output) && now.Checkpoint != usual.Checkpoint && now.Checkpoint.Output == "" {
		a.warnings.at(n, "has no effect: only a file gets checkpoints by itself; name a file for them in audit.checkpoint.output")
	} else if n != nil && !now.Chain && now.Checkpoint != usual.Checkpoint {
		a.warnings.at(n, "has no effect: there is nothing to sign with audit.chain off")
	}
	if n := top("audit", "also_on_full"); n != nil && now.AlsoOnFull != usual.AlsoOnFull && len(now.Also) == 0 {
		a.warnings.at(n, "has no effect: audit.also names no place")
	}
	output := top("audit", "output")
	if output != nil && output.at.line == 0 {
		return
	}
	a.unrecorded = now.Output == "off"
	if n := top("audit", "tls"); n != nil && now.TLS != usual.TLS && !slices.ContainsFunc(append([]string{now.Output}, now.Also...), overTLS) {
		a.warnings.at(n, "has no effect: neither audit.output nor audit.also has a URL of syslog+tls or otlp+https")
	}
	if isFile(now.Output) {
		return
	}
	for key, asked := range map[string]bool{"max_size": now.MaxSize != usual.MaxSize, "max_age": now.MaxAge != usual.MaxAge, "max_files": now.MaxFiles != usual.MaxFiles,
		"keep": now.Keep != usual.Keep, "sync": now.Sync != usual.Sync} {
		if n := top("audit", key); n != nil && asked {
			a.warnings.at(n, "has no effect: only a file is rotated and synced; write audit.output: with the path of one")
		}
	}
}

// overTLS tells whether an output is a target that connections to are encrypted.
func overTLS(output string) bool {
	t, err := setting.ParseTarget(output)
	return err == nil && (t.Scheme == setting.SyslogTLS || t.Scheme == setting.OTLPHTTPS)
}

// checkUnrecorded warns of a policy that is to refuse what cannot be recorded where nothing is.
func (a *assembly) checkUnrecorded(p *plan) {
	if !a.unrecorded {
		return
	}
	for _, l := range p.layers {
		block := l.body.get("audit")
		if l.level != p.level || l.origin == originProfile || block == nil || block.kind != mapping {
			continue
		}
		if n := block.get("on_full"); n != nil && n.kind == scalar && n.text == OnFullFailClosed {
			a.warnings.at(n, "has no effect: audit.output is off, so nothing is recorded and nothing refused")
		}
	}
}

// checkFiles reads the certificates that the policy's connections will need.
func (a *assembly) checkFiles(p *plan) {
	c, _ := config[upstream.Config](p, "upstream")
	files := [3]string{c.CA, c.ClientCert, c.ClientKey}
	m := p.blocks["upstream"]
	if files == [3]string{} || a.checked[files] || a.spoilt(m) {
		return
	}
	if a.checked == nil {
		a.checked = map[[3]string]bool{}
	}
	a.checked[files] = true
	var found checks
	found.roots("ca", c.CA)
	if c.ClientCert != "" && c.ClientKey != "" { // the room says so where one is missing
		found.pair("client_cert", c.ClientCert, "client_key", c.ClientKey)
	}
	a.report(m.body, m.wrote, found)
	if n, rest := find(m.body, []string{"client_key"}); len(rest) == 0 {
		a.secretFile(n)
	}
}

func (a *assembly) secretFile(n *node) {
	if n == nil || n.kind != scalar || n.text == "" {
		return
	}
	if info, err := os.Stat(n.text); err == nil && info.Mode().Perm()&0o077 != 0 {
		a.warnings.at(n, "%s can be read by its group or by everybody (mode %04o): chmod 600 it", n.text, info.Mode().Perm())
	}
}
