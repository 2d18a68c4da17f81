package exchange

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// heard counts what it hears.
type heard struct{ n atomic.Int32 }

func (h *heard) ParentEnded() { h.n.Add(1) }

// TestBranch: whoever looks at a branch, and whenever, sees what a context of context.WithCancelCause shows.
func TestBranch(t *testing.T) {
	own, parents := errors.New("its own"), errors.New("its parent's")
	for name, steps := range map[string]func(cancel, parent context.CancelCauseFunc){
		"nothing happens":                  func(_, _ context.CancelCauseFunc) {},
		"it is cancelled":                  func(cancel, _ context.CancelCauseFunc) { cancel(nil) },
		"it is cancelled with a cause":     func(cancel, _ context.CancelCauseFunc) { cancel(own) },
		"its parent ends":                  func(_, parent context.CancelCauseFunc) { parent(parents) },
		"it ends, and then its parent":     func(cancel, parent context.CancelCauseFunc) { cancel(nil); parent(parents) },
		"it ends first, with a cause":      func(cancel, parent context.CancelCauseFunc) { cancel(own); parent(parents) },
		"its parent ends, and then it":     func(cancel, parent context.CancelCauseFunc) { parent(parents); cancel(own) },
		"its parent ends, and it is freed": func(cancel, parent context.CancelCauseFunc) { parent(parents); cancel(nil) },
		"it is cancelled, and once more":   func(cancel, _ context.CancelCauseFunc) { cancel(nil); cancel(own) },
	} {
		for how, early := range map[string]func(context.Context){
			"nobody":   func(context.Context) {},
			"Done":     func(ctx context.Context) { ctx.Done() },
			"an heir":  func(ctx context.Context) { new(Heir).Follow(ctx, new(heard)) },
			"a child":  func(ctx context.Context) { context.AfterFunc(ctx, func() {}) },
			"a branch": func(ctx context.Context) { new(Heir).Follow(branchOf(ctx), new(heard)) },
		} {
			synctest.Test(t, func(t *testing.T) {
				type key struct{}
				see := func(branch func(context.Context) (context.Context, context.CancelCauseFunc)) (before, after [4]any) {
					parent, end := context.WithCancelCause(context.WithValue(t.Context(), key{}, name))
					ctx, cancel := branch(parent)
					defer cancel(nil)
					look := func() [4]any {
						child, stop := context.WithCancelCause(context.WithValue(ctx, key{}, 1))
						defer stop(nil)
						return [4]any{ctx.Err(), context.Cause(ctx), context.Cause(child), ctx.Value(key{})}
					}
					early(ctx)
					steps(cancel, end)
					before = look()
					select {
					case <-ctx.Done():
					default:
						if ctx.Err() != nil {
							t.Errorf("%s, %s waits: it has ended, and its channel is open", name, how)
						}
					}
					end(parents)
					synctest.Wait()
					return before, look()
				}
				before, after := see(func(ctx context.Context) (context.Context, context.CancelCauseFunc) {
					b := branchOf(ctx)
					return b, b.Cancel
				})
				wantBefore, wantAfter := see(context.WithCancelCause)
				if before != wantBefore || after != wantAfter {
					t.Errorf("%s, %s waits: %v and %v; want %v and %v", name, how, before, after, wantBefore, wantAfter)
				}
			})
		}
	}
}

func branchOf(ctx context.Context) *Branch {
	b := new(Branch)
	b.From(ctx)
	return b
}

// TestHeirs hear once, of whatever ends first above them, and no more when they have left.
func TestHeirs(t *testing.T) {
	for name, end := range map[string]func(root context.CancelFunc, middle, last *Branch){
		"the root":   func(root context.CancelFunc, _, _ *Branch) { root() },
		"the middle": func(_ context.CancelFunc, middle, _ *Branch) { middle.Cancel(nil) },
		"the last":   func(_ context.CancelFunc, _, last *Branch) { last.Cancel(nil) },
		"all": func(root context.CancelFunc, middle, last *Branch) {
			last.Cancel(ErrSuperseded)
			middle.Cancel(nil)
			root()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			root, cancel := context.WithCancel(t.Context())
			defer cancel()
			middle := branchOf(root)
			last := branchOf(middle)
			var heirs [4]Heir
			var hear [5]heard
			for i := range heirs {
				if !heirs[i].Follow(last, &hear[i]) {
					t.Error("a branch of what can end does not end")
				}
			}
			if !heirs[1].Leave() || heirs[1].Leave() || !heirs[3].Leave() {
				t.Error("an heir leaves once")
			}
			end(cancel, middle, last)
			synctest.Wait()
			if last.Err() == nil {
				t.Errorf("%s ended, and the last did not", name)
			}
			if heirs[0].Leave() {
				t.Errorf("%s ended, and an heir left after it had heard", name)
			}
			new(Heir).Follow(last, &hear[4]) // too late to be told by whoever ends it
			cancel()
			synctest.Wait()
			for i, want := range []int32{1, 0, 1, 0, 1} {
				if n := hear[i].n.Load(); n != want {
					t.Errorf("%s ended: heir %d heard %d times; want %d", name, i, n, want)
				}
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		root, cancel := context.WithCancel(t.Context())
		defer cancel()
		last, hear := branchOf(root), new(heard)
		last.Cancel(nil) // while nobody followed
		new(Heir).Follow(last, hear)
		if synctest.Wait(); hear.n.Load() != 1 {
			t.Error("who follows what has ended hears nothing")
		}
	})
	if new(Heir).Follow(context.Background(), new(heard)) {
		t.Error("something ends that has no end")
	}
}

// TestHeirsCrowd is for the race detector: an end comes while others follow and leave, and whoever did not leave hears.
func TestHeirsCrowd(t *testing.T) {
	for range 200 {
		root, cancel := context.WithCancel(t.Context())
		b := branchOf(root)
		var all sync.WaitGroup
		var missed atomic.Int32
		for i := range 8 {
			all.Go(func() {
				var h Heir
				var hear heard
				h.Follow(b, &hear)
				if i%2 == 0 && h.Leave() {
					return
				}
				for range 1000 {
					if hear.n.Load() == 1 {
						return
					}
					time.Sleep(time.Millisecond)
				}
				missed.Add(1)
			})
		}
		all.Go(cancel)
		all.Go(func() { b.Cancel(nil) })
		all.Wait()
		if n := missed.Load(); n > 0 {
			t.Fatalf("%d heirs heard nothing", n)
		}
	}
}
