package proxy

import (
	"testing"
	"unsafe"
)

// Labels stay in metrics: they refer to nothing of the request that brought a name.
func TestLabelsAreOwn(t *testing.T) {
	head := "api.example.com and the rest of a request's head"
	host := head[:len("api.example.com")]
	l := NewLabels(1, false)
	if got := l.of("", host); got != otherHost {
		t.Errorf("a name that was not reached has the label %q", got)
	}
	l.Reached(host)
	l.Reached("more.example.com")
	if got := l.of("", host); got != host || unsafe.StringData(got) == unsafe.StringData(host) {
		t.Errorf("%q is the request's", got)
	}
	if got := l.of("", "more.example.com"); got != otherHost {
		t.Errorf("there is room for %q", got)
	}
	l = NewLabels(1, true)
	if got := l.of("", host); got != host || unsafe.StringData(got) == unsafe.StringData(host) {
		t.Errorf("with all, a name that was not reached: %q", got)
	}
	if got := l.of("", "more.example.com"); got != otherHost {
		t.Errorf("with all, there is room for %q", got)
	}
}
