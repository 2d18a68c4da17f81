package proxy

import (
	"log/slog"
	"net"
	"net/http"

	"github.com/elazarl/goproxy"

	"httpowerd/internal/exchange"
)

// newDoor is goproxy as the outer handler: it dispatches CONNECT to tunnel and gives every other request to roundTrip, which never fails. Its own dialer,
// transport, certificates and logger are not used: they trust the environment, skip limits or print secrets. Nor is its removal of fields, which comes behind the
// handlers of requests: cleanRequest has removed those and more.
func newDoor(s *Server) http.Handler {
	p := &goproxy.ProxyHttpServer{
		Logger:                 quiet{s.log},
		KeepAcceptEncoding:     true,
		KeepDestinationHeaders: true, // they are the answer's, which the writer was given whole: see visit.roundTrip
		NonproxyHandler:        http.HandlerFunc(s.originForm),
		Tr:                     &http.Transport{DialContext: nil},
	}
	p.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		r.RequestURI = ""
		return r, visitOf(exchange.From(r.Context())).roundTrip(r)
	})
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return takeConnect, host
	})
	return p
}

var takeConnect = &goproxy.ConnectAction{
	Action: goproxy.ConnectHijack,
	Hijack: func(r *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
		visitOf(exchange.From(r.Context())).connect(client)
	},
}

// quiet is goproxy's log at debug level: what matters is in our own records, and its lines may hold what a client sent.
type quiet struct{ log *slog.Logger }

func (q quiet) Printf(format string, args ...any) {
	q.log.Debug("goproxy", "format", format)
}
