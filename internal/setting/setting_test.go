package setting

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"0": 0, "250ms": 250 * time.Millisecond, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour,
		"1.5d": 36 * time.Hour, "1m30s": 90 * time.Second, "+5s": 5 * time.Second, "+1d": 24 * time.Hour, ".5m": 30 * time.Second, "3µs": 3000, "3μs": 3000} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "5", "-1s", "1x", "d", "1e3d", "-1d", "1d-1h", "infd", "999999999999h", "9999999d", " 1s", "1d+5s", "1h-5m", "-0s", "1..5s", ".s", "1_0s", "0x1d"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v", in, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 90 * time.Second: "1m30s", 2 * time.Hour: "2h", 48 * time.Hour: "2d", time.Minute: "1m"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is written %s; want %s", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "512": 512, "64KiB": 65536, "1MB": 1e6, "1.5MiB": 3 << 19, "2 GiB": 2 << 30, "7B": 7} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "1e9", "1XB", "99999999TiB", "nan", "1..5KiB", ".", "0x10", "1_0", "64K"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %v", in, got)
		}
	}
	for z, want := range map[Size]string{0: "0", 512: "512", 65536: "64KiB", 1e6: "1000000", 3 << 20: "3MiB"} {
		if got := z.String(); got != want {
			t.Errorf("%d is written %s; want %s", int64(z), got, want)
		}
	}
}

func TestOptionalDuration(t *testing.T) {
	var o OptionalDuration
	if err := o.DecodeSetting("5s"); err != nil || !o.On || o.Duration != 5*time.Second || o.String() != "5s" {
		t.Errorf("5s: %+v, %v", o, err)
	}
	for _, v := range []any{"off", false} {
		if err := o.DecodeSetting(v); err != nil || o.On {
			t.Errorf("%v: %+v, %v", v, o, err)
		}
	}
	for _, v := range []any{true, 1.5, "x", int64(3)} {
		if err := o.DecodeSetting(v); err == nil {
			t.Errorf("%v was taken", v)
		}
	}
}
