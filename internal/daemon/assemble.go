package daemon

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/admin"
	"httpowerd/internal/descriptor"
	"httpowerd/internal/governor"
	"httpowerd/internal/notify"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/tenant"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/proxy"
	"httpowerd/internal/proxy/audit"
	"httpowerd/internal/proxy/egress"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/proxy/trace"
	"httpowerd/internal/redact"
	"httpowerd/internal/state"
)

// assemble makes everything that lives as long as the process.
func (d *Daemon) assemble(o Options) (err error) {
	s := d.settings
	d.metrics = admin.NewRegistry(o.Version)
	d.own = &proxy.Own{}
	labels := proxy.NewLabels(max(o.Labels, s.Metrics.Hosts), o.Labels > 0)
	if d.proxyTLS, err = newListenerTLS(s); err != nil {
		return err
	}
	if d.audit, err = audit.Open(d.auditConfig(), d.metrics, d.log); err != nil {
		return err
	}
	d.governor = governor.New(s.Proxy.Limits.Memory.Resolve(), d.metrics, d.log)
	standard := s.Proxy.Wire == policy.WireStandard
	d.ends = egress.New(egress.Options{Registerer: d.metrics, Logger: d.log, Own: d.own.Has, Reached: labels.Reached, Label: labels.For,
		Resolver: o.Resolver, Standard: standard, Held: func(policy string, k state.Key) bool { return d.rooms.Breaker.Refuses(policy, k) }})
	d.notify = notify.New(d.metrics, d.log)
	d.tracer, d.version = trace.New(d.metrics, d.log, d.redact.On(redact.Default())), o.Version
	d.rooms = policy.Rooms{
		Timeout:     timeout.New(),
		Retry:       retry.New(d.metrics),
		RateLimit:   ratelimit.New(d.metrics),
		Concurrency: concurrency.New(d.metrics),
		Breaker:     breaker.New(d.metrics, d.log),
		Hedge:       hedge.New(d.metrics),
		Dedup:       dedup.New(d.metrics),
		Sanitize:    sanitize.New(d.metrics),
		Tenants:     tenant.NewRoom(d.log),
		Ends:        d.ends,
		Redact:      d.redact,
	}
	d.rooms.Retry.Short(func() bool { return d.governor.At(governor.Bodies) })
	d.rooms.Sanitize.Short(func() bool { return d.governor.At(governor.Bodies) })
	d.rooms.Dedup.Short(func() bool { return d.governor.At(governor.Caches) })
	d.rooms.Breaker.OnChange(d.breakerChanged)
	d.rooms.RateLimit.Log(d.log)
	d.rooms.RateLimit.OnGate(d.gateChanged)
	d.ca = &lazyCA{config: CAConfig(s), event: d.audit.Event}
	d.rooms.CA = d.ca.check
	d.governor.Shed(d.ca.shed)
	d.holder = policy.NewHolder(o.Source, d.rooms, d.metrics, d.log)
	d.holder.OnReload(d.reloaded)
	l := s.Proxy.Limits
	short := func() bool { return d.governor.At(governor.Refusal) }
	if d.governor == nil {
		short = nil
	}
	d.proxy = proxy.New(proxy.Options{
		Policies: d.holder, Audit: d.audit, CA: d.ca.get, Open: proxy.Open(s.Proxy.Open), Labels: labels, Own: d.own,
		Registerer: d.metrics, Logger: d.log, Standard: standard, Short: short, Tracer: d.tracer,
		Limits: proxy.Limits{Connections: d.fitting(l.Connections, descriptor.Limit()), Tunnels: l.Tunnels, HeaderBytes: int(l.HeaderBytes),
			HeaderTimeout: l.HeaderTimeout.D(), Idle: l.Idle.D(), TunnelIdle: l.TunnelIdle.D()},
	})
	return nil
}

// fitting is how many client connections there may be with the descriptors that the process may have.
func (d *Daemon) fitting(connections, limit int) int {
	fit, tight := descriptor.Most(connections, limit)
	switch {
	case fit < connections:
		d.log.Warn("proxy.limits.connections is lowered: the limit of file descriptors is too low for it; raise LimitNOFILE or ulimit -n",
			"configured", connections, "connections", fit, "descriptors", limit)
	case tight:
		d.log.Warn("proxy.limits.connections fits only while most clients rest, as each takes a file descriptor and a busy one two; raise LimitNOFILE or ulimit -n",
			"connections", connections, "descriptors", limit)
	}
	return fit
}

func (d *Daemon) auditConfig() audit.Config {
	s := d.settings
	return audit.Config{Output: s.Audit.Output, Chain: s.Audit.Chain, MaxSize: s.Audit.MaxSize, MaxAge: s.Audit.MaxAge, MaxFiles: s.Audit.MaxFiles,
		Keep: s.Audit.Keep, Sync: auditSync(s.Audit.Sync), Checkpoint: CheckpointConfig(s),
		Also: s.Audit.Also, AlsoOnFull: s.Audit.AlsoOnFull, TLS: audit.TLSFiles{CA: s.Audit.TLS.CA, Cert: s.Audit.TLS.Cert, Key: s.Audit.TLS.Key},
		Redactor: d.redact.On(redact.Default())}
}

func auditSync(s policy.AuditSync) time.Duration {
	switch {
	case s.Always:
		return audit.SyncAlways
	case s.Every == 0:
		return audit.SyncOff
	}
	return s.Every
}

// CheckpointConfig is the audit trail's checkpoints' configuration. Nobody asked for the usual ones: without them the daemon starts all the same.
func CheckpointConfig(s policy.Settings) audit.CheckpointConfig {
	c := s.Audit.Checkpoint
	out := audit.CheckpointConfig{Every: c.Every.D(), Records: c.Records, Key: c.Key, Output: c.Output, Optional: c.Key == "" && c.Output == ""}
	if out.Key == "" {
		out.Key = filepath.Join(s.State.Dir, "audit.key")
	}
	return out
}

// fingerprintKey is the file of the key of fingerprints; "": none is kept.
func fingerprintKey(s policy.Settings, o Options) string {
	if o.NoState || s.State.Dir == "" {
		return ""
	}
	return filepath.Join(s.State.Dir, redact.KeyFile)
}

// hiding is what all redactors share. Without a key that lasts, fingerprints match within this process only, which is no reason not to start.
func hiding(s policy.Settings, o Options) (redact.Shared, error) {
	shared := redact.Shared{Literals: new(redact.Literals)}
	var err error
	if path := fingerprintKey(s, o); path != "" {
		shared.Key, err = redact.LoadKey(path)
	}
	if shared.Key == nil {
		shared.Key = redact.RandomKey()
	}
	return shared, err
}

// newLog is the daemon's own log; nothing sensitive passes its handler.
func newLog(w io.Writer, s policy.LogSettings, r *redact.Redactor) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(logLevel(s.Level))
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewJSONHandler(w, options)
	if s.Format == "text" {
		h = slog.NewTextHandler(w, options)
	}
	return slog.New(redact.NewHandler(h, r)), level
}

// logLevel is the level of that name, which is valid.
func logLevel(name string) (l slog.Level) {
	_ = l.UnmarshalText([]byte(name))
	return l
}

// CAConfig is the interception CA's configuration.
func CAConfig(s policy.Settings) intercept.Config {
	c := intercept.Config{Dir: s.CA.Dir, Cert: s.CA.Cert, Key: s.CA.Key, LeafTTL: s.CA.LeafTTL.D()}
	if c.Dir == "" {
		c.Dir = filepath.Join(s.State.Dir, "ca")
	}
	return c
}

// lazyCA opens the CA at its first use: a proxy that intercepts nothing has none that could be stolen.
type lazyCA struct {
	config intercept.Config
	event  func(kind string, attrs ...slog.Attr) // writes an audit record
	mu     sync.Mutex
	ca     *intercept.Authority
}

func (l *lazyCA) get() (*intercept.Authority, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ca != nil {
		return l.ca, nil
	}
	ca, err := intercept.Open(l.config)
	if err != nil {
		return nil, err
	}
	there := ca.Certificate() != nil
	if err := ca.Ready(); err != nil {
		return nil, err
	}
	l.ca = ca
	if !there {
		l.tell("ca_created")
	}
	return ca, nil
}

// check is get for who wants to know that there is one.
func (l *lazyCA) check() error {
	_, err := l.get()
	return err
}

// tell makes an audit record of what became of the CA.
func (l *lazyCA) tell(event string) {
	cert := l.ca.Certificate()
	sum := sha256.Sum256(cert.Raw)
	l.event(audit.KindLifecycle, slog.String("event", event), slog.String("subject", cert.Subject.String()),
		slog.String("sha256", strings.ToUpper(fmt.Sprintf("% x", sum))), slog.Time("not_after", cert.NotAfter))
}

// shed forgets leaf certificates; they are made anew when they are asked for.
func (l *lazyCA) shed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ca != nil {
		l.ca.Shed()
	}
}

// pem is the CA's certificate, made if need be.
func (l *lazyCA) pem() ([]byte, error) {
	ca, err := l.get()
	if err != nil {
		return nil, err
	}
	return ca.PEM(), nil
}

// reload reads a CA that is in use again.
func (l *lazyCA) reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ca == nil {
		return nil
	}
	changed, err := l.ca.Reload()
	if changed {
		l.tell("ca_changed")
	}
	return err
}
