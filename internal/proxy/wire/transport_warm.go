package wire

import "context"

// Lacks tells whether fewer than n connections to addr lie ready, and one more may be made.
func (t *Transport) Lacks(addr string, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lacks(addr, n)
}

// lacks is Lacks. t.mu is held.
func (t *Transport) lacks(addr string, n int) bool {
	idle, open := 0, 0
	if p := t.places[addr]; p != nil {
		idle, open = len(p.idle), p.open
	}
	return !t.retired && idle < min(n, t.MaxIdle) && (t.MaxOpen == 0 || open < t.MaxOpen)
}

// Warm makes a connection to addr for a request to come where it lacks one; made is false where it does not. It is closed like any other kept one.
func (t *Transport) Warm(ctx context.Context, addr string, n int) (made bool, err error) {
	t.mu.Lock()
	if !t.lacks(addr, n) {
		t.mu.Unlock()
		return false, nil
	}
	p := t.place(addr)
	p.open++ // no request may take its place meanwhile
	t.mu.Unlock()
	d, err := t.Dial(ctx, addr)
	if err != nil {
		t.closed(addr)
		return false, err
	}
	c := newUpConn(t, p, d)
	c.reused = true // it may be as dead as any kept one when its request comes
	t.put(c)
	return true, nil
}
