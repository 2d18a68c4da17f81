package exchange

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestBranch: whenever somebody looks or begins to wait, a branch is what context.WithCancelCause would have made.
func TestBranch(t *testing.T) {
	type key struct{}
	mine, above := errors.New("mine"), errors.New("above")
	type both struct {
		ctx    context.Context
		cancel context.CancelCauseFunc
		parent context.CancelCauseFunc
	}
	steps := map[string]func(b both){
		"nothing":           func(both) {},
		"cancelled":         func(b both) { b.cancel(nil) },
		"cancelled for":     func(b both) { b.cancel(mine) },
		"parent":            func(b both) { b.parent(above) },
		"parent, cancelled": func(b both) { b.parent(above); b.cancel(mine) },
		"cancelled, parent": func(b both) { b.cancel(nil); b.parent(above) },
		"cancelled twice":   func(b both) { b.cancel(nil); b.cancel(mine) },
	}
	for name, step := range steps {
		for _, waitsFirst := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				look := func(made func(context.Context) (context.Context, context.CancelCauseFunc)) (done bool, value any, err, cause, child error) {
					parent, end := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
					defer end(nil)
					ctx, cancel := made(parent)
					defer cancel(nil)
					below := ctx
					if waitsFirst {
						var stop context.CancelFunc
						below, stop = context.WithCancel(ctx)
						defer stop()
					}
					step(both{ctx, cancel, end})
					synctest.Wait()
					err, cause = ctx.Err(), context.Cause(ctx)
					if !waitsFirst {
						var stop context.CancelFunc
						below, stop = context.WithCancel(ctx)
						defer stop()
						synctest.Wait()
					}
					select {
					case <-ctx.Done():
						done = true
					default:
					}
					return done, below.Value(key{}), err, cause, context.Cause(below)
				}
				done, value, err, cause, child := look(context.WithCancelCause)
				gotDone, gotValue, gotErr, gotCause, gotChild := look(func(parent context.Context) (context.Context, context.CancelCauseFunc) {
					b := &Branch{}
					b.From(parent)
					return b, b.Cancel
				})
				if gotErr != err || gotCause != cause || gotChild != child || gotDone != done || gotValue != value {
					t.Errorf("%s, waits first: %t: %v %v %v %v %v; want %v %v %v %v %v", name, waitsFirst, gotErr, gotCause, gotChild, gotDone, gotValue, err, cause, child, done, value)
				}
			})
		}
	}
}
