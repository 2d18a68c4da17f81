package retry

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
)

// IdempotencyKey says which field makes a write repeatable. Its zero value is off.
type IdempotencyKey struct {
	On      bool
	Header  string   // canonical
	Inject  bool     // a key is made where the client sent none; all attempts of a request carry the same
	Quoted  bool     // a made key is a structured-field string, in quotes
	Methods []string // that the key makes repeatable
}

var errKey = errors.New("must be off, or a mapping such as {header: Idempotency-Key, inject: true, quoted: false, methods: [POST, PATCH]}")

// DecodeSetting takes off, or a mapping of the values that differ from the usual ones.
func (k *IdempotencyKey) DecodeSetting(v any) error {
	fields, isMapping := v.(map[string]any)
	switch {
	case v == "off" || v == false:
		*k = IdempotencyKey{}
		return nil
	case v == "on" || v == true:
	case !isMapping:
		return errKey
	}
	key := IdempotencyKey{On: true, Header: "Idempotency-Key", Inject: true, Methods: []string{http.MethodPost, http.MethodPatch}}
	for name, value := range fields {
		if err := key.field(name, value); err != nil {
			return err
		}
	}
	*k = key
	return nil
}

func (k *IdempotencyKey) field(name string, value any) error {
	switch name {
	case "header":
		s, ok := value.(string)
		if !ok || !exchange.IsToken(s) {
			return errors.New("header must be the name of a field, such as Idempotency-Key")
		}
		if k.Header = http.CanonicalHeaderKey(s); slices.Contains(notKeys, k.Header) {
			return fmt.Errorf("header must not be %s, which has another meaning", k.Header)
		}
	case "inject", "quoted":
		b, ok := value.(bool)
		if !ok {
			return fmt.Errorf("%s must be true or false", name)
		}
		if name == "inject" {
			k.Inject = b
		} else {
			k.Quoted = b
		}
	case "methods":
		items, ok := value.([]any)
		if !ok || len(items) == 0 {
			return errors.New("methods must be a list such as [POST, PATCH]")
		}
		list, err := methodList(items)
		if err != nil {
			return fmt.Errorf("methods %w", err)
		}
		k.Methods = list
	default:
		return fmt.Errorf("%s is not one of its keys: header, inject, quoted, methods", name)
	}
	return nil
}

// notKeys are fields that a made key would break.
var notKeys = []string{"Authorization", "Connection", "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade", "Via"}

// SettingKind describes what may be written.
func (IdempotencyKey) SettingKind() string {
	return "off, or a mapping of header, inject, quoted and methods"
}

// String is off, or the mapping on one line.
func (k IdempotencyKey) String() string {
	if !k.On {
		return "off"
	}
	return fmt.Sprintf("{header: %s, inject: %t, quoted: %t, methods: [%s]}", k.Header, k.Inject, k.Quoted, strings.Join(k.Methods, ", "))
}

// MarshalText is String.
func (k IdempotencyKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
