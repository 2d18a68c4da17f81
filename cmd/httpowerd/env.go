package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"httpowerd/internal/daemon"
	"httpowerd/internal/policy"
	"httpowerd/internal/trust"
)

type envFlags struct {
	sourceFlags
	format, proxy, ca, caPath string
	noCA                      bool
}

func envCommand(io stdio) *cobra.Command {
	var f envFlags
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the variables that point a program at the proxy and make it trust the CA",
		Example: "  eval \"$(httpowerd env)\"\n  httpowerd env --format dotenv > .env\n" +
			"  httpowerd env --format k8s --proxy http://httpowerd.egress.svc:3128 --ca-path /etc/httpowerd-ca",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, notes, err := f.settings(cmd.Context())
			if err != nil {
				return err
			}
			for _, n := range append(notes, s.Warnings()...) {
				fmt.Fprintln(io.err, "httpowerd: "+n)
			}
			return trust.Format(io.out, f.format, s.Vars())
		},
	}
	f.addConfig(cmd.Flags())
	cmd.Flags().StringSliceVar(&f.listen, "listen", nil, "the `ADDR` that the proxy listens on, where that is not in the configuration")
	cmd.Flags().StringVar(&f.format, "format", "sh", strings.Join(trust.Formats, ", "))
	cmd.Flags().StringVar(&f.proxy, "proxy", "", "the proxy's `URL` where programs reach it by another address than it listens on")
	cmd.Flags().StringVar(&f.ca, "ca", "", "trust the certificate in `FILE`, such as the admin listener's /ca.pem, instead of the configuration's CA")
	cmd.Flags().StringVar(&f.caPath, "ca-path", "", "the `DIR` where programs find the CA's files, where that is not where they are on this machine")
	cmd.Flags().BoolVar(&f.noCA, "no-ca", false, "leave the CA out, where nothing is intercepted")
	return cmd
}

// settings is what programs must be told, and what their user should know.
func (f *envFlags) settings(ctx context.Context) (t trust.Settings, notes []string, err error) {
	file, faults := policy.Load(f.source())
	if len(faults) > 0 {
		return t, nil, faults
	}
	s := file.Settings()
	if t.Proxy = f.proxy; f.proxy == "" {
		if t.Proxy, err = proxyURL(s.Proxy.Listen[0], s.Proxy.TLS.Cert != ""); err != nil {
			return t, nil, err
		}
	}
	if err := t.Check(); err != nil {
		return t, nil, err
	}
	if len(s.Tenants) > 0 && f.proxy == "" {
		notes = append(notes, "tenants are configured: whoever does not show who it is by a certificate, an address or a signature needs user and password in the URL, "+
			"percent-encoded and with an @ before the address: write it as --proxy")
	}
	if f.format == "k8s" {
		t.NoProxy = []string{"svc", "cluster.local"}
	}
	if f.noCA {
		return t, notes, nil
	}
	if f.caPath == "" && slices.Contains([]string{"docker", "k8s"}, f.format) { // variables that name files which are not there take away all roots
		return t, append(notes, fmt.Sprintf("the CA is left out: where hosts are intercepted mount its files, which --ca-path DIR writes into %s on this machine, "+
			"and say by it where programs find them", f.trustDir(s))), nil
	}
	files, note, err := f.trust(ctx, s)
	if err != nil {
		return t, nil, err
	}
	if note != "" {
		notes = append(notes, note)
	}
	if f.caPath != "" {
		files.Move(f.caPath)
	}
	t.CAFile, t.BundleFile, t.JavaTrustStore = files.CAFile, files.BundleFile, files.JavaTrustStore
	return t, notes, nil
}

// trustDir is where the files that programs need in order to trust the CA are written.
func (f *envFlags) trustDir(s policy.Settings) string {
	beside := daemon.CAConfig(s).Dir
	if f.ca != "" {
		beside = filepath.Dir(f.ca)
	}
	dir := filepath.Join(beside, "trust")
	if absolute, err := filepath.Abs(dir); err == nil {
		return absolute
	}
	return dir
}

// trust writes the files that programs need in order to trust the CA. The note is there where they will not help.
func (f *envFlags) trust(ctx context.Context, s policy.Settings) (files trust.Settings, note string, err error) {
	if f.ca != "" {
		ca, err := os.ReadFile(f.ca)
		if err != nil {
			return files, "", err
		}
		if block, _ := pem.Decode(ca); block == nil || block.Type != "CERTIFICATE" {
			return files, "", fmt.Errorf("--ca: %s holds no certificate in PEM", f.ca)
		} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return files, "", fmt.Errorf("--ca: %s: %w", f.ca, err)
		}
		files, err = trustFiles(ca, f.trustDir(s))
		return files, "", err
	}
	address := s.Admin.Listen
	running := runningCA(ctx, address)
	ca, _, err := openCA(s)
	if err == nil {
		files, err = trustFiles(ca.PEM(), f.trustDir(s))
	}
	other := fmt.Sprintf("take its CA from the daemon (curl -o ca.pem http://%s/ca.pem), and write --ca ca.pem", address)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: the daemon runs as another user; %s, or --no-ca where nothing is intercepted", err, other)
	case err == nil && running != nil && !bytes.Equal(running, ca.PEM()):
		note = fmt.Sprintf("the daemon at %s has another CA than %s: it runs as another user, or with another configuration; %s", address, daemon.CAConfig(s).Dir, other)
	}
	return files, note, err
}

// runningCA is what a daemon at the admin address hands out, nil where none does.
func runningCA(ctx context.Context, address string) []byte {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resp, err := askAdmin(ctx, address, "/ca.pem")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil
	}
	return body
}
