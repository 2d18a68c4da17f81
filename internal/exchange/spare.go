package exchange

// Piece names memory that the door allocates together with its own, for what a stage needs once for nearly every exchange.
type Piece uint8

// The pieces, and who takes them.
const (
	SpareSending Piece = iota // the chain's end
	SpareReport               // the breaker
	pieces
)

// Lend leaves a piece for its stage, before the chain runs.
func (x *Exchange) Lend(p Piece, memory any) { x.spare[p] = memory }

// Take is the piece for who asks first; nil for all others, and where the door left none.
func (x *Exchange) Take(p Piece) any {
	x.mu.Lock()
	defer x.mu.Unlock()
	memory := x.spare[p]
	x.spare[p] = nil
	return memory
}
