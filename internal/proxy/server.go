// Package proxy is the door: listeners, the fixed stages that every request passes, tunnels, interception and drain.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/descriptor"
	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/tenant"
	"httpowerd/internal/proxy/audit"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/proxy/trace"
	"httpowerd/internal/proxy/wire"
)

// Options are what a Server is made of.
type Options struct {
	Policies   interface{ Load() *policy.Snapshot }
	Audit      *audit.Log                           // nil: no records
	CA         func() (*intercept.Authority, error) // called at the first interception
	Limits     Limits                               //
	Open       Open                                 // who may connect
	Labels     *Labels                              // of metrics
	Own        *Own                                 // learns the listeners
	Registerer prometheus.Registerer                //
	Logger     *slog.Logger                         //
	Short      func() bool                          // memory is so short that new requests must be refused; nil: never
	Tracer     *trace.Tracer                        // nil: the record has the trace that a client names, and that is all
	Standard   bool                                 // net/http serves HTTP/1.1 clients, in the place of the project's own wire
}

// Limits are the ceilings of proxy.limits.
type Limits struct {
	Connections   int           // client connections; more are answered 503
	Tunnels       int           // open CONNECT tunnels; more are answered 503
	HeaderBytes   int           // of a request head
	HeaderTimeout time.Duration // for a request head to come in
	Idle          time.Duration // a kept-alive client connection without a request
	TunnelIdle    time.Duration // a tunnel without a byte in either direction
}

// Open says which clients may connect to a listener that is not on loopback.
type Open string

// OpenPrivate admits clients from private and loopback addresses, OpenAll everybody. Anything else means the same as OpenAll: whether a listener may be
// opened at all is the configuration's affair.
const (
	OpenPrivate Open = "private"
	OpenAll     Open = "true"
)

// Server is the proxy's front.
type Server struct {
	policies  interface{ Load() *policy.Snapshot }
	audit     *audit.Log
	tracer    *trace.Tracer
	ca        func() (*intercept.Authority, error)
	log       *slog.Logger
	limits    serverLimits
	open      Open
	labels    *Labels
	metrics   *metrics
	pseudonym string    // in Via: recognises loops, names no host
	via       [3]string // its members for messages of HTTP/1.0, 1.1 and 2.0

	door  http.Handler
	outer *http.Server // on listeners
	inner *http.Server // inside tunnels
	feed  *feed

	wireOuter, wireInner *wire.Server // for HTTP/1.1 in the place of the two; nil: net/http serves it

	short    func() bool
	failures tenant.Failures // wrong credentials by address
	places   places          // of tenants

	connections atomic.Int64
	tunnels     tunnels
	wakeful     wakeful
	lot         lot
	draining    atomic.Bool
	served      atomic.Int64            // requests in net/http's hands, whose servers do not wait for handlers of connections that they have closed, and records without one
	cut         context.CancelCauseFunc // ends those
	own         *Own
	wg          sync.WaitGroup
}

type serverLimits struct {
	connections, tunnels   int
	headerBytes            int
	headerTimeout          time.Duration
	tunnelIdle             time.Duration
	handshake, refusalTime time.Duration
	halfOpen               time.Duration // for a tunnel that one side has closed, without a byte
}

// New makes a Server; Serve gives it listeners.
func New(o Options) *Server {
	s := &Server{
		policies: o.Policies, audit: o.Audit, tracer: o.Tracer, ca: o.CA, log: o.Logger, open: o.Open,
		labels: o.Labels, own: o.Own, short: o.Short, metrics: newMetrics(o.Registerer, o.Limits), feed: newFeed(),
		pseudonym: "httpowerd-" + strconv.FormatUint(rand.Uint64()>>16, 36),
		limits: serverLimits{connections: o.Limits.Connections, tunnels: o.Limits.Tunnels, headerBytes: o.Limits.HeaderBytes,
			headerTimeout: o.Limits.HeaderTimeout, tunnelIdle: o.Limits.TunnelIdle,
			handshake: 10 * time.Second, refusalTime: 100 * time.Millisecond, halfOpen: 30 * time.Second},
	}
	s.via = [3]string{"1.0 " + s.pseudonym, "1.1 " + s.pseudonym, "2.0 " + s.pseudonym}
	s.door = newDoor(s)
	var base context.Context
	base, s.cut = context.WithCancelCause(context.Background())
	s.outer = s.httpServer(o.Limits, base)
	s.inner = s.httpServer(o.Limits, base)
	s.inner.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	s.inner.Protocols.SetHTTP2(true)
	s.inner.MaxHeaderBytes = 2 * o.Limits.HeaderBytes // net/http ends the whole connection for what is longer; up to there we refuse the request
	s.inner.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: clientStreams, MaxReceiveBufferPerConnection: clientStreams * streamRoom, MaxReceiveBufferPerStream: streamRoom,
		SendPingTimeout: time.Minute, PingTimeout: 15 * time.Second,
		WriteByteTimeout: o.Limits.TunnelIdle + o.Limits.TunnelIdle/4} // a stream's own deadline ends nothing while its reset cannot be written
	keepScheme(s.inner)
	s.coalesce(s.inner)
	if !o.Standard {
		s.wireOuter, s.wireInner = s.wireServer(o.Limits), s.wireServer(o.Limits)
	}
	s.wg.Go(func() {
		if err := s.inner.Serve(s.feed); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the inner server ended", "error", err)
		}
	})
	return s
}

// clientStreams is how many streams of HTTP/2 a client may have open at once, and streamRoom what each may send ahead of whoever reads it. The connection has room for all
// of them: else a few uploads to an upstream that takes nothing would hold up whatever else their client does.
const (
	clientStreams = 250
	streamRoom    = 128 << 10
)

func (s *Server) httpServer(l Limits, base context.Context) *http.Server {
	server := &http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            l.HeaderTimeout,
		IdleTimeout:                  l.Idle,
		MaxHeaderBytes:               l.HeaderBytes,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  withConn,
		DisableGeneralOptionsHandler: true,                                                // OPTIONS * is for the upstream, or a request for a server
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what clients do wrong is in the audit records
		Protocols:                    new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	return server
}

func (s *Server) wireServer(l Limits) *wire.Server {
	return &wire.Server{Handler: s, Refused: s.refused, Context: withConn, MaxHead: l.HeaderBytes, HeaderTimeout: l.HeaderTimeout, Idle: l.Idle, Log: s.log}
}

// guard is what reads along with a client's connection; nil: the own wire needs none.
func (s *Server) guard() *wire.Guard {
	if s.wireOuter != nil {
		return nil
	}
	return &wire.Guard{MaxHead: s.limits.headerBytes}
}

// Serve accepts clients until Shutdown; config makes it an HTTPS proxy. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener, config *tls.Config) error {
	s.own.Add(l.Addr())
	serve := s.outer.Serve
	if s.wireOuter != nil {
		serve = s.wireOuter.Serve
	}
	reserve := descriptor.NewReserve(1)
	defer reserve.Close()
	var clients net.Listener = &acceptor{Listener: descriptor.Keep(l, reserve), server: s, secure: config != nil}
	if config != nil {
		t := s.secure(clients, config)
		defer t.wait()
		clients = t
	}
	err := serve(clients)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, lets requests and tunnels end until ctx does, then cuts what is left and says so with an error. That takes three tenths of a second at most.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.inner.SetKeepAlivesEnabled(false) // connections on their way to the inner server still get their first answer
	outer, inner := shutter(s.outer), shutter(s.inner)
	if s.wireOuter != nil {
		s.wireInner.Drain()
		outer, inner = both{s.outer, s.wireOuter}, both{s.inner, s.wireInner}
	}
	var ended, taken error
	var wait sync.WaitGroup
	wait.Go(func() { ended = outer.Shutdown(ctx) })
	wait.Go(func() { taken = s.tunnels.drain(ctx) })
	wait.Wait()
	err := errors.Join(ended, taken, inner.Shutdown(ctx))
	if err != nil {
		s.cutOff(both{outer, inner})
	}
	s.settle()
	_ = s.feed.Close()
	s.lot.close()
	s.wg.Wait()
	return err
}

// errCutOff is the cause with which requests end that are still under way when a drain has no more time.
var errCutOff = &exchange.Refusal{Code: exchange.Draining, Detail: cutDetail, Close: true}

const cutDetail = "this proxy shut down"

// goodbye is how long clients whose requests are cut have to be told so, and settling how long what is behind them then has to be recorded.
const (
	goodbye  = 200 * time.Millisecond
	settling = 50 * time.Millisecond
)

// cutOff ends all requests. Whose answer has not begun is told so where that takes no time.
func (s *Server) cutOff(servers shutter) {
	s.cut(errCutOff)
	if s.wireOuter != nil {
		s.wireOuter.Cut(errCutOff)
		s.wireInner.Cut(errCutOff)
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = servers.Shutdown(ctx)
	_ = servers.Close()
	ctx, cancel = context.WithTimeout(context.Background(), settling)
	defer cancel()
	_ = servers.Shutdown(ctx)
}

// settle waits for records that are being made.
func (s *Server) settle() {
	for end := time.Now().Add(settling); s.served.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// shutter is what can be shut down.
type shutter interface {
	Shutdown(context.Context) error
	Close() error
}

// both are two servers as one.
type both [2]shutter

func (b both) Shutdown(ctx context.Context) error {
	var first error
	var wait sync.WaitGroup
	wait.Go(func() { first = b[0].Shutdown(ctx) })
	second := b[1].Shutdown(ctx)
	wait.Wait()
	return errors.Join(first, second)
}

func (b both) Close() error { return errors.Join(b[0].Close(), b[1].Close()) }

// Draining tells whether Shutdown was called.
func (s *Server) Draining() bool { return s.draining.Load() }

// noDeadline lifts a deadline.
var noDeadline time.Time
