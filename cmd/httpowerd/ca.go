package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/trust"
)

func caCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make, show, bundle or rotate the interception CA",
		Long: "The interception CA signs the certificates shown to programs on hosts with `tls: intercept`. Programs must trust it;\n" +
			"`httpowerd env` prints how.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, // without it cobra takes an unknown command for a wish for help
	}
	flags.addConfig(cmd.PersistentFlags())
	by := func(open func(policy.Settings) (*intercept.Authority, string, error), f func(ca *intercept.Authority, dir string) error) func(*cobra.Command, []string) error {
		return func(*cobra.Command, []string) error {
			file, faults := policy.Load(flags.source())
			if len(faults) > 0 {
				return faults
			}
			ca, dir, err := open(file.Settings())
			if err != nil {
				return err
			}
			for _, w := range ca.Warnings() {
				fmt.Fprintln(io.err, "httpowerd: "+w)
			}
			return f(ca, dir)
		}
	}
	with := func(f func(ca *intercept.Authority, dir string) error) func(*cobra.Command, []string) error {
		return by(openCA, f)
	}
	cmd.AddCommand(
		&cobra.Command{Use: "init", Short: "Make the CA where there is none", Args: cobra.NoArgs,
			RunE: with(func(ca *intercept.Authority, dir string) error { return describeCA(io, ca, dir) })},
		&cobra.Command{Use: "show", Short: "Print the CA's certificate", Args: cobra.NoArgs,
			RunE: with(func(ca *intercept.Authority, _ string) error {
				_, err := io.out.Write(ca.PEM())
				return err
			})},
		bundleCommand(io, with),
		&cobra.Command{Use: "rotate", Short: "Make a new CA; the old one is kept aside. Programs must trust the new one before they are intercepted again", Args: cobra.NoArgs,
			RunE: by(renewCA, func(ca *intercept.Authority, dir string) error {
				if err := describeCA(io, ca, dir); err != nil {
					return err
				}
				_, err := fmt.Fprintln(io.err, "httpowerd: a running daemon takes it at its next reload; programs get it by httpowerd env, and must be started again")
				return err
			})},
	)
	return cmd
}

func bundleCommand(io stdio, with func(func(*intercept.Authority, string) error) func(*cobra.Command, []string) error) *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "bundle", Short: "Print the system's root certificates and the CA in one PEM", Args: cobra.NoArgs}
	cmd.RunE = with(func(ca *intercept.Authority, _ string) error {
		bundle, err := trust.Bundle(ca.PEM())
		if err != nil {
			return err
		}
		if out != "" {
			return trust.WriteFile(out, bundle)
		}
		_, err = io.out.Write(bundle)
		return err
	})
	cmd.Flags().StringVar(&out, "out", "", "write it to `FILE`")
	return cmd
}

func describeCA(io stdio, ca *intercept.Authority, dir string) error {
	cert := ca.Certificate()
	sum := sha256.Sum256(cert.Raw)
	hex := strings.ToUpper(fmt.Sprintf("% x", sum))
	_, err := fmt.Fprintf(io.out, "CA:          %s\nfolder:      %s\nvalid until: %s\nSHA-256:     %s\n",
		cert.Subject, dir, cert.NotAfter.UTC().Format(time.DateOnly), strings.ReplaceAll(hex, " ", ":"))
	return err
}
