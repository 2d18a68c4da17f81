package redact

// Kind names what was hidden.
type Kind string

// The kinds. Card numbers are masked; everything else is removed.
const (
	PAN     Kind = "pan"     // a card number
	CVV     Kind = "cvv"     // a card's security code, a PIN
	Track   Kind = "track"   // what a magnetic stripe holds
	Hidden  Kind = "secret"  // a password, key, token or cookie
	Pattern Kind = "pattern" // what a configured pattern matched

	// Personal is what identifies a person. It is hidden only where the configuration asks.
	Personal Kind = "personal"
)

// kind is a Kind as an index.
type kind uint8

const (
	kindSecret kind = iota
	kindPAN
	kindCVV
	kindTrack
	kindPattern
	kindPersonal
	kinds
)

var kindNames = [kinds]Kind{kindSecret: Hidden, kindPAN: PAN, kindCVV: CVV, kindTrack: Track, kindPattern: Pattern, kindPersonal: Personal}

// Counts is how much was hidden, by kind. Its zero value is ready; a nil one counts nothing. It is not safe for concurrent use.
type Counts struct {
	n      [kinds]int
	report func(label, string) // nil: nobody wants to know what was hidden
}

// Each calls f for every kind of which something was hidden, always in the same order.
func (c *Counts) Each(f func(Kind, int)) {
	if c == nil {
		return
	}
	for k, n := range c.n {
		if n > 0 {
			f(kindNames[k], n)
		}
	}
}

// Total is the sum over all kinds.
func (c *Counts) Total() int {
	if c == nil {
		return 0
	}
	total := 0
	for _, n := range c.n {
		total += n
	}
	return total
}

// Add counts n more of a kind; kinds that this package does not know count as secrets.
func (c *Counts) Add(k Kind, n int) {
	for i, name := range kindNames {
		if name == k {
			c.add(kind(i), n)
			return
		}
	}
	c.add(kindSecret, n)
}

// found counts a value.
func (c *Counts) found(l label, value string) {
	if c == nil {
		return
	}
	c.n[l.kind()]++
	if c.report != nil {
		c.report(l, value)
	}
}

func (c *Counts) add(k kind, n int) {
	if c != nil {
		c.n[k] += n
	}
}
