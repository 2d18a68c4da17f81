// Package tenant says who may use the proxy: it reads the section tenants and tells by a request's proxy credentials, client certificate or address whose it is.
package tenant

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"httpowerd/internal/policy/match"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Config is the section tenants: tenants by their names.
type Config map[string]Tenant

// Tenant is one of those who may use the proxy.
type Tenant struct {
	// Auth is what shows that a client is this tenant: any one of the list is enough.
	Auth []Method `yaml:"auth"`
	// Hosts are policies that are merged last, over defaults, host and route.
	Hosts Hosts `yaml:"hosts"`
	// Only are the host patterns that the tenant may use; without them, every host that policy allows.
	Only []string `yaml:"only"`
	// Limits bound what the tenant can make the proxy hold.
	Limits Limits `yaml:"limits"`
}

// Limits bound a tenant; what is past them is refused with overloaded. 0 is no bound of its own.
type Limits struct {
	// Requests at once.
	Requests int `yaml:"requests"`
	// Tunnels at once.
	Tunnels int `yaml:"tunnels"`
}

// Hosts stands for policies, which the loader reads as it reads those of hosts.
type Hosts struct{}

// DecodeSetting takes any mapping: the loader looks into it.
func (*Hosts) DecodeSetting(v any) error {
	if _, ok := v.(map[string]any); !ok {
		return errors.New("must be a mapping of host patterns")
	}
	return nil
}

// SettingKind describes what may be written.
func (*Hosts) SettingKind() string { return "policies by host pattern, as under hosts" }

// Method is one way to show who one is. Exactly one field is set.
type Method struct {
	Basic  *Basic
	Bearer redact.Secret // a token
	MTLS   string        // a name in the client's certificate
	Source []netip.Prefix
	JWT    *JWT

	Signature *Signature // also of the kind hmac
}

// Basic is a user with a password.
type Basic struct {
	User     string // "": the tenant's name
	Password redact.Secret
}

// The kinds of Method.
var kinds = []string{"basic", "bearer", "mtls", "jwt", "source", "signature", "hmac"}

const shortest = 8 // characters of a password or token

// SettingKind describes what may be written.
func (*Method) SettingKind() string {
	return "one of {basic: {user, password}}, {bearer: {token}}, {mtls: {name}}, {source: [CIDR, …]}, {jwt: {jwks, issuer, audience, claim}}, {signature: {…}}, {hmac: {keyid, secret}}"
}

// String names the kind, and shows what is no secret.
func (m Method) String() string {
	switch {
	case m.Basic != nil:
		return "basic"
	case !m.Bearer.IsZero():
		return "bearer"
	case m.MTLS != "":
		return "mtls " + m.MTLS
	case m.JWT != nil:
		return "jwt of " + m.JWT.Issuer
	case m.Signature != nil && m.Signature.Plain:
		return "hmac"
	case m.Signature != nil:
		return "signature " + m.Signature.Algorithm
	}
	text := make([]string, len(m.Source))
	for i, p := range m.Source {
		text[i] = p.String()
	}
	return "source " + strings.Join(text, " ")
}

// DecodeSetting takes a mapping with one kind.
func (m *Method) DecodeSetting(v any) error {
	object, ok := v.(map[string]any)
	if !ok || len(object) != 1 {
		return fmt.Errorf("must name one kind of %s, with a colon behind it and what it needs", strings.Join(kinds, ", "))
	}
	*m = Method{}
	for kind, body := range object {
		switch kind {
		case "basic":
			return m.basic(body)
		case "bearer":
			text, err := only(body, kind, "token")
			if err == nil && len(text) < shortest {
				err = errShort("a token")
			}
			m.Bearer = redact.NewSecret(text)
			return err
		case "mtls":
			text, err := only(body, kind, "name")
			if err == nil && text == "" {
				err = errors.New("mtls.name is empty: write a name that the client's certificate holds")
			}
			m.MTLS = text
			return err
		case "source":
			return m.source(body)
		case "jwt":
			return m.jwt(body)
		case "signature", "hmac":
			return m.signature(body, kind == "hmac")
		}
		return fmt.Errorf("must be one of the kinds %s, is %q", strings.Join(kinds, ", "), kind)
	}
	return nil
}

func errShort(what string) error {
	return fmt.Errorf("%s is shorter than %d characters: write a longer one, from a ${VARIABLE}", what, shortest)
}

func (m *Method) basic(body any) error {
	fields, err := texts(body, "basic", "user", "password")
	if err != nil {
		return err
	}
	m.Basic = &Basic{User: fields["user"], Password: redact.NewSecret(fields["password"])}
	switch {
	case strings.Contains(m.Basic.User, ":"):
		return errors.New("basic.user has a colon, which no user may have")
	case len(fields["password"]) < shortest:
		return errShort("a password")
	}
	return nil
}

func (m *Method) source(body any) error {
	items, ok := body.([]any)
	if !ok || len(items) == 0 {
		return errors.New("source must be a list of networks such as [10.1.0.0/16]")
	}
	for _, item := range items {
		text, _ := item.(string)
		p, err := netip.ParsePrefix(text)
		if addr, failed := netip.ParseAddr(text); err != nil && failed == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p.Addr().Zone() != "" {
			return fmt.Errorf("source: %q is neither a network nor an address: write 10.1.0.0/16", text)
		}
		if p.Addr().Is4In6() {
			return fmt.Errorf("source: write %s as an IPv4 network", text)
		}
		m.Source = append(m.Source, p.Masked())
	}
	return nil
}

// only is the one text of a mapping.
func only(body any, kind, key string) (string, error) {
	fields, err := texts(body, kind, key)
	return fields[key], err
}

func texts(body any, kind string, keys ...string) (map[string]string, error) {
	object, ok := body.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s must be a mapping with %s", kind, strings.Join(keys, " and "))
	}
	out := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("%s has no key %q: write %s", kind, key, strings.Join(keys, " and "))
		}
		switch v := object[key].(type) {
		case string:
			out[key] = v
		case int64, float64:
			return nil, fmt.Errorf("%s.%s must be a text: put it in quotes", kind, key)
		default:
			return nil, fmt.Errorf("%s.%s must be a text", kind, key)
		}
	}
	return out, nil
}

var nameShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Bounds of the configuration.
const maxTenants = 1000

// Validate returns every fault of the section.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	if len(c) > maxTenants {
		faults = append(faults, setting.Faultf("", "has %d tenants, more than %d", len(c), maxTenants))
	}
	seen := map[string]string{} // what shows a tenant: whose it is
	for _, name := range slices.Sorted(maps.Keys(c)) {
		key := fmt.Sprintf("[%q]", name)
		add := func(at, format string, args ...any) { faults = append(faults, setting.Faultf(key+at, format, args...)) }
		if !nameShape.MatchString(name) {
			add("", "a tenant's name is of letters, digits, _, - and ., at most 64")
		}
		t := c[name]
		if len(t.Auth) == 0 {
			add("", "has no auth, so nobody could be this tenant: write under auth a list of what shows it, such as a basic with a password")
		}
		for i := range t.Auth {
			for _, mark := range t.Auth[i].marks(name) {
				if other, taken := seen[mark.what]; taken && (other != name || mark.unique) {
					add(fmt.Sprintf(".auth[%d]", i), "%s is %s's already", mark.shown, other)
				}
				seen[mark.what] = name
			}
		}
		for i, pattern := range t.Only {
			if _, err := match.ParsePattern(pattern); err != nil {
				add(fmt.Sprintf(".only[%d]", i), "%v", err)
			}
		}
		if t.Limits.Requests < 0 || t.Limits.Requests > 10_000_000 {
			add(".limits.requests", "must be from 0 to 10000000, is %d", t.Limits.Requests)
		}
		if t.Limits.Tunnels < 0 || t.Limits.Tunnels > 10_000_000 {
			add(".limits.tunnels", "must be from 0 to 10000000, is %d", t.Limits.Tunnels)
		}
	}
	return faults
}

// mark is something that may show one tenant alone.
type mark struct {
	what, shown string
	unique      bool // not even the same tenant may have it twice
}

func (m *Method) marks(name string) []mark {
	switch {
	case m.Basic != nil:
		user := m.user(name)
		return []mark{{"user " + user, "the user " + user, true}}
	case !m.Bearer.IsZero():
		return []mark{{"token " + m.Bearer.Reveal(), "this token", true}}
	case m.MTLS != "":
		return []mark{{"certificate " + strings.ToLower(m.MTLS), "the certificate name " + m.MTLS, true}}
	}
	if j := m.JWT; j != nil {
		value := j.Value
		if value == "" {
			value = name
		}
		return []mark{{"jwt " + j.Issuer + "\x00" + j.Audience + "\x00" + j.Claim + "\x00" + value, "this claim of the same issuer", true}}
	}
	if g := m.Signature; g != nil {
		kind := "signature"
		if g.Plain {
			kind = "hmac"
		}
		return []mark{{kind + "\x00" + g.keyID(name), "the keyid " + g.keyID(name), true}}
	}
	var out []mark
	for _, p := range m.Source {
		out = append(out, mark{"network " + p.String(), "the network " + p.String(), true})
	}
	return out
}

func (m *Method) user(tenant string) string {
	if m.Basic.User != "" {
		return m.Basic.User
	}
	return tenant
}
