package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func manCommand(io stdio) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man",
		Short: "Print the manual page, or write all of them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			header := &doc.GenManHeader{Title: "HTTPOWERD", Section: "1", Source: "httpowerd " + version(), Manual: "httpowerd"}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			if dir != "" {
				if err := os.MkdirAll(dir, 0o755); err != nil { // a new machine has no /usr/local/share/man/man1
					return err
				}
				return doc.GenManTree(root, header, dir)
			}
			return doc.GenMan(root, header, io.out)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "write one page for each command into `DIR`")
	return cmd
}
