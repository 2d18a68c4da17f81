package exchange

import "strings"

// Verdict is whether an answer asks for another attempt.
type Verdict uint8

// The verdicts. Of two the greater one holds.
const (
	Unsaid Verdict = iota // nobody says so
	Again                 // yes, by the upstream's word or by the operator's
	Final                 // no, by the upstream's word
)

// ShouldRetry is the word of X-Should-Retry, or of a vendor's own field like it.
func ShouldRetry(values []string) (v Verdict) {
	for _, s := range values {
		switch s = strings.Trim(s, " \t"); {
		case strings.EqualFold(s, "false"):
			return Final
		case strings.EqualFold(s, "true"):
			v = Again
		}
	}
	return v
}

// Judge notes what the last attempt's answer asks for, for whoever may keep it: its fields need not say so any more.
func (x *Exchange) Judge(v Verdict) {
	x.mu.Lock()
	x.verdict = v
	x.mu.Unlock()
}

// Verdict is what Judge noted.
func (x *Exchange) Verdict() Verdict {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.verdict
}
