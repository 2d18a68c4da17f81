package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/audit"
	"httpowerd/internal/proxy/audit/query"
	"httpowerd/internal/setting"
)

func auditCommand(io stdio) *cobra.Command {
	flags := auditFlags{stdio: io}
	cmd := &cobra.Command{
		Use:   "audit [FILE…] [FILTER…]",
		Short: "Find, follow and add up audit records",
		Long: "Read audit records: those of the FILEs, the oldest first (- is standard input), else the trail of the configuration with its rotated files.\n" +
			"On a terminal they are a table, elsewhere JSON lines as they stand.\n\n" +
			"All FILTERs have to hold. A word that is no file and no filter is a piece of the URL. Values may be several with commas between them, * stands\n" +
			"for anything, ~ begins a regular expression. A - or ! before a filter, or a ! before its value, turns it round.\n\n" + filterHelp(),
		Example: "  httpowerd audit --config httpowerd.yaml since:1h -outcome:ok\n" +
			"  httpowerd audit calls.jsonl host:*.stripe.com status:429,5xx 'duration:>2s'\n" +
			"  httpowerd audit --config httpowerd.yaml --totals --by tenant since:today\n" +
			"  journalctl -o cat -u httpowerd | httpowerd audit - attempts:2-9\n" +
			"  httpowerd audit audit.jsonl --follow /v1/charges",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return flags.run(cmd.Context(), args) },
	}
	flags.add(cmd)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrongly("%v", err) })
	cmd.AddCommand(auditVerifyCommand(io), auditKeyCommand(io))
	return cmd
}

// filterHelp lists the filters.
func filterHelp() string {
	var b strings.Builder
	b.WriteString("Filters:\n")
	for _, k := range query.Keys() {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-34s %s", k.Example, k.What), " ") + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// auditFlags are what `audit` may be told besides files and filters.
type auditFlags struct {
	stdio
	sourceFlags
	follow, rotated, totals, json bool
	last                          int
	output, by                    string
	fields                        []string
}

func (f *auditFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.addConfig(flags)
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written from now on, over rotations; begins with the last 10 unless told otherwise")
	flags.IntVarP(&f.last, "last", "n", 0, "only the last `N` records that are wanted")
	flags.BoolVarP(&f.rotated, "rotated", "r", false, "read the rotated files of each FILE too")
	flags.BoolVar(&f.totals, "totals", false, "add the records up instead of showing them")
	flags.StringVar(&f.by, "by", "", "the `FIELD` to make totals by: "+strings.Join(query.Groupings, ", "))
	flags.StringVarP(&f.output, "output", "o", "", "the `FORMAT`: "+strings.Join(query.Formats, ", "))
	flags.BoolVar(&f.json, "json", false, "the same as --output json")
	flags.StringSliceVar(&f.fields, "fields", nil, "only these `FIELDS`, such as time,host,status")
	complete := func(words []string) cobra.CompletionFunc {
		return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	}
	_ = cmd.RegisterFlagCompletionFunc("by", complete(query.Groupings)) // the flag is there
	_ = cmd.RegisterFlagCompletionFunc("output", complete(query.Formats))
	cmd.ValidArgsFunction = func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for _, k := range query.Keys() {
			if begun != "" && strings.HasPrefix(k.Name, begun) {
				out = append(out, k.Name+":\t"+k.What)
			}
		}
		return out, cobra.ShellCompDirectiveNoSpace
	}
}

// wrongly is the end of a command that was asked for something that cannot be.
func wrongly(format string, args ...any) error { return &exitError{2, fmt.Sprintf(format, args...)} }

func (f *auditFlags) run(ctx context.Context, args []string) error {
	files, words := split(args)
	filter, err := query.Parse(words, time.Now())
	if err != nil {
		return wrongly("%v", err)
	}
	q := &query.Query{Files: files, Rotated: f.rotated, Follow: f.follow, Last: f.last, Filter: filter, Stdin: f.in,
		Tell: func(line string) { fmt.Fprintln(f.err, "httpowerd: "+visible(line)) }}
	if err := f.check(q); err != nil {
		return err
	}
	if len(files) == 0 {
		if err := f.configured(q); err != nil {
			return err
		}
	}
	if f.follow && f.last == 0 && !filter.Bounded() {
		q.Last = 10
	}
	sink, err := f.sink(q.Tell)
	if err != nil {
		return wrongly("%v", err)
	}
	return q.Run(ctx, sink)
}

// check finds what does not go together.
func (f *auditFlags) check(q *query.Query) error {
	switch {
	case f.last < 0 || f.last > 1_000_000:
		return wrongly("--last must be from 1 to 1000000, is %d", f.last)
	case f.json && f.output != "" && f.output != "json":
		return wrongly("--json and --output %s are two formats: write one", f.output)
	case f.follow && (f.totals || f.by != ""):
		return wrongly("--totals stand at the end, and --follow has none: write one of the two")
	case f.follow && len(q.Files) > 1:
		return wrongly("--follow follows one file, not %d", len(q.Files))
	case f.follow && slices.Contains(q.Files, query.Stdin):
		q.Follow = false // a pipe is read until its end anyway
		if f.last == 0 {
			f.follow = false
		}
	case (f.totals || f.by != "") && len(f.fields) > 0:
		return wrongly("--fields chooses what is shown of a record; --totals shows sums")
	}
	if f.json {
		f.output = "json"
	}
	if f.output != "" && !slices.Contains(query.Formats, f.output) {
		return wrongly("--output must be one of %s, is %q%s", strings.Join(query.Formats, ", "), f.output, setting.DidYouMean(f.output, query.Formats))
	}
	return nil
}

// split tells files from filters. A file is what there is, or what is called like one.
func split(args []string) (files, words []string) {
	for _, a := range args {
		if a == query.Stdin || isFile(a) {
			files = append(files, a)
		} else {
			words = append(words, a)
		}
	}
	return files, words
}

func isFile(name string) bool {
	if info, err := os.Stat(name); err == nil {
		return !info.IsDir()
	}
	return !strings.Contains(name, ":") && slices.ContainsFunc([]string{".jsonl", ".jsonl.gz", ".log"}, func(ending string) bool { return strings.HasSuffix(name, ending) })
}

// configured reads the trail of the configuration.
func (f *auditFlags) configured(q *query.Query) error {
	file, faults := policy.Load(f.source())
	if len(faults) > 0 {
		return faults
	}
	output := file.Settings().Audit.Output
	switch {
	case setting.IsTarget(output):
		return wrongly("records go to %s: read them there, or write audit.output to a file and that address into audit.also", output)
	case output == audit.Stdout, output == audit.Stderr:
		return wrongly("records go to %s, where nobody keeps them for us: name a file, a configuration whose audit.output is one (--config), or read what keeps them, "+
			"such as: journalctl -o cat -u httpowerd | httpowerd audit -", output)
	case output == audit.Off:
		return wrongly("audit.output is off: there are no records")
	}
	q.Files, q.Rotated = []string{output}, true
	return nil
}

// sink is what shows the records.
func (f *auditFlags) sink(tell func(string)) (query.Sink, error) {
	columns, terminal := terminalWidth(f.out)
	if f.totals || f.by != "" {
		return query.NewTotals(f.out, f.by, f.output, time.Local)
	}
	switch {
	case f.output == "csv":
		return query.NewCSV(f.out, f.fields, tell)
	case f.output == "json", f.output == "" && !terminal:
		return query.NewLines(f.out, terminal, f.fields, tell)
	}
	colour := terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 && terminal {
		columns = n
	}
	return query.NewTable(f.out, query.Look{Width: columns, Colour: colour, Zone: time.Local}, f.fields, tell)
}

// turnedRound makes !status:200 of -status:200, which would be read as flags.
func turnedRound(args []string) []string {
	if len(args) == 0 || args[0] != "audit" {
		return args
	}
	args = slices.Clone(args)
	for i, a := range args {
		if a == "--" {
			break
		}
		if name, _, ok := strings.Cut(a, ":"); ok && len(name) > 2 && name[0] == '-' && name[1] != '-' && !strings.Contains(name, "=") && query.IsName(name[1:]) {
			args[i] = "!" + a[1:]
		}
	}
	return args
}
