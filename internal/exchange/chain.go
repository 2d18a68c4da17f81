package exchange

import "net/http"

// Stage is one named link of a chain.
type Stage struct {
	Name string // the block's name, as `explain` prints it
	Wrap func(next http.RoundTripper) http.RoundTripper
}

// RoundTripperFunc makes a function a RoundTripper.
type RoundTripperFunc func(*http.Request) (*http.Response, error)

// RoundTrip calls f.
func (f RoundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Chain links the stages, the first one outermost, before end.
func Chain(end http.RoundTripper, stages ...Stage) http.RoundTripper {
	for i := len(stages) - 1; i >= 0; i-- {
		end = stages[i].Wrap(end)
	}
	return end
}
