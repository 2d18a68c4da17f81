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

// TestTenantsPolicies: a tenant's policies are called by the pattern that they are written for, and their values say where they stand.
func TestTenantsPolicies(t *testing.T) {
	f, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), `version: 1
hosts: {a.example.com: {timeout: {attempt: 20s}}}
tenants: {billing: {auth: [{basic: {password: a password of billing}}], hosts: {a.example.com: {retry: {attempts: 2}}, b.example.com: {retry: {attempts: 3}}}}}
`)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for host, attempts := range map[string]int{"a.example.com": 2, "b.example.com": 3} {
		x, err := Explain(f, "GET", "http://"+host+"/", "billing", nil)
		if err != nil {
			t.Fatal(err)
		}
		if v := valueOf(t, x, "retry.attempts"); x.Policy != host+"@billing" || v.Origin != "tenant" || fmt.Sprint(v.Value) != fmt.Sprint(attempts) {
			t.Errorf("%s: policy %q, attempts %v of %s", host, x.Policy, v.Value, v.Origin)
		}
	}
	x, err := Explain(f, "GET", "http://a.example.com/", "billing", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := valueOf(t, x, "timeout.attempt"); v.Origin != "host" {
		t.Errorf("the host's value is of %s", v.Origin)
	}
}
