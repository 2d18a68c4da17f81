package retry

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
)

// Names of groups of methods (RFC 9110 section 9.2).
const (
	Safe       = "safe"
	Idempotent = "idempotent"
	All        = "all"
)

// Methods is a group's name or a list. Its zero value has none.
type Methods struct {
	name string
	list []string
}

var errMethods = errors.New("must be safe, idempotent, all, or a list of methods such as [GET, PUT]")

// DecodeSetting takes a group's name or a list.
func (m *Methods) DecodeSetting(v any) error {
	switch v := v.(type) {
	case string:
		if v != Safe && v != Idempotent && v != All {
			return errMethods
		}
		*m = Methods{name: v}
		return nil
	case []any:
		list, err := methodList(v)
		*m = Methods{list: list}
		return err
	}
	return errMethods
}

// methodList reads methods. They are case-sensitive, so one in lower case is a mistake that would never match.
func methodList(items []any) ([]string, error) {
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		switch {
		case !ok || !exchange.IsToken(s):
			return nil, fmt.Errorf("has %v, which is not a method", item)
		case s == http.MethodConnect:
			return nil, errors.New("has CONNECT: a tunnel is only ever made again before anything went through it")
		case s != strings.ToUpper(s):
			return nil, fmt.Errorf("has %q: methods are case-sensitive, write %s", s, strings.ToUpper(s))
		case slices.Contains(list, s):
			return nil, fmt.Errorf("has %s twice", s)
		}
		list = append(list, s)
	}
	return list, nil
}

// SettingKind describes what may be written.
func (Methods) SettingKind() string { return "safe, idempotent, all, or a list of methods" }

// String is the group's name, or the list as it is written.
func (m Methods) String() string {
	if m.name != "" {
		return m.name
	}
	return "[" + strings.Join(m.list, ", ") + "]"
}

// MarshalText is String.
func (m Methods) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// has tells whether the method may be sent again. "" is GET, as in net/http.
func (m Methods) has(method string) bool {
	if method == "" {
		method = http.MethodGet
	}
	switch m.name {
	case All:
		return method != http.MethodConnect
	case Safe:
		return exchange.SafeMethod(method)
	case Idempotent:
		return exchange.SafeMethod(method) || method == http.MethodPut || method == http.MethodDelete
	}
	return slices.Contains(m.list, method)
}
