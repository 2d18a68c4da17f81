package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"httpowerd/internal/policy"
	"httpowerd/internal/setting"
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
		name := variable(f)
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

const prefix = "HTTPOWERD_"

// variable is the environment variable of a flag.
func variable(f *pflag.Flag) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// misspelt lists what the environment has that is like a variable of some command's flag, and is none. Others with our prefix may be anybody's: the
// configuration's own, or those that Kubernetes makes of a service of our name.
func misspelt(root *cobra.Command) (found []policy.Misspelt) {
	known := []string{"admin_token"}
	add := func(f *pflag.Flag) { known = append(known, strings.ToLower(strings.TrimPrefix(variable(f), prefix))) }
	for _, c := range append(root.Commands(), root) {
		c.Flags().VisitAll(add)
	}
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		word, ours := strings.CutPrefix(name, prefix)
		if !ours || slices.Contains(known, strings.ToLower(word)) && strings.ToUpper(word) == word {
			continue
		}
		if k := setting.Nearest(word, known); k != "" {
			found = append(found, policy.Misspelt{Name: name, Known: prefix + strings.ToUpper(k)})
		}
	}
	slices.SortFunc(found, func(a, b policy.Misspelt) int { return strings.Compare(a.Name, b.Name) })
	return found
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
