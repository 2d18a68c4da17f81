package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"httpowerd/internal/daemon"
	"httpowerd/internal/governor"
	"httpowerd/internal/policy"
	"httpowerd/internal/setting"
	"httpowerd/internal/trust"
)

// privateHosts is how many hosts a private daemon tells apart in its summary.
const privateHosts = 10_000

type runFlags struct {
	sourceFlags
	intercept, summary bool
	audit, tenant      string
}

func runCommand(io stdio) *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:     "run [flags] -- CMD ARG…",
		Short:   "Run a command behind a private proxy, with every proxy and trust variable set",
		Example: "  httpowerd run --summary -- npm ci\n  httpowerd run --intercept --audit calls.jsonl -- ./my-app",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := flags.run(cmd.Context(), args, io)
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the command's name is the command's
	flags.addConfig(cmd.Flags())
	flags.addLog(cmd.Flags())
	cmd.Flags().BoolVar(&flags.intercept, "intercept", false, "decrypt HTTPS on every host that the configuration does not say otherwise of")
	cmd.Flags().BoolVar(&flags.summary, "summary", false, "print a table of hosts, requests, retries, refusals and failures to stderr at the end")
	cmd.Flags().StringVar(&flags.tenant, "tenant", "", "the command is the tenant `NAME`; without it tenants are left out, and hosts' own policies hold")
	cmd.Flags().StringVar(&flags.audit, "audit", "", "write audit records to `FILE`")
	return cmd
}

// run starts the daemon, runs the command and returns its exit code.
func (f *runFlags) run(ctx context.Context, args []string, io stdio) (int, error) {
	signals, release := catchSignals()
	defer release()
	defer outliveReaders()()
	defer ballast()()
	defer governor.Rest()()
	dir, err := os.MkdirTemp("", "httpowerd-run-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	d, err := daemon.Start(daemon.Options{Source: f.source(), Version: version(), Log: f.log(io.err), Labels: privateHosts, NoAdmin: true, NoState: true})
	if err != nil {
		return 0, err
	}
	adoptLog(d)
	defer func() {
		quit, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = d.Shutdown(quit) // the command is gone; nobody waits for what it left open
		if f.summary {
			writeSummary(io.err, d.Gatherer())
		}
	}()
	env, err := f.environment(d, dir)
	if err != nil {
		return 0, err
	}
	return execute(args, env, io, signals)
}

// catchSignals catches what the command gets. What was ignored when we began (nohup, a script's background) stays so, and the command inherits that.
func catchSignals() (signals chan os.Signal, release func()) {
	signals = make(chan os.Signal, 16)
	signal.Notify(signals, slices.DeleteFunc(slices.Clone(passedOn), signal.Ignored)...)
	return signals, func() { signal.Stop(signals) }
}

// source is the user's configuration on free loopback ports.
func (f *runFlags) source() policy.Source {
	s := f.sourceFlags.source()
	s.Overrides.Listen = []string{"127.0.0.1:0"}
	audit := "off"
	if setting.IsTarget(f.audit) {
		audit = f.audit
	} else if f.audit != "" {
		audit, _ = filepath.Abs(f.audit) // else a command named "off" would have an odd file
	}
	s.Overrides.AuditOutput, s.Overrides.Tenant = &audit, &f.tenant
	if f.intercept {
		s.Overrides.Intercept = &f.intercept
	}
	return s
}

// log is silent unless asked: the command's output is its own.
func (f *runFlags) log(stderr io.Writer) io.Writer {
	if f.logLevel == "" {
		return io.Discard
	}
	return stderr
}

// environment is ours with every variable that points at the daemon.
func (f *runFlags) environment(d *daemon.Daemon, dir string) ([]string, error) {
	var settings trust.Settings
	if d.Intercepts() {
		pem, err := d.CA()
		if err != nil {
			return nil, err
		}
		if settings, err = trustFiles(pem, dir); err != nil {
			return nil, err
		}
	}
	settings.Getenv = os.Getenv
	var err error
	if settings.Proxy, err = proxyURL(d.ProxyAddrs()[0], false); err != nil {
		return nil, err
	}
	env := os.Environ()
	for _, v := range settings.Vars() {
		env = append(env, v.Name+"="+v.Value)
	}
	return env, nil
}

// execute runs the command with our streams, passes signals on, and returns its exit code as a shell would.
func execute(args, env []string, io stdio, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, io.in, io.out, io.err
	if code := endedEarly(signals); code != 0 {
		return code, nil
	}
	if err := cmd.Start(); err != nil {
		code := 126 // found, but not executable
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = 127
		}
		return 0, &exitError{code, err.Error()}
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState tells more
		close(done)
	}()
	for {
		select {
		case s := <-signals:
			if !reachedAlready(s) {
				_ = cmd.Process.Signal(s) // it may just have ended
			}
		case <-done:
			return exitCode(cmd.ProcessState), nil
		}
	}
}

// endedEarly is the exit code where a signal came before there was a command to get it; 0: none did.
func endedEarly(signals <-chan os.Signal) int {
	for {
		select {
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok && ends(s) {
				return 128 + int(n)
			}
		default:
			return 0
		}
	}
}

func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
