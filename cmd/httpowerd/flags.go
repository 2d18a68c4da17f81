package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"httpowerd/internal/policy"
)

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// flagsFromEnv fills every flag that was not given from its environment variable.
func flagsFromEnv(cmd *cobra.Command) error {
	var faults []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == "version" {
			return
		}
		name := "HTTPOWERD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	})
	return errors.Join(faults...)
}

// sourceFlags are the flags that say which configuration holds.
type sourceFlags struct {
	config    string
	listen    []string
	admin     string
	open      string
	wire      string
	logLevel  string
	logFormat string
}

func (f *sourceFlags) addConfig(flags *pflag.FlagSet) {
	flags.StringVar(&f.config, "config", "", "the configuration `FILE`; without one the defaults hold")
}

func (f *sourceFlags) add(flags *pflag.FlagSet) {
	f.addConfig(flags)
	flags.StringSliceVar(&f.listen, "listen", nil, "the proxy's `ADDR`, such as 127.0.0.1:3128; may be given more than once")
	flags.StringVar(&f.admin, "admin", "", "the admin listener's `ADDR`, such as 127.0.0.1:9128")
	flags.StringVar(&f.open, "open", "", "who may use a listener that is not on loopback: false, private or true")
	flags.StringVar(&f.wire, "wire", "", "whose HTTP/1.1 is spoken: own or standard")
	f.addLog(flags)
}

func (f *sourceFlags) addLog(flags *pflag.FlagSet) {
	flags.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "", "json or text")
}

// source is the configuration with what the flags say on top.
func (f *sourceFlags) source() policy.Source {
	given := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return policy.Source{Path: f.config, Overrides: policy.Overrides{
		Listen: f.listen, Admin: given(f.admin), Open: given(f.open), Wire: given(f.wire), LogLevel: given(f.logLevel), LogFormat: given(f.logFormat),
	}}
}
