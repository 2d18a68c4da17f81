package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
)

func validateCommand(io stdio) *cobra.Command {
	var strict bool
	var flags sourceFlags
	cmd := &cobra.Command{
		Use:   "validate [--strict] FILE…",
		Short: "Check configuration files: every fault with its place and what to write instead",
		Args: func(cmd *cobra.Command, files []string) error {
			if flags.config != "" {
				return nil
			}
			return cobra.MinimumNArgs(1)(cmd, files)
		},
		RunE: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				files = []string{flags.config}
			}
			bad := false
			for _, path := range files {
				bad = !validateFile(io, path, strict) || bad
			}
			if bad {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	flags.addConfig(cmd.Flags())
	cmd.Flags().BoolVar(&strict, "strict", false, "let warnings fail too")
	return cmd
}

func validateFile(io stdio, path string, strict bool) bool {
	warnings, faults := policy.Check(policy.Source{Path: path})
	for _, f := range faults {
		fmt.Fprintln(io.out, f.String())
	}
	for _, w := range warnings {
		fmt.Fprintf(io.out, "%s (warning)\n", w.String())
	}
	return len(faults) == 0 && (!strict || len(warnings) == 0)
}
