package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
)

const (
	heartbeat = 15 * time.Second // keeps middleboxes and viewers from believing that the stream is dead
	patience  = 10 * time.Second // for a viewer that does not read
)

// traffic streams audit records, which are redacted, as server-sent events until the viewer leaves or the daemon drains. A viewer that reads too
// slowly misses records.
func (h *Handler) traffic(c *call) *problem {
	want, p := wantedRecords(c.r)
	if p != nil {
		return p
	}
	if h.draining() {
		return leaving()
	}
	select {
	case h.viewers <- struct{}{}:
		defer func() { <-h.viewers }()
	default:
		return tooMany()
	}
	c.w.Header().Set("Content-Type", "text/event-stream")
	c.w.Header().Set("X-Accel-Buffering", "no") // a reverse proxy must not collect events
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	h.record(c, "traffic_read") // who reads the log is a part of it
	s := stream{c.w, http.NewResponseController(c.w)}
	_ = s.control.SetReadDeadline(time.Time{}) // the server's own would end the stream
	h.follow(c.r.Context(), s, want)
	return nil
}

func (h *Handler) follow(ctx context.Context, s stream, want func([]byte) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records := h.Traffic(ctx)
	if !s.write(": httpowerd\n\n") {
		return
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case line, ok := <-records:
			if !ok {
				return
			}
			if want(line) && !s.write("data: ", string(line), "\n\n") {
				return
			}
		case <-tick.C:
			if !s.write(": \n\n") {
				return
			}
		case <-ctx.Done():
			return
		case <-h.Leaving:
			return
		}
	}
}

// stream writes events, each with a deadline of its own.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) write(parts ...string) bool {
	_ = s.control.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.w.Write([]byte(strings.Join(parts, ""))); err != nil {
		return false
	}
	return s.control.Flush() == nil
}

// wantedRecords is the filter that the query asks for: host is a host's name or a pattern, outcome as records name it; each may be repeated.
func wantedRecords(r *http.Request) (func([]byte) bool, *problem) {
	q := r.URL.Query()
	for key := range q {
		if key != "host" && key != "outcome" {
			return nil, refuse(codeBadRequest, "the query may have host and outcome")
		}
	}
	hosts, outcomes := q["host"], q["outcome"]
	for i := range hosts {
		hosts[i] = strings.ToLower(hosts[i])
	}
	if len(hosts) == 0 && len(outcomes) == 0 {
		return func([]byte) bool { return true }, nil
	}
	return func(line []byte) bool {
		var x struct{ Host, Policy, Outcome string }
		if json.Unmarshal(line, &x) != nil {
			return false
		}
		return (len(hosts) == 0 || slices.Contains(hosts, x.Host) || x.Policy != "" && slices.Contains(hosts, exchange.PatternOf(x.Policy))) &&
			(len(outcomes) == 0 || slices.Contains(outcomes, x.Outcome))
	}, nil
}
