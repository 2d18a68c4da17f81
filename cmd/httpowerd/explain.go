package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
)

func explainCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	var tenant string
	var headers []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Show which policy a request would meet, and where each of its values comes from",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			header, err := parseHeaders(headers)
			if err != nil {
				return err
			}
			file, faults := policy.Load(flags.source())
			if len(faults) > 0 {
				return faults
			}
			x, err := policy.Explain(file, strings.ToUpper(args[0]), args[1], tenant, header)
			if err != nil {
				return err
			}
			if !asJSON {
				_, err = fmt.Fprint(io.out, x.Text())
				return err
			}
			e := json.NewEncoder(io.out)
			e.SetIndent("", "  ")
			return e.Encode(x)
		},
	}
	flags.addConfig(cmd.Flags())
	cmd.Flags().StringVar(&tenant, "tenant", "", "the `NAME` of the tenant who asks")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "a header `'Name: value'` of the request; may be given more than once")
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	return cmd
}

func parseHeaders(lines []string) (http.Header, error) {
	h := http.Header{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, errors.New("-H wants 'Name: value', with a colon behind the name") // what there is may be credentials
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return h, nil
}
