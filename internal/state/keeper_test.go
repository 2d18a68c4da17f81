package state

import (
	"slices"
	"testing"
)

// closing counts how often it was closed.
type closing struct{ closed int }

func (c *closing) Close() error {
	c.closed++
	return nil
}

func TestClose(t *testing.T) {
	var k Keeper
	k.Close() // nothing was kept yet
	make1 := func(g *Generation, room string) *closing {
		return Keep(Scope{Generation: g, Policy: "p"}, room, 1, func() *closing { return new(closing) })
	}
	g := k.Begin()
	stays, goes := make1(g, "a"), make1(g, "b")
	Keep(Scope{Generation: g, Policy: "p"}, "no closer", 1, func() int { return 7 })
	g.Commit()
	g = k.Begin()
	fresh := make1(g, "c")
	if make1(g, "a") != stays {
		t.Fatal("the value was not kept")
	}
	g.Commit()
	k.Close()
	k.Close()
	if got := []int{stays.closed, goes.closed, fresh.closed}; !slices.Equal(got, []int{1, 1, 1}) {
		t.Errorf("closed %v times, want each once", got)
	}
	if g = k.Begin(); make1(g, "a") == stays {
		t.Error("a closed value was handed out again")
	}
}

func TestOnCommit(t *testing.T) {
	var k Keeper
	called := 0
	g := k.Begin()
	g.OnCommit(func() { called++ })
	g.Abort()
	if called != 0 {
		t.Error("a generation that was given up was settled")
	}
	g = k.Begin()
	g.OnCommit(func() {
		k.Begin() // the keeper is free by now
		called++
	})
	g.Commit()
	if called != 1 {
		t.Errorf("a generation was settled %d times", called)
	}
}
