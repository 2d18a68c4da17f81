package policy

import (
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// decoder fills the rooms' structs from nodes and reports what does not fit at the key that holds it.
type decoder struct{ faults *collector }

// into sets v, which must be addressable, from n. What n does not mention keeps its value.
func (d decoder) into(n *node, v reflect.Value) {
	if n.kind == broken {
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *redact.Secret:
		if n.kind != scalar {
			d.faults.at(n, "must be a text")
			return
		}
		*target = redact.NewSecret(n.text)
		return
	case setting.Decoder:
		if n.hasBroken() {
			return
		}
		if err := target.DecodeSetting(n.plain()); err != nil {
			d.faults.at(n, "%v", err)
			n.kind = broken
		}
		return
	case encoding.TextUnmarshaler:
		if n.kind != scalar {
			d.faults.at(n, "must be %s, is %s", kindOf(v.Type()), n.instead(v.Type()))
			n.kind = broken
			return
		}
		if err := target.UnmarshalText([]byte(n.text)); err != nil {
			d.faults.at(n, "%s is %v", n.instead(v.Type()), err)
			n.kind = broken
		}
		return
	}
	d.kind(n, v)
}

func (d decoder) kind(n *node, v reflect.Value) {
	var ok bool
	switch v.Kind() {
	case reflect.Struct:
		if ok = n.kind == mapping; ok {
			d.fields(n, v)
		}
	case reflect.Map:
		if ok = n.kind == mapping; ok {
			d.entries(n, v)
		}
	case reflect.Slice:
		if ok = n.kind == list; ok {
			items := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
			for i, item := range n.items {
				d.into(item, items.Index(i))
			}
			v.Set(items)
		}
	default:
		ok = n.kind == scalar && setScalar(n, v)
	}
	if !ok {
		n.instead(v.Type())
		var hint setting.Own
		if text, quoted := n.value.(string); n.kind == scalar && quoted && typed(text) != text && !n.secret {
			hint = ": remove the quotes"
		}
		if _, whole := n.quoted(); whole && n.kind == scalar && v.Kind() == reflect.Slice && len(n.text) < 40 {
			hint = setting.Own(": write [" + n.text + "]")
		}
		d.faults.at(n, "must be %s, is %s%s", kindOf(v.Type()), n, hint)
		n.kind = broken
	}
}

func setScalar(n *node, v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Bool:
		switch {
		case n.isOn():
			v.SetBool(true)
		case n.isOff():
			v.SetBool(false)
		default:
			return false
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, ok := n.value.(int64)
		if !ok || v.OverflowInt(i) {
			return false
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		i, ok := n.value.(int64)
		if !ok || i < 0 || v.OverflowUint(uint64(i)) {
			return false
		}
		v.SetUint(uint64(i))
	case reflect.Float64:
		switch x := n.value.(type) {
		case int64:
			v.SetFloat(float64(x))
		case float64:
			v.SetFloat(x)
		default:
			return false
		}
	case reflect.String:
		// 1.2 and 8080 are texts too where a text is wanted: quoting them would be a trap.
		if _, isBool := n.value.(bool); isBool {
			return false
		}
		v.SetString(n.text)
	default:
		return false
	}
	return true
}

func (d decoder) fields(n *node, v reflect.Value) {
	known := fieldsOf(v.Type())
	for _, f := range n.fields {
		i := slices.IndexFunc(known, func(k structField) bool { return k.key == f.key })
		if i < 0 {
			d.unknown(f.value, f.key, keysOf(known))
			continue
		}
		d.into(f.value, v.FieldByIndex(known[i].index))
	}
}

func (d decoder) unknown(n *node, key string, known []string) {
	if n.origin != "" || n.kind != broken {
		d.faults.at(n, "unknown key%s", didYouMean(key, known))
	}
	n.kind = broken
}

func (d decoder) entries(n *node, v reflect.Value) {
	m := reflect.MakeMapWithSize(v.Type(), len(n.fields))
	for _, f := range n.fields {
		value := reflect.New(v.Type().Elem()).Elem()
		d.into(f.value, value)
		m.SetMapIndex(reflect.ValueOf(f.key).Convert(v.Type().Key()), value)
	}
	v.Set(m)
}

// structField is a field as the file names it.
type structField struct {
	key   string
	index []int
	typ   reflect.Type
}

// fieldsOf lists a struct's fields in order, those of embedded structs among them. Fields without a yaml tag are not for the file.
func fieldsOf(t reflect.Type) []structField {
	if known, ok := fieldLists.Load(t); ok {
		return known.([]structField)
	}
	known, _ := fieldLists.LoadOrStore(t, listFields(t))
	return known.([]structField)
}

// fieldLists has a list for each type of the rooms' settings: every policy asks for all of them. Nobody may change one.
var fieldLists sync.Map

func listFields(t reflect.Type) []structField {
	var out []structField
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case tag == "-" || !f.IsExported():
		case options == "inline" || (f.Anonymous && tag == ""):
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
		case tag != "":
			out = append(out, structField{tag, []int{i}, f.Type})
		}
	}
	return out
}

func keysOf(fields []structField) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// kindOf says in words what may be written.
func kindOf(t reflect.Type) setting.Own {
	switch v := reflect.New(t).Interface().(type) {
	case setting.Decoder:
		return setting.Own(v.SettingKind())
	case *setting.Duration:
		return "a duration such as 250ms, 5s or 2m"
	case *setting.Size:
		return "a size such as 64KiB or 1MB"
	case *setting.Mode:
		return "enforce or observe"
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	default:
		return "a whole number"
	}
}

// plainNode makes a node of plain values, for what flags write.
func plainNode(v any, at position, path string) *node {
	n := &node{at: at, path: path, origin: originFlag}
	switch v := v.(type) {
	case []string:
		n.kind = list
		for _, s := range v {
			n.items = append(n.items, plainNode(s, at, path))
		}
	case map[string]any:
		n.kind = mapping
		for _, key := range slices.Sorted(maps.Keys(v)) {
			n.fields = append(n.fields, field{key, plainNode(v[key], at, join(path, key))})
		}
	case string:
		n.kind, n.value, n.text = scalar, v, v
	case bool:
		n.kind, n.value, n.text = scalar, v, "false"
		if v {
			n.text = "true"
		}
	}
	return n
}
