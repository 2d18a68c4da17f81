// Command httpowerd is an egress proxy that gives every program retries, rate limits, circuit breakers and audit records for the HTTP APIs it calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"httpowerd/internal/setting"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}

// exitError ends the process with a code of its own. Its message was shown already where it is empty.
type exitError struct {
	code    int
	message string
}

func (e *exitError) Error() string { return e.message }

// run is main without the process: what tests call.
func run(ctx context.Context, args []string, io stdio) int {
	root := newRoot(io)
	root.SetArgs(turnedRound(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.message != "" {
			fmt.Fprintln(io.err, "httpowerd: "+visible(exit.message))
		}
		return exit.code
	}
	fmt.Fprintln(io.err, "httpowerd: "+visible(err.Error()))
	return 1
}

func newRoot(io stdio) *cobra.Command {
	serve := serveCommand(io)
	root := &cobra.Command{
		Use:   "httpowerd",
		Short: "An egress proxy with retries, rate limits, circuit breakers and audit records for every program",
		Long: "httpowerd stands between programs and the HTTP APIs they call. Point HTTP_PROXY and HTTPS_PROXY at it,\n" +
			"or start a program with `httpowerd run -- COMMAND`. Without a command it serves.\n\n" +
			"Every flag is also an environment variable: --log-level is HTTPOWERD_LOG_LEVEL.",
		Args:              cobra.NoArgs,
		RunE:              serve.RunE,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return flagsFromEnv(cmd) },
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.Version = version()
	root.SetVersionTemplate(versionText())
	root.Flags().AddFlagSet(serve.Flags())
	root.AddCommand(serve, runCommand(io), validateCommand(io), explainCommand(io), envCommand(io), caCommand(io), doctorCommand(io),
		auditCommand(io), redactCommand(io), healthcheckCommand(io), benchCommand(io), schemaCommand(io), versionCommand(io), manCommand(io))
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" && c.RunE == nil {
			c.Args, c.RunE = cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	explainArguments(root)
	return root
}

func namesOf(commands []*cobra.Command) (names []string) {
	for _, c := range commands {
		names = append(names, c.Name())
	}
	return names
}

// explainArguments makes each command say how it is used where its arguments are wrong.
func explainArguments(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			switch {
			case err == nil:
				return nil
			case !cmd.HasParent() && isFile(args[0]):
				return fmt.Errorf("unknown command %q: to serve that configuration write httpowerd --config %s", args[0], args[0])
			case !cmd.HasParent():
				return fmt.Errorf("%w%s", err, setting.DidYouMean(args[0], namesOf(cmd.Commands())))
			}
			return fmt.Errorf("%w\nusage: %s", err, cmd.UseLine())
		}
	}
	for _, sub := range cmd.Commands() {
		explainArguments(sub)
	}
}
