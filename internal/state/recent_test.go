package state

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Recent
		if got := r.List(); got != nil {
			t.Errorf("before anything changed: %v", got)
		}
		begin := time.Now()
		for i := range 20 {
			r.Add(strconv.Itoa(i), strconv.Itoa(i+1), "counting")
			time.Sleep(time.Second)
		}
		got := r.List()
		if len(got) != maxEvents || got[0].From != "4" || got[15].To != "20" || got[15].Reason != "counting" || got[0].Time.Sub(begin) != 4*time.Second {
			t.Errorf("the last changes are %v", got)
		}
		got[0].To = "changed"
		if r.List()[0].To == "changed" {
			t.Error("a copy is not one")
		}
	})
}
