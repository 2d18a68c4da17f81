package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	goredis "github.com/redis/go-redis/v9"
)

// The classes of errors, as logs, metrics and the admin API name them.
const (
	Away     = "away"     // it was not asked: it did not answer lately
	Timeout  = "timeout"  // no answer in time
	Connect  = "connect"  // no connection
	Lost     = "lost"     // the connection broke
	TLS      = "tls"      // its certificate is not believed, it wants one, or it speaks no TLS
	Auth     = "auth"     // no or wrong password, or a user that may not do this
	ReadOnly = "readonly" // a replica, or one whose disk is full
	Loading  = "loading"  // not ready: it loads, its master is down, its cluster moves
	Memory   = "memory"   // it has no memory left
	Cluster  = "cluster"  // it is one of a cluster, and the URL does not say so
	Value    = "value"    // the key holds what no daemon wrote
	Protocol = "protocol" // what came is no reply, or not the one that was asked for
	Server   = "server"   // any other error of the server
)

// Error is a call that came to nothing. It holds neither address nor text of the server.
type Error struct{ Class string }

func (e *Error) Error() string { return "the shared state failed: " + e.Class }

// failed tells whether an error speaks of the server, not of one key.
func (e *Error) failed() bool { return e.Class != Value && e.Class != Away }

// noScript is how the server says that it does not know a script; it is sent with its text then.
func noScript(err error) bool { return goredis.HasErrorPrefix(err, "NOSCRIPT") }

// prefixes are how errors of the server begin.
var prefixes = []struct{ text, class string }{
	{"WRONGTYPE", Value}, {damaged, Value},
	{"NOAUTH", Auth}, {"WRONGPASS", Auth}, {"NOPERM", Auth}, {"ERR invalid password", Auth}, {"ERR AUTH", Auth}, {"ERR Client sent AUTH", Auth},
	{"READONLY", ReadOnly}, {"MISCONF", ReadOnly}, {"NOREPLICAS", ReadOnly},
	{"LOADING", Loading}, {"MASTERDOWN", Loading}, {"CLUSTERDOWN", Loading}, {"TRYAGAIN", Loading}, {"BUSY", Loading}, {"MOVED", Cluster}, {"ASK", Cluster},
	{"OOM", Memory},
}

// damaged begins what our scripts answer when they find a value that none of them wrote.
const damaged = "DAMAGED"

// classify makes an *Error of whatever the client library returned.
func classify(err error) *Error {
	var own *Error
	var server goredis.Error
	var network net.Error
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errReply):
		return &Error{Protocol}
	case errors.As(err, &server) && !errors.Is(err, goredis.Nil):
		return &Error{classOf(server.Error())}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, goredis.ErrPoolTimeout),
		errors.As(err, &network) && network.Timeout():
		return &Error{Timeout}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed):
		return &Error{Lost}
	case errors.As(err, &certificate), errors.As(err, &header), errors.As(err, &alert) && alert.Op == "remote error": // which is what crypto/tls calls an alert
		return &Error{TLS}
	case errors.As(err, &network):
		return &Error{Connect}
	}
	return &Error{Protocol}
}

func classOf(text string) string {
	for _, p := range prefixes {
		if strings.HasPrefix(text, p.text) {
			return p.class
		}
	}
	// An error of a command within a script has the script's around it in older servers.
	for _, p := range prefixes[:2] {
		if strings.Contains(text, p.text) {
			return p.class
		}
	}
	return Server
}
