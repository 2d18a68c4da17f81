package policy

import (
	"reflect"

	"httpowerd/internal/redact"
)

// Secrets lists what the configuration keeps secret: the values of secret settings, and what was filled in from files and from variables that are
// named like secrets.
func (f *File) Secrets() []redact.Secret {
	list := make([]redact.Secret, 0, len(f.filled))
	for _, s := range f.filled {
		list = append(list, redact.NewSecret(s))
	}
	var find func(v reflect.Value)
	find = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				find(v.Elem())
			}
		case reflect.Struct:
			switch s := v.Interface().(type) {
			case redact.Secret:
				if !s.IsZero() {
					list = append(list, s)
				}
				return
			case interface{ Secrets() []redact.Secret }:
				list = append(list, s.Secrets()...)
				return
			}
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					find(v.Field(i))
				}
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				find(v.Index(i))
			}
		case reflect.Map:
			for it := v.MapRange(); it.Next(); {
				find(it.Value())
			}
		}
	}
	find(reflect.ValueOf(f.settings))
	return list
}
