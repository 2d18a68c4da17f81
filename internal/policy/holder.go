package policy

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/state"
)

// Holder holds the snapshot in use and replaces it as a whole. Reading it is one atomic load.
type Holder struct {
	source  Source
	rooms   Rooms
	log     *slog.Logger
	metrics *metrics
	keeper  state.Keeper
	current atomic.Pointer[Snapshot]

	mu      sync.Mutex // one reload at a time
	file    *File      // in use
	tried   *File      // read last, valid or not: says what to watch
	started *Settings  // of the first snapshot: what listeners were made of
	unmade  string     // why no snapshot could be made of tried, though nothing is wrong with it; "": nothing kept it from that
	hooks   []func(*Snapshot, error, []string)
	closed  bool
}

var errClosed = errors.New("the configuration is not read again: the daemon stops")

// NewHolder makes a Holder that is empty until Start or the first Reload.
func NewHolder(source Source, rooms Rooms, reg prometheus.Registerer, log *slog.Logger) *Holder {
	return &Holder{source: source, rooms: rooms, log: log, metrics: newMetrics(reg)}
}

// Load is the snapshot in use, nil before Start and the first successful Reload.
func (h *Holder) Load() *Snapshot { return h.current.Load() }

// File is the configuration in use, nil before Start and the first successful Reload.
func (h *Holder) File() *File {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file
}

// RestartNeeded lists the keys whose values in use are older than those in the file, since they are read only at the start.
func (h *Holder) RestartNeeded() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started == nil {
		return nil
	}
	return restartKeys(h.started, &h.file.settings)
}

// OnReload calls f after each reload, with the new snapshot or the error, and with the changed keys that need a restart to act. f must not
// call Reload.
func (h *Holder) OnReload(f func(*Snapshot, error, []string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hooks = append(h.hooks, f)
}

// Reload reads the configuration again; why is for the log. On an error (Faults, where the file is to blame) the snapshot in use stays.
func (h *Holder) Reload(ctx context.Context, why string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if h.closed {
		return errClosed
	}
	f, faults := load(h.source)
	return h.use(f, faults, why)
}

// Start puts a configuration in use that was read from the same source already.
func (h *Holder) Start(f *File) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	return h.use(f, nil, "start")
}

// reloadChanged is Reload where what the files hold is not what was read last.
func (h *Holder) reloadChanged(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.tried != nil && h.unmade == "" && h.tried.looks.again() {
		return
	}
	f, faults := load(h.source)
	switch {
	case h.tried == nil || h.tried.digest != f.digest:
	case h.unmade != "":
		why = anotherTry
	default:
		h.tried.files, h.tried.folders, h.tried.looks = f.files, f.folders, f.looks
		return
	}
	_ = h.use(f, faults, why) // logged, counted and told to the hooks
}

// behind tells whether the files hold something else than was read last.
func (h *Holder) behind() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tried != nil && !h.tried.looks.again()
}

// anotherTry is why a configuration that did not change is read again; that it fails as before is not told again.
const anotherTry = "another try"

// unread tells whether some file could not be read, or no snapshot be made: what kept it from it, such as a want of file descriptors, may be over without a change of
// the file.
func (h *Holder) unread() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tried != nil && (h.unmade != "" || h.tried.looks.faulty())
}

// Close closes what the snapshot in use keeps: pools, limiters, breakers. It is for the end, when no request runs any more; the snapshot can still be
// read, and no reload succeeds. A second Close does nothing.
func (h *Holder) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.keeper.Close()
}

// use does everything that can fail, then one store.
func (h *Holder) use(f *File, faults Faults, why string) error {
	h.tried = f
	before := h.unmade
	h.unmade = ""
	if len(faults) > 0 {
		return h.fail(faults, why)
	}
	started := h.started
	if started == nil {
		started = &f.settings
	}
	if h.file != nil && unguarded(started, &h.file.settings, &f.settings) {
		return h.fail(Faults{{File: f.path, Path: "tenants", Message: "cannot all go while the daemon runs: its listeners were opened for tenants, and would serve everybody; restart it"}}, why)
	}
	loopbackOnly := f.settings.Proxy.LoopbackOnly() && started.Proxy.LoopbackOnly()
	snapshot, generation, err := compile(f, h.rooms, &h.keeper, loopbackOnly)
	if err != nil {
		h.unmade = err.Error()
		if why == anotherTry && h.unmade == before {
			return err
		}
		return h.fail(err, why)
	}
	h.current.Store(snapshot)
	generation.Commit()
	h.file, h.started = f, started
	h.metrics.loaded(snapshot.Hash)
	restart := restartKeys(started, &f.settings)
	for _, w := range f.warnings {
		h.log.Warn("configuration: "+w.Message, "key", w.Path, "file", w.File, "line", w.Line)
	}
	if len(restart) > 0 {
		h.log.Warn("configuration changed where a restart is needed for it to act", "keys", restart)
	}
	h.log.Info("configuration loaded", "why", why, "hash", snapshot.Hash, "hosts", len(f.hosts))
	for _, hook := range h.hooks {
		hook(snapshot, nil, restart)
	}
	return nil
}

// unguarded tells whether the listeners that run, which may be others than those in the file, would serve whom nobody means to: they were opened to the network
// for tenants alone, or let in clients without a certificate since those might be tenants.
func unguarded(started, old, now *Settings) bool {
	forTenants := !started.Proxy.LoopbackOnly() && started.Proxy.Open == OpenNo && now.Proxy.Open != OpenYes
	return len(old.Tenants) > 0 && len(now.Tenants) == 0 && (forTenants || started.Proxy.TLS.ClientCA != "")
}

func (h *Holder) fail(err error, why string) error {
	h.metrics.failed()
	message := "configuration not loaded"
	if h.file != nil {
		message = "configuration not loaded, the one in use stays"
	}
	h.log.Error(message, "why", why, "error", err)
	for _, hook := range h.hooks {
		hook(nil, err, nil)
	}
	return err
}

// watched is what the last read configuration is made of.
func (h *Holder) watched() (files, folders []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tried == nil {
		return nil, nil
	}
	return slices.Clone(h.tried.files), slices.Clone(h.tried.folders)
}

// restartKeys lists what was changed since the start and is read only then.
func restartKeys(old, now *Settings) []string {
	var keys []string
	changed := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			keys = append(keys, key)
		}
	}
	changed("proxy.listen", old.Proxy.Listen, now.Proxy.Listen)
	changed("proxy.tls", old.Proxy.TLS, now.Proxy.TLS)
	changed("proxy.open", old.Proxy.Open, now.Proxy.Open)
	changed("proxy.limits", old.Proxy.Limits, now.Proxy.Limits)
	changed("proxy.wire", old.Proxy.Wire, now.Proxy.Wire)
	changed("admin.listen", old.Admin.Listen, now.Admin.Listen)
	changed("log.format", old.Log.Format, now.Log.Format)
	changed("audit", old.Audit, now.Audit)
	changed("ca", old.CA, now.CA)
	changed("state", old.State, now.State)
	changed("metrics", old.Metrics, now.Metrics)
	return keys
}
