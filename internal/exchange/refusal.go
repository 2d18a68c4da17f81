package exchange

import (
	"fmt"
	"time"
)

// Refusal is the proxy's own "no": never retried, never counted as a failure of the upstream, never cached.
type Refusal struct {
	Code       Code
	Status     int           // 0: the code's usual status
	Detail     string        // what the client is told; never an address, a Go error text, a path or a secret
	RetryAfter time.Duration // 0: none
	Close      bool          // the client's connection cannot be used any further
	Cause      error         // for the log only

	ProxyStatus string // as Failure's
}

// Refuse makes a Refusal with a formatted detail.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Detail }
func (r *Refusal) Unwrap() error { return r.Cause }

// HTTPStatus is the status that the client is answered with.
func (r *Refusal) HTTPStatus() int {
	if r.Status != 0 {
		return r.Status
	}
	return r.Code.Info().Status
}

// The reasons for a retry, as metrics and attempts name them.
const (
	ReasonStatus    = "status"
	ReasonConnect   = "connect"
	ReasonReset     = "reset"
	ReasonTimeout   = "timeout"
	ReasonTLS       = "tls"
	ReasonDNS       = "dns"
	ReasonPredicate = "predicate"
)

// ReasonHedge is the reason of an attempt that was made beside another one, which took long.
const ReasonHedge = "hedge"

// Failure is an attempt that ended without an answer of the upstream.
type Failure struct {
	Code   Code
	Detail string // what the client is told, as in Refusal
	// Sent is false only when it is certain that the upstream cannot have begun to act on the request: no byte of it was
	// written to a connection, or the upstream said so (HTTP/2 REFUSED_STREAM).
	Sent bool
	// Permanent marks failures that another attempt would meet again (a certificate that does not verify, a name that does
	// not exist).
	Permanent bool
	// Stale marks a kept connection that turned out dead before a byte of the answer came, which says nothing about the upstream: another attempt need not wait.
	Stale bool
	// Overall marks the end of the time that all attempts have together; the attempt itself may have had little of it.
	Overall bool
	// ProxyStatus is the error type of RFC 9209 with its parameters, where that says more than the code's own; "": it does not.
	ProxyStatus string
	Err         error // for the log only
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return string(f.Code) + ": " + f.Err.Error()
	}
	return string(f.Code) + ": " + f.Detail
}
func (f *Failure) Unwrap() error { return f.Err }

// Reason is the failure as a retry reason.
func (f *Failure) Reason() string {
	switch f.Code {
	case UpstreamDNS:
		return ReasonDNS
	case UpstreamConnect:
		return ReasonConnect
	case UpstreamTLS:
		return ReasonTLS
	case UpstreamTimeout:
		return ReasonTimeout
	default:
		return ReasonReset
	}
}
