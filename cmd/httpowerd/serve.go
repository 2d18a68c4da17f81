package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"httpowerd/internal/daemon"
	"httpowerd/internal/governor"
	"httpowerd/internal/policy"
)

func serveCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon (what httpowerd does without a command)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			source := flags.source()
			source.Overrides.Warn, source.Overrides.Misspelt = true, misspelt(cmd.Root())
			return serve(cmd.Context(), source, io)
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

// serve runs a daemon until a signal ends it. A second signal ends the drain.
func serve(ctx context.Context, source policy.Source, io stdio) error {
	defer outliveReaders()()
	defer ballast()()
	defer governor.Rest()()
	if err := withoutCore(); err != nil {
		fmt.Fprintln(io.err, "httpowerd: core files cannot be turned off:", err)
	}
	// Before anybody can see that the daemon is there, and apart: signals that find their channel full are lost, and no number of hangups may hide an end.
	ends, hangups := make(chan os.Signal, 2), make(chan os.Signal, 1) // one hangup that waits stands for all
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(ends)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	d, err := daemon.Start(daemon.Options{Source: source, Version: version(), Log: io.err})
	if err != nil {
		return err
	}
	adoptLog(d)
	notify := newNotifier()
	notify.ready()
	left := make(chan struct{})
	defer close(left)
	go reloads(ctx, d, notify, hangups, left)
	select {
	case <-ctx.Done():
		return leave(d, ends, notify)
	case err := <-d.Failed():
		_ = leave(d, ends, notify)
		return err
	case <-ends:
		return leave(d, ends, notify)
	}
}

// reloads reads the configuration again at each hangup until the daemon has left. It may take its time, and the daemon can end meanwhile.
func reloads(ctx context.Context, d *daemon.Daemon, notify *notifier, hangups <-chan os.Signal, left <-chan struct{}) {
	for {
		select {
		case <-hangups:
		case <-left:
			return
		}
		if d.Draining() {
			continue
		}
		notify.reloading()
		_ = d.Reload(ctx, "signal") // logged and counted; the old configuration holds
		notify.ready()
	}
}

// adoptLog takes what libraries write by themselves into the daemon's log. It may quote an upstream, and would stand unescaped between the log's lines.
func adoptLog(d *daemon.Daemon) {
	log.SetFlags(0)
	log.SetOutput(d.LibraryLog())
}

// outliveReaders keeps the process alive when nobody reads its output any more, until undo is called: the write fails and that is all. For standard
// output and error Go's runtime ends the process otherwise. The signal is caught and not ignored, because commands would inherit that.
func outliveReaders() (undo func()) {
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	return func() { signal.Stop(pipes) }
}

// leave drains. What had to be cut, or was lost, is in the log; it is no failure of the daemon.
func leave(d *daemon.Daemon, ends <-chan os.Signal, notify *notifier) error {
	notify.stopping()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-ends:
			cancel()
		case <-ctx.Done():
		}
	}()
	_ = d.Shutdown(ctx)
	return nil
}
