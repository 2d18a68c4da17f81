// Package sanitize changes the traffic itself: card numbers and secrets are blocked or masked before they reach somebody who has no business with them.
package sanitize

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Room owns what the block counts.
type Room struct {
	metrics *metrics
	short   func() bool
	held    atomic.Int64 // bytes of bodies that are held back
	windows atomic.Int64 // bytes of zstd's windows
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room { return &Room{metrics: newMetrics(reg)} }

// Short asks f whether memory is short: no body is held back then, and what is to be blocked is cut off where it stands. It is called before the first stage is
// made.
func (r *Room) Short(f func() bool) { r.short = f }

// Request makes the stage that looks at requests. It stands above whatever keeps a body for another attempt, so that what is sent again is what was let through.
func (r *Room) Request(c Config) exchange.Stage {
	s := r.side(c, directionRequest, c.Request)
	return exchange.Stage{Name: "sanitize request", Wrap: func(next http.RoundTripper) http.RoundTripper {
		return exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) { return s.request(req, next) })
	}}
}

// Response makes the stage that looks at answers. It stands below whatever shares or stores them.
func (r *Room) Response(c Config) exchange.Stage {
	s := r.side(c, directionResponse, c.Response)
	return exchange.Stage{Name: "sanitize response", Wrap: func(next http.RoundTripper) http.RoundTripper {
		return exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) { return s.response(req, next) })
	}}
}

// The directions.
const (
	directionRequest  = "request"
	directionResponse = "response"
)

// side is one direction of a policy's block.
type side struct {
	room       *Room
	direction  string
	rules      Rules
	screen     *redact.Screen
	own        *redact.Screen // for fields that carry credentials
	mask       redact.Mask
	blocks     bool // something may be refused
	skip       map[string]bool
	maxBody    int
	unreadable bool // refuses what cannot be read
	observe    bool
}

func (r *Room) side(c Config, direction string, rules Rules) *side {
	screen := redact.NewScreen(rules.Cards != Off, rules.Secrets != Off, c.Skip.Fields)
	s := &side{room: r, direction: direction, rules: rules, screen: screen, own: screen.Credentials(), skip: map[string]bool{}, maxBody: int(c.MaxBody),
		unreadable: c.Unreadable == unreadableBlock, observe: c.Mode == setting.Observe}
	if !s.observe {
		s.mask = redact.Mask{Cards: rules.Cards == Mask, Secrets: rules.Secrets == Mask}
		s.blocks = rules.Cards == Block || rules.Secrets == Block || s.unreadable
	}
	for _, name := range c.Skip.Headers {
		s.skip[http.CanonicalHeaderKey(name)] = true
	}
	return s
}

// message is one of r's exchange.
func (s *side) message(r *http.Request) *message {
	return &message{side: s, ctx: r.Context(), x: exchange.From(r.Context())}
}

// masks tells whether something may be replaced.
func (s *side) masks() bool { return s.mask.Cards || s.mask.Secrets }

// acts tells whether messages may be changed or refused.
func (s *side) acts() bool { return s.masks() || s.blocks }

// message is one message that is looked at.
type message struct {
	*side
	ctx  context.Context
	x    *exchange.Exchange
	told bool // observe mode's note
}

// action is what happens to a find of that kind.
func (s *side) action(k redact.Kind) string {
	a := s.rules.Cards
	if k == redact.Hidden {
		a = s.rules.Secrets
	}
	switch {
	case a == Report:
		return actionReported
	case s.observe:
		return actionObserved
	case a == Mask:
		return actionMasked
	}
	return actionBlocked
}

// found notes finds. It returns the refusal where one of them is to be blocked.
func (m *message) found(place, kind, action string, n int) error {
	where := m.direction + "." + place
	m.x.Sanitize(exchange.Sanitized{Where: where, Kind: kind, Action: action, Count: n})
	m.room.metrics.count(labels{m.x.Label(), m.direction, kind, action}, n)
	switch {
	case action == actionObserved && !m.told:
		m.told = true
		m.x.Observe("sanitize " + m.direction)
	case action == actionBlocked:
		return m.refuse(place, kind)
	}
	return nil
}

// foundAll notes what a part of a message holds.
func (m *message) foundAll(place string, c *redact.Counts) (err error) {
	if c.Total() == 0 {
		return nil
	}
	c.Each(func(k redact.Kind, n int) {
		if e := m.found(place, string(k), m.action(k), n); err == nil {
			err = e
		}
	})
	return err
}

var kindWords = map[string]string{
	string(redact.PAN): "a card number", string(redact.CVV): "a card's security code", string(redact.Track): "the data of a card's magnetic stripe",
	string(redact.Hidden): "a secret", kindUnreadable: "a coding that cannot be looked into",
}

// refuse names the kind and the place, never the value.
func (m *message) refuse(place, kind string) error {
	r := exchange.Refuse(exchange.BlockedContent, "policy blocks the %s: there is %s in its %s", m.direction, kindWords[kind], placeWord(place))
	if m.direction == directionResponse {
		r.Status = http.StatusBadGateway
	}
	return r
}

func placeWord(place string) string {
	switch place {
	case "url":
		return "URL"
	case "headers":
		return "header fields"
	}
	return place
}

// validators are fields that programs compare and never read, and that frame a message: what looks like a number there is none.
var validators = map[string]bool{
	"Etag": true, "If-Match": true, "If-None-Match": true, "If-Range": true, "Content-Length": true, "Content-Range": true, "Date": true, "Expires": true,
	"Last-Modified": true, "If-Modified-Since": true, "If-Unmodified-Since": true, "Host": true, "Via": true, "Traceparent": true, "Age": true,
}

// header looks at fields and returns them, a copy where something was masked.
func (m *message) header(place string, h http.Header) (http.Header, error) {
	var counts redact.Counts
	out, copied := h, false
	for name, values := range h {
		if validators[name] || m.skip[name] {
			continue
		}
		screen := m.screen
		if redact.Default().SensitiveName(name) {
			screen = m.own
		}
		for i, v := range values {
			clean := screen.Value(name, v, m.x.Target.Host, m.mask, &counts)
			if clean == v {
				continue
			}
			if !copied {
				out, copied = h.Clone(), true
			}
			out[name][i] = clean
		}
	}
	return out, m.foundAll(place, &counts)
}

// trailers looks at what came behind a body, in place.
func (m *message) trailers(h http.Header) error {
	if len(h) == 0 {
		return nil
	}
	clean, err := m.header("trailers", h)
	for name, values := range clean {
		h[name] = values
	}
	return err
}

// unapplied notes that what follows cannot be looked at.
func unapplied(x *exchange.Exchange) {
	x.Update(func(s *exchange.Story) {
		if !slices.Contains(s.Unapplied, "sanitize") {
			s.Unapplied = append(slices.Clip(s.Unapplied), "sanitize")
		}
	})
}

// digests are fields that no longer hold once a body is another one.
var digests = []string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest"}

// changed returns h for a body that is not the one it came with.
func changed(h http.Header, response, decoded bool) http.Header {
	h = h.Clone()
	for _, name := range digests {
		delete(h, name)
	}
	if decoded {
		delete(h, "Content-Encoding")
	}
	delete(h, "Content-Length")
	if !response {
		return h
	}
	delete(h, "Accept-Ranges")
	if tag := h["Etag"]; len(tag) > 0 && !strings.HasPrefix(tag[0], "W/") { // what came is no longer what is tagged, byte for byte
		h["Etag"] = []string{"W/" + tag[0]}
	}
	return h
}
