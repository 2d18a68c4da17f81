package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
	"httpowerd/internal/trust"
)

func envCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	var format, proxy string
	var noCA bool
	cmd := &cobra.Command{
		Use:     "env",
		Short:   "Print the variables that point a program at the proxy and make it trust the CA",
		Example: "  eval \"$(httpowerd env)\"\n  httpowerd env --format dotenv > .env",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file, faults := policy.Load(flags.source())
			if len(faults) > 0 {
				return faults
			}
			s, err := environment(file.Settings(), proxy, !noCA)
			if err != nil {
				return err
			}
			for _, w := range s.Warnings() {
				fmt.Fprintln(io.err, "httpowerd: "+w)
			}
			return trust.Format(io.out, format, s.Vars())
		},
	}
	flags.addConfig(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "sh", strings.Join(trust.Formats, ", "))
	cmd.Flags().StringVar(&proxy, "proxy", "", "the proxy's `URL` where programs reach it by another address than it listens on")
	cmd.Flags().BoolVar(&noCA, "no-ca", false, "leave the CA out, where nothing is intercepted")
	return cmd
}

// environment is what programs must be told of this configuration's proxy.
func environment(s policy.Settings, proxy string, withCA bool) (t trust.Settings, err error) {
	if withCA {
		ca, dir, err := openCA(s)
		if err != nil {
			return t, err
		}
		if t, err = trustFiles(ca.PEM(), filepath.Join(dir, "trust")); err != nil {
			return t, err
		}
	}
	if t.Proxy = proxy; proxy == "" {
		t.Proxy, err = proxyURL(s.Proxy.Listen[0], s.Proxy.TLS.Cert != "")
	}
	return t, err
}
