package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
)

func validateCommand(io stdio) *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate [--strict] FILE…",
		Short: "Check configuration files: every fault with its place and what to write instead",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
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
	cmd.Flags().BoolVar(&strict, "strict", false, "let warnings fail too")
	return cmd
}

func validateFile(io stdio, path string, strict bool) bool {
	file, faults := policy.Load(policy.Source{Path: path})
	for _, f := range faults {
		fmt.Fprintln(io.out, f.String())
	}
	if len(faults) > 0 {
		return false
	}
	warnings := file.Warnings()
	for _, w := range warnings {
		fmt.Fprintf(io.out, "%s (warning)\n", w.String())
	}
	return !strict || len(warnings) == 0
}
