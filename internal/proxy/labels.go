package proxy

import (
	"strings"
	"sync"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// otherHost is the label of names that match no host block and have none of their own.
const otherHost = "other"

// Labels bounds the host label of metrics: configured patterns always have it, other names when a connection to them was made, up to a limit.
type Labels struct {
	limit int
	all   bool

	mu    sync.RWMutex
	known map[string]string // a name, and its own copy, which may be kept: a request's is a part of its head
}

// NewLabels makes Labels for at most limit names beside the configured patterns. all takes in names that no connection was made to, which clients may make up.
func NewLabels(limit int, all bool) *Labels {
	return &Labels{limit: limit, all: all, known: map[string]string{}}
}

// For is the label of an exchange as of now.
func (l *Labels) For(x *exchange.Exchange) string {
	pattern := x.Pattern()
	return l.of(pattern, x.Target.Host)
}

// of is the label for a host that matched pattern ("" for none).
func (l *Labels) of(pattern, host string) string {
	if pattern != "" {
		return pattern
	}
	own, ok := l.own(host)
	if !ok && l.all {
		l.Reached(host)
		own, ok = l.own(host)
	}
	if ok {
		return own
	}
	return otherHost
}

func (l *Labels) own(host string) (string, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	own, ok := l.known[host]
	return own, ok
}

// Reached gives the host a label of its own while there is room. A name that holds a card number or a key has none: whoever reads metrics need not be one who
// may see these.
func (l *Labels) Reached(host string) {
	l.mu.RLock()
	_, ok := l.known[host]
	full := len(l.known) >= l.limit
	l.mu.RUnlock()
	if ok || full || redact.Default().Text(host) != host {
		return
	}
	l.mu.Lock()
	if len(l.known) < l.limit {
		host = strings.Clone(host)
		l.known[host] = host
	}
	l.mu.Unlock()
}
