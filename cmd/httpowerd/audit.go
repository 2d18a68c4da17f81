package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"httpowerd/internal/proxy/audit"
)

func auditCommand(io stdio) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Work with audit records", Args: cobra.NoArgs}
	cmd.AddCommand(&cobra.Command{
		Use:   "verify FILE…",
		Short: "Recompute the hash chain: exit 0, or name the first record that was altered, removed or reordered",
		Long:  "Recompute the hash chain of audit files. Give rotated files together, the oldest first, and the chain is followed across them.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			report, err := audit.VerifyFiles(files...)
			if err != nil {
				return &exitError{1, err.Error()}
			}
			_, err = fmt.Fprintln(io.out, report)
			return err
		},
	})
	return cmd
}
