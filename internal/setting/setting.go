// Package setting holds the kinds of values that several blocks of the configuration share.
package setting

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing wrong with a block. Key is the path below the block ("backoff.base"; "" for the block itself).
type Fault struct {
	Key     string
	Message string // what is wrong and what to write instead
	Format  string // the message's own words; "" where it was not made by Faultf
	Args    []any  // what Format quotes, of which whoever shows the fault may leave out some
}

// Faultf makes a Fault with a formatted message. An argument that cannot hold a part of what was written is an Own.
func Faultf(key, format string, args ...any) Fault {
	return Fault{Key: key, Message: fmt.Sprintf(format, args...), Format: format, Args: args}
}

// Own is a part of a message that is ours, whatever the configuration holds.
type Own string

// Words lists known words for a message.
func Words(known []string) Own { return Own(strings.Join(known, ", ")) }

// Decoder is what a value implements that may be written in more than one shape. v is a string, bool, int64, float64, []any or map[string]any.
// It implements Kind too, for the schema and for messages.
type Decoder interface {
	DecodeSetting(v any) error
	// SettingKind says in a few words what may be written, such as "a duration or off".
	SettingKind() string
}

// Duration is written as Go writes them (250ms, 5s, 2m), with d for days besides.
type Duration time.Duration

// D is the value as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// UnmarshalText parses "90s", "1d12h", "0".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// MarshalText writes the shortest form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the shortest form: 1m30s, 2h, 1d.
func (d Duration) String() string {
	day := 24 * time.Hour
	if v := time.Duration(d); v != 0 && v%day == 0 {
		return strconv.FormatInt(int64(v/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var errDuration = errors.New("not a duration: write a number with a unit, such as 250ms, 5s, 2m, 1d")

const number = `([0-9]+\.?[0-9]*|\.[0-9]+)`

// DurationPattern matches what ParseDuration reads, but for what is too long. It is a regular expression of JSON Schema too.
const DurationPattern = `^\+?(0|` + number + `d|(` + number + `d)?(` + number + `(ns|us|µs|μs|ms|s|m|h))+)$`

var durationShape = regexp.MustCompile(DurationPattern)

// ParseDuration reads a duration; negative ones are an error.
func ParseDuration(s string) (time.Duration, error) {
	if !durationShape.MatchString(s) {
		return 0, errDuration
	}
	rest, total := strings.TrimPrefix(s, "+"), time.Duration(0)
	if days, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n*24 > math.MaxInt64/float64(time.Hour) {
			return 0, errDuration
		}
		total, rest = time.Duration(n*float64(24*time.Hour)), after
		if rest == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || total+d < total {
		return 0, errDuration
	}
	return total + d, nil
}

// Size is a number of bytes, written 512, 64KiB, 1MB.
type Size int64

// UnmarshalText parses a size.
func (z *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	*z = Size(v)
	return err
}

// MarshalText writes the largest binary unit that keeps the number whole.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String is the largest binary unit that keeps the number whole.
func (z Size) String() string {
	for _, u := range sizeUnits {
		if strings.HasSuffix(u.name, "iB") && z != 0 && int64(z)%u.bytes == 0 {
			return strconv.FormatInt(int64(z)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10)
}

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

var errSize = errors.New("not a size: write a number of bytes, with KiB, MiB, GiB, KB, MB or GB")

// SizePattern matches what ParseSize reads, but for what is too large. It is a regular expression of JSON Schema too.
const SizePattern = `^\s*` + number + `\s*([KMGT]i?B|kB|B)?$`

var sizeShape = regexp.MustCompile(SizePattern)

// ParseSize reads a size.
func ParseSize(s string) (int64, error) {
	if !sizeShape.MatchString(s) {
		return 0, errSize
	}
	digits, unit := s, int64(1)
	for _, u := range sizeUnits {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = d, u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || n*float64(unit) > math.MaxInt64/2 {
		return 0, errSize
	}
	return int64(n * float64(unit)), nil
}

// Mode says whether a protective block acts or only watches.
type Mode string

// The modes of protective blocks.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// OptionalDuration is a duration or off (the zero value).
type OptionalDuration struct {
	Duration time.Duration
	On       bool
}

// DecodeSetting takes a duration, off or false.
func (o *OptionalDuration) DecodeSetting(v any) error {
	switch v := v.(type) {
	case bool:
		if !v {
			*o = OptionalDuration{}
			return nil
		}
	case int64:
		if v == 0 {
			*o = OptionalDuration{On: true}
			return nil
		}
	case string:
		if v == "off" {
			*o = OptionalDuration{}
			return nil
		}
		d, err := ParseDuration(v)
		*o = OptionalDuration{Duration: d, On: true}
		return err
	}
	return errDuration
}

// SettingKind describes what may be written.
func (OptionalDuration) SettingKind() string { return "a duration or off" }

// String is the duration, or off.
func (o OptionalDuration) String() string {
	if !o.On {
		return "off"
	}
	return Duration(o.Duration).String()
}

// MarshalText is String.
func (o OptionalDuration) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Error is the message with its key.
func (f Fault) Error() string {
	if f.Key == "" {
		return f.Message
	}
	return f.Key + ": " + f.Message
}
