package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"

	"httpowerd/internal/descriptor"
	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
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
	if a.resent && a.unseen {
		return fail(exchange.UpstreamReset, refusedStream, false, err)
	}
	if a.resent {
		f := fail(exchange.UpstreamReset, "the upstream gave the request up before it answered", true, err)
		f.Stale = a.x.Repeats && exchange.SafeMethod(a.method) && a.reads != nil // by HTTP/2 it was the stream that was given up, and the connection lives
		return f
	}
	if errors.Is(err, context.Canceled) { // by errGivenUp
		return fail(exchange.UpstreamReset, "the upstream gave the request up before it answered", true, err)
	}
	if a.reads != nil && a.reads.cutShort() {
		return fail(exchange.UpstreamReset, closedEarly, a.sent(), err)
	}
	sent := a.sent()
	if a.two != nil && strings.Contains(err.Error(), "client conn could not be established") { // it ended between its handshake and its first request
		if sent = false; a.two.broke.Load() != nil {
			err = *a.two.broke.Load()
		}
	} else if a.leftOut() {
		return fail(exchange.UpstreamReset, "the upstream's connections had no room for the request", false, err)
	}
	return classify(err, sent)
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

const (
	closedEarly   = "the upstream closed the connection before its answer was complete"
	refusedStream = "the upstream refused the request before it looked at it"
)

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

// closer names a failure's error type for Proxy-Status.
func closer(f *exchange.Failure, proxyStatus string) *exchange.Failure {
	f.ProxyStatus = proxyStatus
	return f
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
		return fail(exchange.UpstreamReset, refusedStream, false, err)
	}
	var timeout net.Error
	if number, ok := alertOf(err); ok { // in TLS 1.3 the client's certificate is judged after its handshake is done
		return alerted(number, sent, err)
	}
	switch {
	case unreadable(err):
		return fail(exchange.UpstreamTLS, "what came from the upstream is not what its TLS connection began with", sent, err)
	case broken(err), strings.Contains(text, "server closed idle connection"), strings.Contains(text, "client connection lost"),
		strings.Contains(text, "GOAWAY"), strings.Contains(text, "connection force closed"), strings.Contains(text, "client conn could not be established"):
		return fail(exchange.UpstreamReset, closedEarly, sent, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fail(exchange.UpstreamTimeout, "the upstream did not answer in time", sent, err)
	case clientsFault(text):
		return &exchange.Refusal{Code: exchange.BadRequest, Detail: "the request's fields or length cannot be sent on", Close: true, Cause: err}
	case !sent:
		return fail(exchange.UpstreamReset, "the connection to the upstream could not be used", false, err)
	}
	if strings.Contains(text, "response header") && (strings.Contains(text, "larger than") || strings.Contains(text, "exceeded")) { // net/http's own limit, in either version
		f := *wire.ErrLongHead
		f.Err = err
		return &f
	}
	return fail(exchange.UpstreamProtocol, "the upstream's answer is malformed", sent, err)
}

func streamFailure(code uint32, sent bool, err error) error {
	switch code {
	case codeRefused:
		return fail(exchange.UpstreamReset, refusedStream, false, err)
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

// alertOf is the number of the TLS alert that the upstream sent. It is of a type that crypto/tls keeps to itself.
func alertOf(err error) (number uint64, ok bool) {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return 0, false
	}
	alert := reflect.ValueOf(remote.Err)
	if alert.Kind() != reflect.Uint8 {
		return 0, false
	}
	return alert.Uint(), true
}

// unreadable tells whether a TLS connection was ended on this side, for what came by it.
func unreadable(err error) bool {
	var local *net.OpError
	return errors.As(err, &local) && local.Op == "local error" || errors.As(err, new(tls.RecordHeaderError))
}

// Alerts (RFC 8446 section 6.2) that say what to do about them.
const (
	alertHandshake    = 40
	alertBad          = 42 // the first of those about certificates
	alertUnknown      = 46 // the last of them
	alertUnknownCA    = 48
	alertVersion      = 70
	alertUnrecognized = 112
	alertRequired     = 116
	alertNoProtocol   = 120
)

func alerted(number uint64, sent bool, err error) *exchange.Failure {
	f := fail(exchange.UpstreamTLS, "the upstream ended the TLS connection with alert "+strconv.FormatUint(number, 10), sent, err)
	f.ProxyStatus = "tls_alert_received; alert-id=" + strconv.FormatUint(number, 10)
	switch {
	case number == alertHandshake:
		f.Detail = "the upstream accepts nothing of what it is offered for TLS, or wants a client certificate"
	case number >= alertBad && number <= alertUnknown, number == alertUnknownCA:
		f.Detail = "the upstream does not accept the client certificate, or that there is none"
	case number == alertVersion:
		f.Detail = "the upstream speaks no TLS version that it is offered"
	case number == alertUnrecognized:
		f.Detail = "the upstream knows no host of this name"
	case number == alertRequired:
		f.Detail = "the upstream wants a client certificate"
	}
	return f
}

// overdue waits for ctx where its deadline has passed: net's dialer goes by that, and may be a little ahead of whoever knows whose deadline it was.
func overdue(ctx context.Context) {
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		t := time.NewTimer(time.Second)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

// errUnresolved marks a dial that ended while the name was looked up.
var errUnresolved = errors.New("the name was not resolved yet")

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
	overdue(ctx)
	cause := context.Cause(ctx)
	if cause != nil && cause != errConnectTimeout {
		return dialling(interrupted(ctx, cause, false), err)
	}
	f := fail(exchange.UpstreamConnect, "the upstream could not be connected to", false, err)
	var timeout net.Error
	switch {
	case cause != nil && errors.Is(err, errUnresolved):
		return closer(fail(exchange.UpstreamTimeout, "the upstream's name could not be resolved in time", false, cause), dnsTimeout)
	case cause != nil, errors.As(err, &timeout) && timeout.Timeout():
		f.Code, f.Detail, f.ProxyStatus = exchange.UpstreamTimeout, "the upstream could not be connected to in time", connectTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Detail = "the upstream refused the connection"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		f.Detail, f.ProxyStatus = "the upstream's network cannot be reached", unroutable
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.Detail, f.ProxyStatus = "the local address of the connection cannot be used", "proxy_internal_error"
	case broken(err):
		f.ProxyStatus = "connection_terminated"
	}
	return f
}

// Error types of RFC 9209.
const (
	connectTimeout = "connection_timeout"
	dnsTimeout     = "dns_timeout"
	unroutable     = "destination_ip_unroutable"
)

// dialling says of a deadline, which interrupted made a failure of its own of, that there was no connection yet when it came. met is how the dial ended.
func dialling(err, met error) error {
	if f := own[*exchange.Failure](err); f != nil && f.Code == exchange.UpstreamTimeout {
		f.ProxyStatus = connectTimeout
		if errors.Is(met, errUnresolved) {
			f.ProxyStatus = dnsTimeout
		}
	}
	return err
}

// tlsFailure explains why a handshake failed.
func tlsFailure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if cause == errTLSTimeout {
			return closer(fail(exchange.UpstreamTimeout, "the upstream did not finish the TLS handshake in time", false, cause), connectTimeout)
		}
		return dialling(interrupted(ctx, cause, false), err)
	}
	if number, ok := alertOf(err); ok {
		return alerted(number, false, err)
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
		f.Detail, f.ProxyStatus = "the upstream closed the connection during the TLS handshake", "connection_terminated"
	case errors.As(err, new(tls.RecordHeaderError)):
		f.Detail = "the upstream does not speak TLS on this port"
	}
	if f.Permanent {
		f.ProxyStatus = "tls_certificate_error"
	}
	return f
}
