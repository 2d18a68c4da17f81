package exchange

// Root is a request's first context, for the server that makes the request and has room for it: what is derived below hears of its end without a goroutine or
// an allocation, and NewContext finds the place for its exchange here.
type Root struct {
	Branch
	x *Exchange
}

// Value implements context.Context.
func (r *Root) Value(key any) any {
	if key == (contextKey{}) && r.x != nil {
		return r.x
	}
	return r.Branch.Value(key)
}
