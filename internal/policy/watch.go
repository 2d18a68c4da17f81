package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	quiet   = 100 * time.Millisecond // an editor writes, renames and touches: wait for it to be done
	restive = time.Second            // but not for ever
	poll    = 5 * time.Second        // for file systems that announce nothing (network mounts)
	rest    = 50 * time.Millisecond  // after an event of a file that was the last one's, too, and is none of ours
)

// Watch reloads whenever the configuration, or a file that it names, changes, and returns when ctx is done. It watches folders, since editors,
// package managers and Kubernetes replace files instead of writing into them.
func (h *Holder) Watch(ctx context.Context) {
	w := &watcher{holder: h, folders: map[string]bool{}}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		h.log.Warn("file changes are only found by looking every few seconds", "error", err)
		notify = &fsnotify.Watcher{} // nil channels never deliver
	} else {
		w.notify = notify
		defer notify.Close()
	}
	w.follow()
	w.look("a file changed") // since it was read and before it was watched
	w.run(ctx, notify)
}

type watcher struct {
	holder  *Holder
	notify  *fsnotify.Watcher // nil: only polling
	folders map[string]bool
	files   []string
	globs   []string
	targets []string // where the files led when they were read; that a link leads elsewhere is an event of its own
	missed  bool     // something changed after it was read and, perhaps, before its folder was watched
	seen    string   // fingerprint of what was there when it was last looked at
}

func (w *watcher) run(ctx context.Context, notify *fsnotify.Watcher) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	rested := time.NewTimer(time.Hour)
	rested.Stop()
	events, idle := notify.Events, ""
	var since time.Time // of the first event that nobody acted on yet
	for {
		if w.missed {
			w.missed = false
			settled.Reset(quiet)
		}
		select {
		case <-ctx.Done():
			return
		case <-rested.C:
			events = notify.Events
		case event := <-events:
			if !w.concerns(event.Name) {
				if event.Name == idle { // an audit log in the same folder: what the system announces meanwhile becomes one event
					events = nil
					rested.Reset(rest)
				}
				idle = event.Name
				continue
			}
			idle = ""
			if since.IsZero() {
				since = time.Now()
			}
			settled.Reset(max(0, min(quiet, restive-time.Since(since))))
		case err := <-notify.Errors:
			w.holder.log.Warn("watching the configuration", "error", err) // an overflow: the next look finds what was missed
		case <-settled.C:
			since = time.Time{}
			w.look("a file changed")
		case <-ticker.C:
			if w.fingerprint() != w.seen || w.holder.unread() {
				w.look("a file changed")
			}
		}
	}
}

// look reloads where something changed. The fingerprint is taken before reading: what changes meanwhile is found by the next look.
func (w *watcher) look(why string) {
	before, files := w.fingerprint(), w.files
	w.holder.reloadChanged(why)
	w.follow()
	w.missed = w.holder.behind()
	w.seen = before
	if !slices.Equal(files, w.files) {
		w.seen = ""
	}
}

// follow watches the folders of what the last configuration was made of.
func (w *watcher) follow() {
	w.files, w.globs = w.holder.watched()
	wanted := map[string]bool{}
	w.targets = w.targets[:0]
	for _, f := range w.files {
		wanted[filepath.Dir(f)] = true
		if target, err := filepath.EvalSymlinks(f); err == nil {
			wanted[filepath.Dir(target)] = true
			w.targets = append(w.targets, target)
		}
	}
	for _, g := range w.globs {
		wanted[g] = true
	}
	if w.notify != nil {
		for folder := range w.folders {
			if !wanted[folder] {
				_ = w.notify.Remove(folder) // gone already, perhaps
				delete(w.folders, folder)
			}
		}
		for folder := range wanted { // the known ones too: another may be in its place
			if w.notify.Add(folder) == nil {
				w.folders[folder] = true
			}
		}
	}
}

// concerns tells whether an event may be about the configuration. No file is looked at for it: others in the same folder may be written all the time.
func (w *watcher) concerns(name string) bool {
	return slices.Contains(w.files, name) || slices.Contains(w.targets, name) || slices.Contains(w.globs, filepath.Dir(name)) || w.folders[name] ||
		strings.HasPrefix(filepath.Base(name), "..") // Kubernetes swaps the link ..data
}

// fingerprint changes whenever a file is written or replaced, or one comes or goes in a folder of a pattern.
func (w *watcher) fingerprint() string {
	var b strings.Builder
	for _, f := range w.files {
		if info, err := os.Stat(f); err == nil {
			target, _ := filepath.EvalSymlinks(f)
			fmt.Fprintf(&b, "%s %s %d %d\n", f, target, info.Size(), info.ModTime().UnixNano())
		}
	}
	for _, g := range w.globs {
		entries, _ := os.ReadDir(g)
		for _, e := range entries {
			fmt.Fprintln(&b, e.Name())
		}
	}
	return b.String()
}
