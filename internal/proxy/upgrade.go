package proxy

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// upgraded is an exchange that became a WebSocket: bytes both ways over the client's connection and the body of the upstream's 101.
type upgraded struct {
	client   net.Conn
	upstream io.ReadWriteCloser
	up, down atomic.Int64

	mu     sync.Mutex
	why    exchange.Code
	detail string
}

// farewell is how long the other direction may still run after the client's ended.
const farewell = 2 * time.Second

// relayUpgrade answers 101 and relays until one side ends. The answer's head is in the writer.
func (v *visit) relayUpgrade() {
	upstream, ok := v.out.ReadCloser.(io.ReadWriteCloser)
	if !ok {
		v.w.bodyErr = &exchange.Failure{Code: exchange.Internal, Detail: "the upstream's connection cannot be written to"}
		return
	}
	c, rw, err := http.NewResponseController(v.w.ResponseWriter).Hijack()
	if err != nil {
		v.w.bodyErr = err
		return
	}
	u := &upgraded{client: takeOver(v.conn, c, rw), upstream: upstream}
	s := v.server
	s.tunnels.enter(u, int(^uint(0)>>1))
	defer s.tunnels.leave(u)
	idle := cutIdle(u, s.limits.tunnelIdle, &u.up, &u.down)
	defer idle.Stop()

	if err := writeHead(u.client, http.StatusSwitchingProtocols, "Switching Protocols", v.w.Header()); err != nil {
		u.cut(exchange.ClientGone, "")
	}
	var up sync.WaitGroup
	var late *time.Timer
	up.Go(func() {
		u.copy(upward, u.upstream, u.client)
		late = time.AfterFunc(farewell, func() { u.cut(exchange.OK, "") })
	})
	u.copy(downward, u.client, u.upstream)
	u.cut(exchange.OK, "")
	up.Wait()
	late.Stop()

	v.w.bytes = u.down.Load()
	v.Update(func(st *exchange.Story) {
		st.BytesIn = u.up.Load()
		if u.why != exchange.OK {
			st.Outcome, st.Detail = u.why, u.detail
		}
	})
}

// directions of an upgraded connection, and whom a failed read or write is laid to.
type direction struct{ source, sink exchange.Code }

var (
	upward   = direction{exchange.ClientGone, exchange.UpstreamReset}
	downward = direction{exchange.UpstreamReset, exchange.ClientGone}
)

// copy moves one direction until its source ends or one side breaks, which cuts both.
func (u *upgraded) copy(d direction, dst io.Writer, src io.Reader) {
	moved := &u.up
	if d == downward {
		moved = &u.down
	}
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	defer func() {
		if recover() != nil { // a stage's wrapper; the HTTP server's own recover does not reach here
			u.cut(exchange.Internal, "")
		}
	}()
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			wrote, failed := dst.Write(buf[:n])
			moved.Add(int64(wrote))
			if failed != nil {
				u.cut(d.sink, "")
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			u.cut(d.source, "")
			return
		}
	}
}

// cut ends both directions.
func (u *upgraded) cut(why exchange.Code, detail string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.why != "" {
		return
	}
	u.why, u.detail = why, detail
	_ = u.upstream.Close()
	_ = u.client.Close()
}
