package admin

import (
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// maxConnections bounds what clients can make the listener hold; the next is closed at once.
const maxConnections = 256

// NewServer makes the server of the admin listener. Its own complaints, which are about clients, are logged at debug.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            10 * time.Second,
		ReadTimeout:                  20 * time.Second,
		WriteTimeout:                 30 * time.Second, // an event stream sets its own
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               32 << 10,
		Protocols:                    protocols,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:                    bound(maxConnections),
	}
}

// bound closes connections beyond limit.
func bound(limit int64) func(net.Conn, http.ConnState) {
	var open atomic.Int64
	return func(c net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			if open.Add(1) > limit {
				_ = c.Close()
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
}
