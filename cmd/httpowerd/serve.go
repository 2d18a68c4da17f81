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
)

func serveCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon (what httpowerd does without a command)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), flags, io)
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

// serve runs a daemon until a signal ends it. A second signal ends the drain.
func serve(ctx context.Context, flags sourceFlags, io stdio) error {
	defer outliveReaders()()
	defer ballast()()
	defer governor.Rest()()
	if err := withoutCore(); err != nil {
		fmt.Fprintln(io.err, "httpowerd: core files cannot be turned off:", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // before anybody can see that the daemon is there
	defer signal.Stop(signals)
	source := flags.source()
	source.Overrides.Warn = true
	d, err := daemon.Start(daemon.Options{Source: source, Version: version(), Log: io.err})
	if err != nil {
		return err
	}
	adoptLog(d)
	notify := newNotifier()
	notify.ready()
	for {
		select {
		case <-ctx.Done():
			return leave(d, signals, notify)
		case err := <-d.Failed():
			_ = leave(d, signals, notify)
			return err
		case s := <-signals:
			if s != syscall.SIGHUP {
				return leave(d, signals, notify)
			}
			notify.reloading()
			_ = d.Reload(ctx, "signal") // logged and counted; the old configuration holds
			notify.ready()
		}
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
func leave(d *daemon.Daemon, signals <-chan os.Signal, notify *notifier) error {
	notify.stopping()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGHUP {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	_ = d.Shutdown(ctx)
	return nil
}
