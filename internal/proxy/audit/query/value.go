package query

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/setting"
)

// text is a test of a field that is a word: words separated by commas, in which * stands for anything; a regular expression behind ~. Case does not count.
func text(field, value string) (func(*record) bool, error) {
	same, err := words(value)
	if err != nil {
		return nil, err
	}
	return func(r *record) bool { t := r.str(field); return len(t) > 0 && same(t) }, nil
}

func words(value string) (func([]byte) bool, error) {
	if expression, ok := strings.CutPrefix(value, "~"); ok {
		return expressed(expression)
	}
	return either(value, glob)
}

func expressed(expression string) (func([]byte) bool, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("not a regular expression (%w)", err)
	}
	return re.Match, nil
}

// glob is a word in which * stands for any number of characters.
func glob(word string) (func([]byte) bool, error) {
	if word == "" {
		return nil, errors.New("an alternative is empty: write words with a comma between them")
	}
	if !strings.Contains(word, "*") {
		want := []byte(word)
		return func(t []byte) bool { return bytes.EqualFold(t, want) }, nil
	}
	parts := strings.Split(strings.ToLower(word), "*")
	first, last, between := []byte(parts[0]), []byte(parts[len(parts)-1]), parts[1:len(parts)-1]
	return func(t []byte) bool {
		t = bytes.ToLower(t)
		if len(t) < len(first)+len(last) || !bytes.HasPrefix(t, first) || !bytes.HasSuffix(t, last) {
			return false
		}
		t = t[len(first) : len(t)-len(last)]
		for _, p := range between {
			i := bytes.Index(t, []byte(p))
			if i < 0 {
				return false
			}
			t = t[i+len(p):]
		}
		return true
	}, nil
}

// pieces is a piece of a text, a regular expression behind ~, or * for any.
func pieces(value string) (func([]byte) bool, error) {
	if value == "*" {
		return func(t []byte) bool { return len(t) > 0 }, nil
	}
	if expression, ok := strings.CutPrefix(value, "~"); ok {
		return expressed(expression)
	}
	return func(t []byte) bool { return contains(t, value) }, nil
}

// piece is a test of a field that is a sentence.
func piece(field, value string) (func(*record) bool, error) {
	same, err := pieces(value)
	if err != nil {
		return nil, err
	}
	return func(r *record) bool { return same(r.str(field)) }, nil
}

// address is a test of the URL, or of what a record without one has in its place.
func address(_, value string) (func(*record) bool, error) {
	same, err := pieces(value)
	if err != nil {
		return nil, err
	}
	return func(r *record) bool { return same(where(r)) }, nil
}

// where is what was asked: the URL, else the host.
func where(r *record) []byte {
	for _, field := range []string{"url", "host", "authority"} {
		if t := r.str(field); len(t) > 0 {
			return t
		}
	}
	return nil
}

// member is a test of a list: one of its elements is the word.
func member(field, value string) (func(*record) bool, error) {
	same, err := words(value)
	if err != nil {
		return nil, err
	}
	return func(r *record) bool {
		found := false
		r.each(field, func(t []byte) { found = found || same(t) })
		return found
	}, nil
}

// anyAttempt is a test of what any attempt came to: a status or an error.
func anyAttempt(_, value string) (func(*record) bool, error) {
	is, err := either(value, func(part string) (func(*record) bool, error) {
		if inRange, err := statuses(part); err == nil {
			return func(a *record) bool { v, ok := a.number("status"); return ok && inRange(v) }, nil
		}
		same, err := glob(part)
		if err != nil {
			return nil, err
		}
		return func(a *record) bool { t := a.str("error"); return len(t) > 0 && same(t) }, nil
	})
	if err != nil {
		return nil, err
	}
	return func(r *record) bool {
		found := false
		r.attempts(func(a *record) { found = found || is(a) })
		return found
	}, nil
}

// hidden is a test of what was redacted: a kind, or how much in all.
func hidden(_, value string) (func(*record) bool, error) {
	if inRange, err := counts(value); err == nil {
		return func(r *record) bool {
			sum := 0.0
			r.redactions(func(_ []byte, n float64) { sum += n })
			return inRange(sum)
		}, nil
	}
	same, err := words(value)
	if err != nil {
		return nil, err
	}
	return func(r *record) bool {
		found := false
		r.redactions(func(kind []byte, _ float64) { found = found || same(kind) })
		return found
	}, nil
}

// network is a test of the client's address.
func network(field, value string) (func(*record) bool, error) {
	inside, err := either(value, func(part string) (func(netip.Addr) bool, error) {
		if part == "*" {
			return func(netip.Addr) bool { return true }, nil
		}
		if a, err := netip.ParseAddr(strings.Trim(part, "[]")); err == nil {
			return func(b netip.Addr) bool { return a.Unmap() == b }, nil
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network: write an address, or an address with / and the length of the prefix", part)
		}
		return p.Contains, nil
	})
	if err != nil {
		return nil, err
	}
	return func(r *record) bool { a, ok := clientOf(r.str(field)); return ok && inside(a) }, nil
}

// clientOf is the address of a client, which is written with its port.
func clientOf(text []byte) (netip.Addr, bool) {
	if p, err := netip.ParseAddrPort(string(text)); err == nil {
		return p.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(string(text))
	return a.Unmap().WithZone(""), err == nil
}

// The tests of a field that is a number: which values may be written, and where the number comes from.
type (
	ranges func(value string) (func(float64) bool, error)
	source func(r *record, field string) (float64, bool)
)

func number(parse ranges, from source) func(field, value string) (func(*record) bool, error) {
	return func(field, value string) (func(*record) bool, error) {
		inRange, err := either(value, func(part string) (func(float64) bool, error) {
			if part == "*" {
				return func(float64) bool { return true }, nil
			}
			return parse(part)
		})
		if err != nil {
			return nil, err
		}
		return func(r *record) bool { v, ok := from(r, field); return ok && inRange(v) }, nil
	}
}

// plainly is the field as it stands.
func plainly(r *record, field string) (float64, bool) { return r.number(field) }

// tries is how often an exchange was sent; a refused one never.
func tries(r *record, _ string) (float64, bool) { return float64(r.attempts(nil)), r.exchange() }

// traffic is all bytes of an exchange.
func traffic(r *record, _ string) (float64, bool) {
	in, some := r.number("request_bytes")
	out, more := r.number("response_bytes")
	return in + out, some || more
}

func statuses(value string) (func(float64) bool, error) {
	if digit, ok := strings.CutSuffix(strings.ToLower(value), "xx"); ok && len(digit) == 1 && digit[0] >= '1' && digit[0] <= '5' {
		low := float64(digit[0]-'0') * 100
		return func(v float64) bool { return v >= low && v < low+100 }, nil
	}
	in, err := interval(value, "a status: write a number", func(s string) (float64, error) {
		v, err := strconv.ParseUint(s, 10, 16)
		if err == nil && (v < 100 || v > 999) {
			err = strconv.ErrRange
		}
		return float64(v), err
	})
	if err != nil {
		return nil, fmt.Errorf("%w, 5xx, 400-499 or >=500", err)
	}
	return in, nil
}

func counts(value string) (func(float64) bool, error) {
	return interval(value, "a count: write a number, >1 or 2-4", func(s string) (float64, error) {
		v, err := strconv.ParseUint(s, 10, 64)
		return float64(v), err
	})
}

func sizes(value string) (func(float64) bool, error) {
	return interval(value, "a size: write 0, >1MiB or 1KiB-64KiB", func(s string) (float64, error) {
		v, err := setting.ParseSize(s)
		return float64(v), err
	})
}

func durations(value string) (func(float64) bool, error) {
	if _, err := setting.ParseDuration(value); err == nil {
		return nil, fmt.Errorf("nothing takes exactly %s: write >%s or <%s", value, value, value)
	}
	return interval(value, "a duration: write >500ms, <2s or 100ms-1s", func(s string) (float64, error) {
		v, err := setting.ParseDuration(s)
		return float64(v) / float64(time.Millisecond), err
	})
}

// interval reads 5, >5, >=5, <5, <=5 and 5-7.
func interval(value, what string, parse func(string) (float64, error)) (func(float64) bool, error) {
	low, high := math.Inf(-1), math.Inf(1)
	var err, other error
	open := false // the bound itself is outside
	cut := func(operator string) (string, bool) {
		rest, ok := strings.CutPrefix(value, operator)
		return strings.TrimSpace(rest), ok
	}
	if rest, ok := cut(">="); ok {
		low, err = parse(rest)
	} else if rest, ok := cut("<="); ok {
		high, err = parse(rest)
	} else if rest, ok := cut(">"); ok {
		low, err = parse(rest)
		open = true
	} else if rest, ok := cut("<"); ok {
		high, err = parse(rest)
		open = true
	} else if from, to, ok := strings.Cut(value, "-"); ok {
		low, err = parse(strings.TrimSpace(from))
		high, other = parse(strings.TrimSpace(to))
		if err == nil && other == nil && low > high {
			err = errors.New("the wrong way round")
		}
	} else {
		low, err = parse(value)
		high = low
	}
	if err != nil || other != nil {
		return nil, fmt.Errorf("%q is not %s", value, what)
	}
	if open {
		return func(v float64) bool { return v > low && v < high }, nil
	}
	return func(v float64) bool { return v >= low && v <= high }, nil
}

// moment reads a point in time: a span before now, a time of day, a date, or both.
func moment(value string, now time.Time) (time.Time, error) {
	if d, err := setting.ParseDuration(value); err == nil {
		return now.Add(-d), nil
	}
	year, month, day := now.Date()
	switch value {
	case "now":
		return now, nil
	case "today":
		return time.Date(year, month, day, 0, 0, 0, 0, now.Location()), nil
	case "yesterday":
		return time.Date(year, month, day-1, 0, 0, 0, 0, now.Location()), nil
	}
	for _, clock := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(clock, value); err == nil {
			return time.Date(year, month, day, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	written := strings.Replace(value, " ", "T", 1)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, written, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("not a time: write a span such as 90m or 2d, a time of day such as 10:30, a date, today, yesterday, or 2026-11-26T10:00Z")
}
