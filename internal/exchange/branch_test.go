package exchange

import (
	"bytes"
	"context"
	"errors"
	"runtime"
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

// TestBranchChildren: a context that package context makes of a branch ends with it and for its cause, costs no goroutine, and leaves nothing behind.
func TestBranchChildren(t *testing.T) {
	own, parents := errors.New("its own"), errors.New("its parent's")
	for name, c := range map[string]struct {
		end  func(b *Branch, parent, child context.CancelCauseFunc)
		want error
	}{
		"the branch ends":            {func(b *Branch, _, _ context.CancelCauseFunc) { b.Cancel(own) }, own},
		"it ends for no cause":       {func(b *Branch, _, _ context.CancelCauseFunc) { b.Cancel(nil) }, context.Canceled},
		"its parent ends":            {func(_ *Branch, parent, _ context.CancelCauseFunc) { parent(parents) }, parents},
		"the child ends":             {func(_ *Branch, _, child context.CancelCauseFunc) { child(own) }, own},
		"the child, then the branch": {func(b *Branch, _, child context.CancelCauseFunc) { child(own); b.Cancel(nil) }, own},
	} {
		synctest.Test(t, func(t *testing.T) {
			parent, end := context.WithCancelCause(t.Context())
			defer end(nil)
			b := branchOf(branchOf(parent))
			before := inBubble(t)
			child, cancel := context.WithCancelCause(b)
			defer cancel(nil)
			timed, stop := context.WithTimeout(b, time.Hour)
			defer stop()
			called := false
			context.AfterFunc(b, func() { called = true })
			if n := inBubble(t); n != before {
				t.Errorf("%s: %d goroutines more", name, n-before)
			}
			held := b.Done()
			c.end(b, end, cancel)
			synctest.Wait()
			if context.Cause(child) != c.want || child.Err() == nil {
				t.Errorf("%s: the child ended with %v, %v; want %v", name, context.Cause(child), child.Err(), c.want)
			}
			select {
			case <-held:
				if !called || context.Cause(timed) != context.Cause(b) || b.Err() == nil {
					t.Errorf("%s: %v; another child ended with %v; called %v", name, context.Cause(b), context.Cause(timed), called)
				}
			default:
				if b.Err() != nil || called || timed.Err() != nil {
					t.Errorf("%s: it has ended with %v, and a channel is open; called %v", name, b.Err(), called)
				}
			}
			b.Cancel(nil)
			synctest.Wait()
			if b.heirs.first != over {
				t.Errorf("%s: somebody follows what is over", name)
			}
			if up := b.up.heirs; up != nil && up.first != nil && up.first != over {
				t.Errorf("%s: the parent knows of a branch that is over", name)
			}
		})
	}
}

// inBubble is how many goroutines the caller's bubble has: those of the one before are still on their way out, and runtime.NumGoroutine counts them.
func inBubble(t *testing.T) int {
	t.Helper()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	first, _, _ := bytes.Cut(stacks, []byte("\n")) // goroutine 7 [running, synctest bubble 5]:
	_, own, found := bytes.Cut(first, []byte("synctest bubble "))
	if !found {
		t.Fatalf("%s names no bubble", first)
	}
	return bytes.Count(stacks, append([]byte("synctest bubble "), own...))
}

// TestBranchCrowd is for the race detector: it ends in two ways at once while others begin to wait, and none of them waits on.
func TestBranchCrowd(t *testing.T) {
	for range 200 {
		root, cancel := context.WithCancel(t.Context())
		b := branchOf(branchOf(root))
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if i%2 == 0 {
					child, stop := context.WithCancel(b)
					defer stop()
					<-child.Done()
				}
				<-b.Done()
				if b.Err() == nil || context.Cause(b) == nil {
					t.Error("its channel is closed, and it has not ended")
				}
			})
		}
		all.Go(cancel)
		all.Go(func() { b.Cancel(ErrSuperseded) })
		all.Wait()
	}
}
