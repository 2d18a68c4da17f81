package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
	"httpowerd/internal/redact"
)

// maxRedacted bounds what `httpowerd redact` reads of one file, in bytes.
const maxRedacted = 256 << 20

func redactCommand(io stdio) *cobra.Command {
	var o redactOptions
	cmd := &cobra.Command{
		Use:   "redact [FILE…]",
		Short: "Show what would be hidden in a text, and why",
		Long: "Show what records would show of a text: the text without its secrets on standard output, and on standard error a line for each\n" +
			"value that was hidden, with its place and the reason, never the value. Without FILE, or with -, standard input is read.\n\n" +
			"With --stream a text of any length goes to standard output without its secrets while it comes, as in: app 2>&1 | httpowerd redact --stream\n\n" +
			"With --config and --url the rules of the policy that holds for this URL are added to the built-in ones.",
		RunE: func(_ *cobra.Command, files []string) error { return o.run(io, files) },
	}
	o.flags.addConfig(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "", "the `URL` whose policy is asked; without it, the defaults")
	f.StringVar(&o.tenant, "tenant", "", "the `NAME` of the tenant who asks")
	f.StringVar(&o.contentType, "type", "", "the content `TYPE`, such as application/json; without it the content decides")
	f.BoolVar(&o.asJSON, "json", false, "write the findings alone, one JSON object a line, to standard output")
	f.BoolVar(&o.check, "check", false, "write no text, and exit with 1 where something would be hidden")
	f.BoolVar(&o.stream, "stream", false, "pass plain text on line by line while it comes, whatever its length, and tell no reasons")
	f.BoolVar(&o.fingerprint, "fingerprint", false, "read one value from standard input and print the fingerprint that stands for it in records")
	for _, other := range []string{"type", "json", "check", "fingerprint"} {
		cmd.MarkFlagsMutuallyExclusive("stream", other)
	}
	return cmd
}

type redactOptions struct {
	flags                              sourceFlags
	url, tenant, contentType           string
	asJSON, check, stream, fingerprint bool
}

func (o *redactOptions) run(io stdio, files []string) error {
	if o.contentType != "" {
		if _, _, err := mime.ParseMediaType(o.contentType); err != nil || !strings.Contains(o.contentType, "/") {
			return wrongly("--type %q: a content type is wanted, such as application/json", o.contentType)
		}
	}
	file, faults := policy.Load(o.flags.source())
	if len(faults) > 0 {
		return faults
	}
	key, err := existingKey(file)
	if o.fingerprint {
		return printFingerprint(io, key, err)
	}
	config, err := policy.RedactionFor(file, http.MethodPost, o.url, o.tenant)
	if err != nil {
		return err
	}
	r, err := redact.New(config)
	if err != nil {
		return err
	}
	shared := redact.Shared{Key: key, Literals: new(redact.Literals)}
	shared.Learn(file.Secrets()...)
	r = shared.On(r)
	if len(files) == 0 {
		files = []string{"-"}
	}
	total := 0
	for _, name := range files {
		if o.stream {
			if err := stream(io, r, name); err != nil {
				return err
			}
			continue
		}
		data, err := readText(io, name)
		if err != nil {
			return err
		}
		n, err := o.show(io, r, name, data)
		if err != nil {
			return err
		}
		total += n
	}
	if o.check && total > 0 {
		return &exitError{1, ""}
	}
	return nil
}

// show writes what is to be seen of one text, and tells how much was hidden.
func (o *redactOptions) show(io stdio, r *redact.Redactor, name string, data []byte) (int, error) {
	var counts redact.Counts
	clean, findings := r.Findings(o.contentType, data, &counts)
	if o.asJSON {
		e := json.NewEncoder(io.out)
		for _, f := range findings {
			if err := e.Encode(struct {
				File string `json:"file"`
				redact.Finding
			}{name, f}); err != nil {
				return 0, err
			}
		}
		return counts.Total(), nil
	}
	for _, f := range findings {
		place := name
		if f.Line > 0 {
			place = fmt.Sprintf("%s:%d:%d", name, f.Line, f.Column)
		}
		fmt.Fprintf(io.err, "%s: %s (%s, %d bytes): %s\n", place, f.Label, f.Kind, f.Length, f.Why)
	}
	if n := counts.Total() - len(findings); n > 0 {
		fmt.Fprintf(io.err, "%s: %d more\n", name, n)
	}
	if o.check {
		return counts.Total(), nil
	}
	_, err := io.out.Write(clean)
	return counts.Total(), err
}

// stream writes a text without its secrets while it comes. A read that does not fill its buffer is a pause, before which whole lines go on.
func stream(std stdio, r *redact.Redactor, name string) error {
	in, err := open(std, name)
	if err != nil {
		return err
	}
	defer in.Close()
	w := redact.NewWriter(std.out, r, nil)
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if _, failed := w.Write(buf[:n]); failed != nil {
			return failed
		}
		if err != nil {
			failed := w.Close()
			if !errors.Is(err, io.EOF) {
				failed = errors.Join(err, failed)
			}
			return failed
		}
		if n < len(buf) {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

// open is a file, or standard input for -.
func open(std stdio, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(std.in), nil
	}
	return os.Open(name)
}

func readText(std stdio, name string) ([]byte, error) {
	in, err := open(std, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxRedacted+1))
	if err == nil && len(data) > maxRedacted {
		err = fmt.Errorf("%s is longer than %d MiB", name, maxRedacted>>20)
	}
	return data, err
}

// existingKey is the key of fingerprints that a daemon with this configuration uses. It is not made here.
func existingKey(f *policy.File) (*redact.Key, error) {
	path := filepath.Join(f.Settings().State.Dir, redact.KeyFile)
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return redact.LoadKey(path)
}

func printFingerprint(std stdio, key *redact.Key, err error) error {
	if key == nil {
		return errors.Join(errors.New("there is no key of fingerprints: the daemon makes one in state.dir when it starts"), err)
	}
	value, err := io.ReadAll(io.LimitReader(std.in, 1<<20))
	if err != nil {
		return err
	}
	for len(value) > 0 && (value[len(value)-1] == '\n' || value[len(value)-1] == '\r') {
		value = value[:len(value)-1]
	}
	if len(value) == 0 {
		return errors.New("write the value to standard input, as in: printf %s \"$KEY\" | httpowerd redact --fingerprint")
	}
	_, err = fmt.Fprintln(std.out, key.Fingerprint(string(value)))
	return err
}
