package exchange

// Lend leaves memory that was allocated together with the door's own, for what stages need once for nearly every exchange. It comes before the chain runs.
func (x *Exchange) Lend(memory ...any) { copy(x.spare[:], memory) }

// Borrow is memory for a T: what the door lent for the first who asks, else new.
func Borrow[T any](x *Exchange) *T {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, lent := range x.spare {
		if t, ok := lent.(*T); ok {
			x.spare[i] = nil
			return t
		}
	}
	return new(T)
}
