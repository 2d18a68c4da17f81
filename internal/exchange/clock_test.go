package exchange

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestNow: both clocks go on as time does, and that of an exchange says what the wall clock says.
func TestNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := Exchange{Start: time.Now()}
		before, ticks := Now(), Ticks()
		time.Sleep(3 * time.Second)
		if d := Ticks() - ticks; d != int64(3*time.Second) || ticks < int64(365*24*time.Hour) {
			t.Error("from", ticks, "it ticked", d, "times")
		}
		if d := Now().Sub(before); d != 3*time.Second {
			t.Error("the clock went on by", d)
		}
		if now := x.Now(); now.Sub(x.Start) != 3*time.Second || !now.Equal(time.Now()) {
			t.Error(now, "is not", time.Now())
		}
		if unset := new(Exchange).Now(); !unset.Equal(time.Now()) {
			t.Error("an exchange without a start:", unset)
		}
	})
}
