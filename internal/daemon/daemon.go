// Package daemon assembles the proxy: it reads the configuration, opens audit, CA and listeners, and takes them down in order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/admin"
	"httpowerd/internal/descriptor"
	"httpowerd/internal/governor"
	"httpowerd/internal/notify"
	"httpowerd/internal/policy"
	"httpowerd/internal/proxy"
	"httpowerd/internal/proxy/audit"
	"httpowerd/internal/proxy/egress"
	"httpowerd/internal/proxy/trace"
	"httpowerd/internal/redact"
	"httpowerd/internal/state"
	"httpowerd/internal/state/redis"
)

// Options are what a Daemon is started with.
type Options struct {
	Source  policy.Source
	Version string
	Log     io.Writer // the daemon's own log
	// Labels raises metrics.hosts where a short-lived daemon wants every host by name, those that cannot be reached too; 0: as configured.
	Labels int
	// NoWatch leaves the files alone after the start.
	NoWatch bool
	// NoAdmin opens no admin listener.
	NoAdmin bool
	// Resolver is what names are resolved with; nil: the system's.
	Resolver egress.Resolver
	// NoState takes nothing over from an earlier process, and leaves nothing to a later one.
	NoState bool
}

// Daemon is a running proxy.
type Daemon struct {
	settings policy.Settings // of the start
	holder   *policy.Holder
	level    *slog.LevelVar
	// levelForced says that somebody set the level while the daemon runs: a reload leaves it alone then.
	levelForced atomic.Bool
	log         *slog.Logger
	audit       *audit.Log
	redact      redact.Shared
	ca          *lazyCA
	proxy       *proxy.Server
	admin       *http.Server
	metrics     *prometheus.Registry
	rooms       policy.Rooms
	governor    *governor.Governor // nil: memory has no limit
	ends        *egress.Egress
	notify      *notify.Sender
	tracer      *trace.Tracer
	version     string
	own         *proxy.Own
	kept        *state.File   // nil: nothing outlives the process
	shared      *redis.Client // nil: nothing is shared
	proxyTLS    *listenerTLS  // nil: the listeners are plain

	spare        *descriptor.Reserve // for the admin listener; nil: there is none
	proxies      []net.Listener
	adminAddress net.Listener
	failed       chan error
	wg           sync.WaitGroup
	stop         context.CancelFunc
	leaving      chan struct{} // closed when draining begins
	leave        sync.Once
}

// Start starts a daemon. When it returns without an error all listeners accept. The caller ends it with Shutdown.
func Start(o Options) (_ *Daemon, err error) {
	file, faults := policy.Load(o.Source)
	if len(faults) > 0 {
		return nil, faults
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Daemon{settings: file.Settings(), stop: stop, failed: make(chan error, 8), leaving: make(chan struct{})}
	defer func() {
		if err != nil {
			d.abandon()
		}
	}()
	shared, keyErr := hiding(d.settings, o)
	shared.Learn(file.Secrets()...)
	d.redact = shared
	d.log, d.level = newLog(o.Log, d.settings.Log, shared.On(redact.Default()))
	if keyErr != nil {
		d.log.Warn("fingerprints in records match only until this process ends: their key cannot be kept in state.dir", "error", keyErr)
	}
	if path := fingerprintKey(d.settings, o); path != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			d.log.Warn("the key of fingerprints can be read or written by others, who could try out what was hidden: chmod 600", "path", path, "mode", info.Mode().Perm().String())
		}
	}
	if err := d.assemble(o); err != nil {
		return nil, err
	}
	if err := d.openState(o); err != nil {
		return nil, err
	}
	if err := d.holder.Start(file); err != nil {
		return nil, err
	}
	d.audit.OnFailure(d.auditFailed) // now that there are targets to tell
	if err := d.listen(o); err != nil {
		return nil, err
	}
	d.serve(ctx, o)
	d.audit.Event("lifecycle", slog.String("event", "started"), slog.String("version", o.Version))
	if ephemeral(d.settings.State.Dir) && !o.NoAdmin {
		d.log.Warn("state.dir is not persistent: the interception CA is lost with this container or machine, and programs must then trust a new one",
			"dir", d.settings.State.Dir)
	}
	d.log.Info("started", "version", o.Version, "proxy", strings.Join(d.ProxyAddrs(), " "), "admin", d.AdminAddr())
	return d, nil
}

// listen opens every listener before any is served: a daemon that starts by half is worse than one that does not.
func (d *Daemon) listen(o Options) error {
	for _, address := range d.settings.Proxy.Listen {
		l, err := listenTCP(address)
		if err != nil {
			return fmt.Errorf("proxy.listen %s: %w", address, reason(err))
		}
		d.proxies = append(d.proxies, l)
		d.own.Add(l.Addr())
	}
	if o.NoAdmin || d.settings.Admin.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", d.settings.Admin.Listen)
	if err != nil {
		return fmt.Errorf("admin.listen %s: %w", d.settings.Admin.Listen, reason(err))
	}
	d.spare = descriptor.NewReserve(adminSpare)
	d.adminAddress = descriptor.Keep(l, d.spare)
	d.own.Add(l.Addr())
	return nil
}

// adminSpare is how many operators, probes and scrapers are served when the process has no file descriptor left.
const adminSpare = 8

// reason is the last of a chain of errors: "address already in use" without the address again.
func reason(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func (d *Daemon) serve(ctx context.Context, o Options) {
	for _, l := range d.proxies {
		d.wg.Go(func() { d.report(d.proxy.Serve(l, d.proxyTLS.config())) })
	}
	if d.adminAddress != nil {
		d.admin = admin.NewServer(d.handler(o), d.log)
		d.wg.Go(func() {
			if err := d.admin.Serve(d.adminAddress); !errors.Is(err, http.ErrServerClosed) {
				d.report(err)
			}
		})
	}
	if !o.NoWatch {
		d.wg.Go(func() { d.holder.Watch(ctx) })
	}
	if d.kept != nil {
		d.wg.Go(func() { d.kept.Run(ctx) })
	}
	d.wg.Go(func() { d.governor.Run(ctx) })
}

func (d *Daemon) report(err error) {
	if err != nil {
		d.failed <- err
	}
}

// Failed delivers the error of a listener that stopped by itself.
func (d *Daemon) Failed() <-chan error { return d.failed }

// ProxyAddrs are the addresses that proxy listeners are bound to.
func (d *Daemon) ProxyAddrs() []string {
	var out []string
	for _, l := range d.proxies {
		out = append(out, l.Addr().String())
	}
	return out
}

// AdminAddr is the address of the admin listener, "" where there is none.
func (d *Daemon) AdminAddr() string {
	if d.adminAddress == nil {
		return ""
	}
	return d.adminAddress.Addr().String()
}

// Reload reads the configuration again.
func (d *Daemon) Reload(ctx context.Context, why string) error {
	err := d.holder.Reload(ctx, why)
	if err != nil {
		d.readCA() // a fault elsewhere is no reason to go on with an old one
	}
	moved := d.audit.Reopen()
	if moved != nil { // nobody but the log hears of it where a signal asked
		d.log.Error("the audit file was not opened again", "error", moved)
	}
	return errors.Join(err, moved)
}

// readCA reads the files of a CA that is in use again.
func (d *Daemon) readCA() {
	if err := d.ca.reload(); err != nil {
		d.log.Error("the interception CA was not read again", "error", err)
	}
}

// Draining tells whether the daemon is on its way out.
func (d *Daemon) Draining() bool {
	select {
	case <-d.leaving:
		return true
	default:
		return false
	}
}

// Shutdown drains: readiness fails at once, listeners stop after drain.delay, requests and tunnels get drain.timeout. What is still open then is cut,
// and an error says so. A done ctx ends the waits early.
func (d *Daemon) Shutdown(ctx context.Context) error {
	d.leave.Do(func() { close(d.leaving) })
	drain := d.holder.Load().Settings.Drain
	d.log.Info("draining", "delay", drain.Delay.String(), "timeout", drain.Timeout.String())
	select {
	case <-time.After(drain.Delay.D()):
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, drain.Timeout.D())
	defer cancel()
	stop := context.AfterFunc(ctx, d.rooms.Dedup.Cut)
	err := d.proxy.Shutdown(ctx)
	d.rooms.Dedup.Drain(ctx)
	stop()
	if err != nil {
		d.log.Warn("what was still open has been cut", "error", err)
	}
	d.stop()
	if d.admin != nil {
		err = errors.Join(err, closeAdmin(d.admin))
	}
	d.wg.Wait()
	d.spare.Close()
	d.governor.Close()
	d.closeState()
	d.holder.Close()
	d.leaveShared()
	d.closeNotify(farewell)
	d.closeTracer(ctx)
	d.audit.Event("lifecycle", slog.String("event", "stopped"))
	last, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	lost := d.audit.Close(last)
	if lost != nil {
		d.log.Error("the audit trail did not end in order", "error", lost)
	}
	d.log.Info("stopped")
	return errors.Join(err, lost)
}

// closeAdmin gives running answers a moment; the live view never ends by itself.
func closeAdmin(s *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return s.Close()
	}
	return nil
}

// abandon takes down what a failed start had opened.
func (d *Daemon) abandon() {
	d.stop()
	for _, l := range d.proxies {
		_ = l.Close()
	}
	if d.adminAddress != nil {
		_ = d.adminAddress.Close()
	}
	d.spare.Close()
	if d.proxy != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = d.proxy.Shutdown(ctx)
	}
	if d.kept != nil {
		_ = d.kept.Close() // as it was
	}
	if d.holder != nil {
		d.holder.Close()
	}
	d.leaveShared()
	if d.notify != nil {
		d.closeNotify(0)
	}
	d.closeTracer(context.Background())
	if d.audit != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.audit.Close(ctx)
	}
}
