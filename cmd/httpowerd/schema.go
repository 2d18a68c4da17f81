package main

import (
	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
)

func schemaCommand(io stdio) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.out.Write(policy.Schema())
			return err
		},
	}
}
