package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"httpowerd/internal/policy"
)

func healthcheckCommand(io stdio) *cobra.Command {
	var flags sourceFlags
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running daemon whether it is ready: exit 0 or 1",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, faults := policy.Load(flags.source())
			if len(faults) > 0 {
				return faults
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			if err := ready(ctx, file.Settings().Admin.Listen); err != nil {
				return &exitError{1, err.Error()}
			}
			_, err := fmt.Fprintln(io.out, "ready")
			return err
		},
	}
	flags.addConfig(cmd.Flags())
	cmd.Flags().StringVar(&flags.admin, "admin", "", "the admin listener's `ADDR`")
	cmd.Flags().DurationVar(&wait, "timeout", 3*time.Second, "how long to wait for the answer")
	return cmd
}

// askAdmin gets a page of the admin listener at address; a wildcard is reached by loopback.
func askAdmin(ctx context.Context, address, path string) (*http.Response, error) {
	if address == "" {
		return nil, errors.New("the configuration has admin: off, and nobody else to ask")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: this is the daemon itself
	resp, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("not reachable: %w", err)
	}
	return resp, nil
}

// ready asks /readyz of the admin listener at address.
func ready(ctx context.Context, address string) error {
	resp, err := askAdmin(ctx, address, "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	if body, err := io.ReadAll(io.LimitReader(resp.Body, 64)); err != nil || string(body) != "ready\n" {
		return fmt.Errorf("whoever answers at %s is no httpowerd", address)
	}
	return nil
}
