package redact

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"unicode"
)

// NewHandler puts r before h: messages and attributes pass without their secrets, attributes with sensitive names are hidden whatever they hold. No text is
// endless, and none can move a terminal's cursor or turn its reading direction.
func NewHandler(h slog.Handler, r *Redactor) slog.Handler { return handler{h, r, false} }

type handler struct {
	next   slog.Handler
	r      *Redactor
	hidden bool // a group with a sensitive name is open
}

func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h handler) Handle(ctx context.Context, rec slog.Record) error {
	clean := slog.NewRecord(rec.Time, rec.Level, h.text(rec.Message), rec.PC)
	rec.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.next.Handle(ctx, clean)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.attr(a)
	}
	return handler{h.next.WithAttrs(clean), h.r, h.hidden}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.next.WithGroup(h.r.Text(name)), h.r, h.hidden || h.r.SensitiveName(name)}
}

// attr is a without secrets.
func (h handler) attr(a slog.Attr) slog.Attr {
	v := a.Value
	if v.Kind() == slog.KindLogValuer {
		v = v.Resolve()
	}
	if h.hidden || a.Key != "" && h.r.SensitiveName(a.Key) {
		return slog.String(h.r.Text(a.Key), Placeholder)
	}
	return slog.Attr{Key: h.r.Text(a.Key), Value: h.value(v)}
}

func (h handler) value(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(h.text(v.String()))
	case slog.KindGroup:
		group := v.Group()
		clean := make([]slog.Attr, len(group))
		for i, a := range group {
			clean[i] = h.attr(a)
		}
		return slog.GroupValue(clean...)
	case slog.KindInt64, slog.KindUint64:
		if s := v.String(); h.r.Text(s) != s {
			return slog.StringValue(h.text(s))
		}
	case slog.KindAny:
		return h.any(v.Any())
	}
	return v
}

// any is a value of any type. Types that are not known are judged by what the text and the JSON handler would write of them.
func (h handler) any(v any) (clean slog.Value) {
	defer func() {
		if p := recover(); p != nil { // a String method of a nil pointer
			clean = slog.StringValue("!PANIC")
		}
	}()
	switch v := v.(type) {
	case nil, *slog.Source:
		return slog.AnyValue(v)
	case []byte:
		return slog.StringValue(legible(string(h.r.Body("", v, false, nil))))
	case http.Header:
		clean := http.Header{}
		for name, values := range h.r.Header(v, nil) {
			for _, s := range values {
				clean[legible(name)] = append(clean[legible(name)], legible(s))
			}
		}
		return slog.AnyValue(clean)
	case error:
		return slog.StringValue(h.text(v.Error()))
	case []string:
		list := make([]string, len(v))
		for i, s := range v {
			list[i] = h.text(s)
		}
		return slog.AnyValue(list)
	case fmt.Stringer:
		return slog.StringValue(h.text(v.String()))
	case encoding.TextMarshaler:
		if text, err := v.MarshalText(); err == nil {
			return slog.StringValue(h.text(string(text)))
		}
	}
	if encoded, err := json.Marshal(v); err == nil {
		if out, hidden := h.r.jsonText(string(encoded)); hidden {
			return slog.StringValue(legible(out))
		}
	}
	if text := fmt.Sprintf("%+v", v); h.text(text) != text {
		return slog.StringValue(h.text(text))
	}
	return slog.AnyValue(v)
}

// text is s as it may be shown.
func (h handler) text(s string) string { return legible(h.r.Text(s)) }

// maxLogged bounds a text, in bytes. A panic's stack fits.
const maxLogged = 32 << 10

// legible cuts s where it is too long, and spells out what nobody could see. The handlers behind escape quotes and ASCII's control characters themselves.
func legible(s string) string {
	if len(s) > maxLogged {
		s = strings.ToValidUTF8(s[:maxLogged], "") + "…"
	}
	invisible := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if strings.IndexFunc(s, invisible) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if invisible(r) {
			fmt.Fprintf(&b, "\\u{%x}", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// jsonText is json with memory of its own.
func (r *Redactor) jsonText(s string) (string, bool) {
	m := borrow()
	defer m.release()
	return r.json(s, options{m: m}, nil)
}
