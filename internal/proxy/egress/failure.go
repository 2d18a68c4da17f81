package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"httpowerd/internal/descriptor"
	"httpowerd/internal/exchange"
)

// explain says what an error of the transport means: a Refusal, a Failure, or that the caller went.
func (a *attempt) explain(ctx context.Context, err error) error {
	if refusal := own[*exchange.Refusal](err); refusal != nil {
		return refusal
	}
	if cause := context.Cause(ctx); cause != nil {
		return interrupted(ctx, cause, a.sent())
	}
	if failure := own[*exchange.Failure](err); failure != nil {
		return failure
	}
	if a.in.ReadCloser != nil {
		if broken := a.in.failed(); broken != nil {
			return brokenBody(broken)
		}
	}
	if a.resent {
		f := fail(exchange.UpstreamReset, "the upstream gave the request up before it answered", true, err)
		f.Stale = a.x.Repeats && exchange.SafeMethod(a.method) && a.reads != nil // by HTTP/2 it was the stream that was given up, and the connection lives
		return f
	}
	if a.reads != nil && a.reads.cutShort() {
		return fail(exchange.UpstreamReset, closedEarly, a.sent(), err)
	}
	return classify(err, a.sent())
}

// own finds an error of this project's own type.
func own[T error](err error) T {
	var e T
	errors.As(err, &e)
	return e
}

// interrupted is for contexts that ended: a timeout is the upstream's, a cancellation the caller's.
func interrupted(ctx context.Context, cause error, sent bool) error {
	if refusal := own[*exchange.Refusal](cause); refusal != nil {
		return refusal
	}
	if failure := own[*exchange.Failure](cause); failure != nil {
		f := *failure
		f.Sent = sent
		return &f
	}
	if errors.Is(cause, context.DeadlineExceeded) || ctx.Err() == context.DeadlineExceeded {
		return fail(exchange.UpstreamTimeout, "the upstream did not answer in time", sent, cause)
	}
	if errors.Is(cause, context.Canceled) {
		return cause
	}
	return errors.Join(context.Canceled, cause)
}

const closedEarly = "the upstream closed the connection before its answer was complete"

func brokenBody(err error) error {
	if refusal := own[*exchange.Refusal](err); refusal != nil {
		return refusal
	}
	if tooLarge := own[*http.MaxBytesError](err); tooLarge != nil {
		return &exchange.Refusal{Code: exchange.TooLarge, Detail: "the request's body is too large", Close: true, Cause: err}
	}
	if exchange.BrokeOff(err) {
		err = &brokenOff{err}
	}
	return &exchange.Refusal{Code: exchange.BadRequest, Detail: "the request's body is malformed or broke off", Close: true, Cause: err}
}

// brokenOff marks a body whose client left: the attempt ended for that.
type brokenOff struct{ error }

func (b *brokenOff) Unwrap() error { return b.error }

func fail(code exchange.Code, detail string, sent bool, err error) *exchange.Failure {
	return &exchange.Failure{Code: code, Detail: detail, Sent: sent, Err: err}
}

// streamError takes the fields of net/http's own HTTP/2 stream error, which it hands over to any struct of this shape.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "HTTP/2 stream error" }

// HTTP/2 error codes (RFC 9113 section 7).
const (
	codeProtocol    = 0x1
	codeFlowControl = 0x3
	codeFrameSize   = 0x6
	codeRefused     = 0x7
	codeCompression = 0x9
)

// classify explains an error that the transport met on a connection.
func classify(err error, sent bool) error {
	var stream streamError
	if errors.As(err, &stream) {
		return streamFailure(stream.Code, sent, err)
	}
	text := err.Error()
	if strings.Contains(text, "graceful shutdown GOAWAY") || strings.Contains(text, "client conn not usable") ||
		strings.Contains(text, "REFUSED_STREAM") {
		return fail(exchange.UpstreamReset, "the upstream refused the request before it looked at it", false, err)
	}
	var alert tls.AlertError
	var timeout net.Error
	switch {
	case errors.As(err, &alert):
		return fail(exchange.UpstreamTLS, "the upstream broke the TLS connection off", sent, err)
	case broken(err), strings.Contains(text, "server closed idle connection"), strings.Contains(text, "client connection lost"),
		strings.Contains(text, "GOAWAY"), strings.Contains(text, "connection force closed"):
		return fail(exchange.UpstreamReset, closedEarly, sent, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fail(exchange.UpstreamTimeout, "the upstream did not answer in time", sent, err)
	case clientsFault(text):
		return &exchange.Refusal{Code: exchange.BadRequest, Detail: "the request's fields or length cannot be sent on", Close: true, Cause: err}
	case !sent:
		return fail(exchange.UpstreamReset, "the connection to the upstream could not be used", false, err)
	}
	return fail(exchange.UpstreamProtocol, "the upstream's answer is malformed", sent, err)
}

func streamFailure(code uint32, sent bool, err error) error {
	switch code {
	case codeRefused:
		return fail(exchange.UpstreamReset, "the upstream refused the request before it looked at it", false, err)
	case codeProtocol, codeFlowControl, codeFrameSize, codeCompression:
		return fail(exchange.UpstreamProtocol, "the upstream's answer is malformed", sent, err)
	}
	return fail(exchange.UpstreamReset, "the upstream reset the stream", sent, err)
}

// clientsFault tells whether net/http would not send what it was given.
func clientsFault(text string) bool {
	return strings.HasPrefix(text, "net/http: invalid ") || strings.HasPrefix(text, "http: ContentLength=") ||
		strings.HasPrefix(text, "http: request body larger") || strings.HasPrefix(text, "http2: request body larger") ||
		strings.HasPrefix(text, "http: Request.ContentLength=")
}

// broken tells whether the connection, rather than what came over it, is at fault.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, net.ErrClosed)
}

// dialFailure explains why no connection came about. ctx is the dial's own, with the connect timeout as its cause.
func dialFailure(ctx context.Context, err error) error {
	if refusal := own[*exchange.Refusal](err); refusal != nil {
		return refusal
	}
	if descriptor.Exhausted(err) { // a name server's socket is one too
		return &exchange.Refusal{Code: exchange.Overloaded, Detail: "this proxy has no file descriptor left", RetryAfter: time.Second, Cause: err}
	}
	if failure := own[*exchange.Failure](err); failure != nil {
		return failure
	}
	if cause := context.Cause(ctx); cause != nil {
		if cause == errConnectTimeout {
			return fail(exchange.UpstreamTimeout, "the upstream could not be connected to in time", false, cause)
		}
		return interrupted(ctx, cause, false)
	}
	detail := "the upstream could not be connected to"
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		detail = "the upstream refused the connection"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		detail = "the upstream's network cannot be reached"
	case errors.Is(err, syscall.ETIMEDOUT):
		return fail(exchange.UpstreamTimeout, "the upstream could not be connected to in time", false, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		detail = "the local address of the connection cannot be used"
	}
	return fail(exchange.UpstreamConnect, detail, false, err)
}

// tlsFailure explains why a handshake failed.
func tlsFailure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if cause == errTLSTimeout {
			return fail(exchange.UpstreamTimeout, "the upstream did not finish the TLS handshake in time", false, cause)
		}
		return interrupted(ctx, cause, false)
	}
	f := fail(exchange.UpstreamTLS, "the TLS handshake with the upstream failed", false, err)
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &host):
		f.Detail, f.Permanent = "the upstream's certificate is for another name", true
	case errors.As(err, &authority):
		f.Detail, f.Permanent = "the upstream's certificate is from an authority that is not trusted", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.Detail, f.Permanent = "the upstream's certificate has expired or is not valid yet", true
	case errors.As(err, &verification):
		f.Detail, f.Permanent = "the upstream's certificate does not verify", true
	case broken(err):
		f.Detail = "the upstream closed the connection during the TLS handshake"
	}
	return f
}
