package retry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// prepare gives the request what its attempts are to carry, and tells whether it may be sent again after the upstream may have acted on it.
func (c *course) prepare() error {
	if c.tunnel {
		return nil
	}
	c.repeatable = c.config.Methods.has(c.request.Method)
	if c.when != nil && c.when.reads && !c.observes() {
		c.readable()
	}
	k := &c.config.IdempotencyKey
	if !k.On || !slices.Contains(k.Methods, c.request.Method) {
		return nil
	}
	switch own(c.request.Header[k.Header]) {
	case several:
	case one:
		c.repeatable = true
	default:
		if k.Inject && !c.observes() {
			return c.inject(k)
		}
	}
	return nil
}

// keys is how many idempotency keys a request came with.
type keys uint8

const (
	none keys = iota
	one
	several // or some that are empty: nobody knows which the upstream takes
)

// own counts the program's own keys. An empty one is none.
func own(values []string) keys {
	full := 0
	for _, v := range values {
		if v = strings.Trim(v, " \t"); v != "" && v != `""` {
			full++
		}
	}
	switch {
	case full == 0:
		return none
	case full == 1 && len(values) == 1:
		return one
	}
	return several
}

// inject makes a key, or takes the one of the exchange that the program says it repeats.
func (c *course) inject(k *IdempotencyKey) error {
	c.base = identify(c.x, c.request, k.Header)
	c.made = &made{repeat: c.repeat}
	_, _ = rand.Read(c.made.id[:]) // never fails
	c.made.id[6], c.made.id[8] = c.made.id[6]&0x0f|0x40, c.made.id[8]&0x3f|0x80
	if err := c.remember(); err != nil {
		return err
	}
	c.edit()[k.Header] = []string{text(c.made.id, k.Quoted)}
	c.repeatable = true
	return nil
}

// remember has the key remembered as soon as all of the request is known, or finds the one to use.
func (c *course) remember() error {
	keys, base := &c.room.keys, c.base
	if c.journal == nil {
		c.settle(base.with(sha256.Sum256(nil)))
		return nil
	}
	if c.repeat == 0 {
		m := c.made
		c.journal.digest(func(sum [sha256.Size]byte) { keys.add(base.with(sum), m, time.Now()) })
		return nil
	}
	var id identity
	c.journal.digest(func(sum [sha256.Size]byte) { id = base.with(sum) })
	whole, err := c.journal.ahead(c.request.Context())
	if whole {
		c.settle(id)
	}
	return err
}

// settle decides on the key of a request that is known as a whole.
func (c *course) settle(id identity) {
	if c.repeat > 0 {
		if m := c.room.keys.repeated(c.base, id, c.repeat, time.Now()); m != nil {
			c.made = m
			return
		}
	}
	c.room.keys.add(id, c.made, time.Now())
}

// ended tells the keyring how the exchange went, as far as its program can know.
func (c *course) ended(resp *http.Response, err error) {
	s := answered
	if err != nil || again(resp.StatusCode) || c.failed(resp) {
		s = failed
	}
	c.room.keys.end(c.base, c.made, s, c.journal != nil && c.journal.partial(), time.Now())
}

// again tells whether SDKs send a request again after this status.
func again(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// edit is the header of the attempts, which is no longer the client's.
func (c *course) edit() http.Header {
	if c.edited {
		return c.request.Header
	}
	r := *c.request
	r.Header = maps.Clone(r.Header)
	if r.Header == nil {
		r.Header = http.Header{}
	}
	c.request, c.edited = &r, true
	return r.Header
}

// text is a UUID (RFC 9562 section 4), in quotes where the field is a structured one (RFC 9651 section 3.3.3).
func text(id [16]byte, quoted bool) string {
	b := make([]byte, 0, 38)
	if quoted {
		b = append(b, '"')
	}
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	if quoted {
		b = append(b, '"')
	}
	return string(b)
}
