package policy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOneTenant: with --tenant the configuration has that tenant alone, shown by an address on loopback, and what else is written of it; with an empty name it has none.
func TestOneTenant(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), `version: 1
tenants:
  billing:
    auth: [{basic: {password: a password of billing}}, {mtls: {name: billing.svc}}]
    only: [api.example.com]
    limits: {requests: 7}
  reports: {auth: [{bearer: {token: a token of reports}}]}
`)
	for name, want := range map[string]string{"": "", "billing": "billing[source 127.0.0.0/8 ::1/128] 7 [api.example.com]",
		"reports": "reports[source 127.0.0.0/8 ::1/128] 0 []"} {
		f, faults := Load(Source{Path: path, Overrides: Overrides{Tenant: &name}})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		var got []string
		for n, tenant := range f.Settings().Tenants {
			got = append(got, fmt.Sprint(n, tenant.Auth, tenant.Limits.Requests, tenant.Only))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q; want %q", name, got, want)
		}
	}
	nobody := "nobody"
	if _, faults := Load(Source{Path: path, Overrides: Overrides{Tenant: &nobody}}); !slices.ContainsFunc(faults, func(f Fault) bool { return strings.Contains(f.String(), `no tenant "nobody"`) }) {
		t.Errorf("%v", faults)
	}
}
