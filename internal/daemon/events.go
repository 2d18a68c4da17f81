package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"httpowerd/internal/notify"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/proxy/audit"
)

// breakerChanged tells the audit trail, and whom the policy names. The targets first: the trail may make one wait.
func (d *Daemon) breakerChanged(c breaker.Change) {
	d.notify.Tell(notify.Event{Type: notify.BreakerStateChanged, Time: c.Time, Policy: c.Policy, Tenant: c.Tenant, Host: c.Host, Authority: c.Authority,
		From: c.From, To: c.To, Reason: c.Reason, RetryAfter: c.RetryAfter}, c.Notify...)
	d.audit.Event("breaker", slog.String("policy", c.Policy), slog.String("authority", c.Authority), slog.String("tenant", c.Tenant),
		slog.String("from", c.From), slog.String("to", c.To), slog.String("reason", c.Reason))
}

// gateChanged tells that an upstream's quota is used up, or that there is more again. The trail has it in the records of the requests.
func (d *Daemon) gateChanged(c ratelimit.GateChange) {
	e := notify.Event{Type: notify.GateOpened, Time: c.Time, Policy: c.Policy, Tenant: c.Tenant, Host: c.Host, Authority: c.Authority,
		From: "closed", To: "open", Reason: c.Reason, RetryAfter: c.After}
	if c.Closed {
		e.Type, e.From, e.To = notify.GateClosed, "open", "closed"
	}
	d.notify.TellAll(e)
	d.log.Info("gate "+e.To, "authority", c.Authority, "policy", c.Policy, "tenant", c.Tenant, "reason", c.Reason,
		"retry_after", c.After.Round(time.Millisecond).String())
}

// auditFailed tells that the trail's output, or one of its copies, takes nothing.
func (d *Daemon) auditFailed(err error) {
	why := reason(err)
	if c := (*audit.CopyError)(nil); errors.As(err, &c) {
		why = &audit.CopyError{To: c.To, Err: why}
	}
	d.notify.TellAll(notify.Event{Type: notify.AuditFailed, Time: time.Now(), Reason: why.Error()})
}

// reloaded hears of every reload, the failed ones too.
func (d *Daemon) reloaded(snapshot *policy.Snapshot, err error, restart []string) {
	if err != nil {
		d.notify.TellAll(notify.Event{Type: notify.ConfigReloadFailed, Time: time.Now(), Reason: whyNot(err)})
		d.audit.Event("config", slog.String("event", "reload_failed"), slog.String("error", err.Error()))
		return
	}
	d.readCA()
	d.recertify(snapshot)
	d.retarget(snapshot)
	d.retrace(snapshot.Settings.Tracing)
	d.audit.Event("config", slog.String("event", "loaded"), slog.String("config_hash", snapshot.Hash), slog.Any("restart_needed", restart))
	if !d.levelForced.Load() {
		d.level.Set(logLevel(snapshot.Settings.Log.Level))
	}
}

// retarget makes the daemon's own calls go to the snapshot's targets, by the snapshot's rules.
func (d *Daemon) retarget(snapshot *policy.Snapshot) {
	transport, err := d.ends.Calls(snapshot.Rules)
	if err != nil {
		d.log.Error("notifications and key sets go on as before", "error", err)
		return
	}
	d.notify.Use(snapshot.Settings.Notify, transport)
	d.rooms.Tenants.Use(transport)
}

// whyNot is the first fault of a configuration, without the name of its file.
func whyNot(err error) string {
	var faults policy.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		return "the configuration could not be put to use; the log says why"
	}
	first := faults[0].Message
	if faults[0].Path != "" {
		first = faults[0].Path + ": " + first
	}
	if len(faults) == 1 {
		return first
	}
	return fmt.Sprintf("%d faults, the first: %s", len(faults), first)
}

// farewell is how long notifications that are still queued may take at the end.
const farewell = 2 * time.Second

func (d *Daemon) closeNotify(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	d.notify.Close(ctx)
}
