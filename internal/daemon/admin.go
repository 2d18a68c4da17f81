package daemon

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"httpowerd/internal/admin"
	"httpowerd/internal/policy"
)

// handler hands the daemon's parts to the admin listener.
func (d *Daemon) handler(o Options) http.Handler {
	return admin.New(admin.Options{
		Version: o.Version, Listen: d.AdminAddr(), Names: adminNames(d.settings.Admin), Started: time.Now(),
		Policies: d.holder, OnReload: d.holder.OnReload, Reload: d.Reload, Breakers: d.rooms.Breaker, Limits: d.rooms.RateLimit.Limits,
		Places:  d.rooms.Concurrency.Status,
		Budgets: d.rooms.Retry.Budgets,
		Metrics: d.metrics, Traffic: d.audit.Subscribe, Event: d.audit.Event, CA: d.CA, Leaving: d.leaving, Level: levels{d}, Log: d.log,
		State: d.stateStatus,
	})
}

// adminNames are what the admin listener may be called: the name that it listens on, and the machine's own.
func adminNames(s policy.AdminSettings) []string {
	var names []string
	if host, _, err := net.SplitHostPort(s.Listen); err == nil && host != "" {
		names = append(names, host)
	}
	if host, err := os.Hostname(); err == nil {
		names = append(names, host)
		if short, _, ok := strings.Cut(host, "."); ok {
			names = append(names, short)
		}
	}
	return names
}

// levels is the level of the daemon's own log, for the admin API.
type levels struct{ d *Daemon }

// Level is the level in use, and whether somebody forced it.
func (l levels) Level() (slog.Level, bool) { return l.d.level.Level(), l.d.levelForced.Load() }

// Force sets the level; reloads leave it alone.
func (l levels) Force(level slog.Level) {
	l.d.levelForced.Store(true)
	l.d.level.Set(level)
}

// Release gives the level back to the configuration in use.
func (l levels) Release() {
	l.d.levelForced.Store(false)
	l.d.level.Set(logLevel(l.d.holder.Load().Settings.Log.Level))
}
