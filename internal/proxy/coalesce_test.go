package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/proxy/intercept"
)

func http2Frame(kind, flags byte, payload string) string {
	head := []byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(binary.BigEndian.AppendUint32(head, 1)) + payload
}

// TestCoalescer: only HEADERS that their stream's DATA must follow wait, for as long as the table says, and all arrives in order.
func TestCoalescer(t *testing.T) {
	const data, headers, continuation = 0, 1, 9
	head := http2Frame(headers, 4, "head")
	short := http2Frame(data, 1, "data")
	long := http2Frame(data, 1, strings.Repeat("l", holdMost))
	type record struct {
		text string
		at   time.Duration
	}
	for name, row := range map[string]struct {
		writes []string // "urgent" and "1ms" are none
		want   []record
	}{
		"answer":               {[]string{head, short}, []record{{head + short, 0}}},
		"two answers":          {[]string{head, short, head, short}, []record{{head + short, 0}, {head + short, 0}}},
		"two heads":            {[]string{head, head, short, short}, []record{{head + head + short, 0}, {short, 0}}},
		"head alone":           {[]string{head}, []record{{head, holdTime}}},
		"head, then late data": {[]string{head, "1ms", short}, []record{{head, holdTime}, {short, holdTime}}},
		"after the timer rang": {[]string{head, short, "1ms", "1ms", head, short}, []record{{head + short, 0}, {head + short, 2 * holdTime}}},
		"urgent":               {[]string{"urgent", head, short}, []record{{head, 0}, {short, 0}}},
		"urgent once":          {[]string{"urgent", head, short, head, short}, []record{{head, 0}, {short, 0}, {head + short, 0}}},
		"no content":           {[]string{http2Frame(headers, 5, "end")}, []record{{http2Frame(headers, 5, "end"), 0}}},
		"long head":            {[]string{http2Frame(headers, 0, "a"), http2Frame(continuation, 4, "b")}, []record{{http2Frame(headers, 0, "a"), 0}, {http2Frame(continuation, 4, "b"), 0}}},
		"more data than fits":  {[]string{head, long}, []record{{head, 0}, {long[:16<<10], 0}, {long[16<<10:], 0}}},
		"cut within a header":  {[]string{short + head[:5], head[5:], short}, []record{{short + head[:5], 0}, {head[5:] + short, 0}}},
		"cut within a payload": {[]string{head[:10], head[10:], short[:11], short[11:] + head, short}, []record{{head[:10], 0}, {head[10:] + short[:11], 0}, {short[11:] + head + short, 0}}},
		"a head in data":       {[]string{http2Frame(data, 0, head)[:9], head}, []record{{http2Frame(data, 0, head)[:9], 0}, {head, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			ca, err := intercept.Open(intercept.Config{Dir: filepath.Join(t.TempDir(), "ca")})
			if err != nil {
				t.Fatal(err)
			}
			config := ca.ServerConfig("example.com", true).Clone()
			config.DynamicRecordSizingDisabled = true
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				server := tls.Server(near, config)
				client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
				var got []record
				begin := time.Time{}
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					buf := make([]byte, 32<<10)
					for {
						n, err := client.Read(buf)
						if err != nil {
							return
						}
						got = append(got, record{string(buf[:n]), time.Since(begin)})
					}
				}()
				if err := server.Handshake(); err != nil {
					t.Fatal(err)
				}
				c := &coalescer{Conn: server}
				begin = time.Now()
				for _, text := range row.writes {
					switch text {
					case "urgent":
						(&conn{answers: c}).hurry()
					case "1ms":
						time.Sleep(holdTime)
						synctest.Wait()
					default:
						if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
							t.Fatal(n, err)
						}
					}
				}
				time.Sleep(time.Second)
				_ = c.Close()
				<-ended
				if !slices.Equal(got, row.want) {
					t.Errorf("%.300v", got)
				}
			})
		})
	}
}

// TestCoalescerEnds: what the timer could not write is said by the next write.
func TestCoalescerEnds(t *testing.T) {
	ca, err := intercept.Open(intercept.Config{Dir: filepath.Join(t.TempDir(), "ca")})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	server := tls.Server(near, ca.ServerConfig("example.com", true))
	shaken := make(chan error)
	go func() {
		shaken <- tls.Client(far, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).Handshake()
		_, _ = far.Read(make([]byte, 1<<10)) // tickets
	}()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	c := &coalescer{Conn: server}
	if _, err := c.Write([]byte(http2Frame(1, 4, "head"))); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * holdTime)
	if _, err := c.Write([]byte(http2Frame(6, 0, "01234567"))); err == nil {
		t.Error("a write to a connection that is gone")
	}
}

// TestRoom: how much a client may send is counted, however the bytes of frames come; who has too much is to open another connection, and loses this one before net/http panics.
func TestRoom(t *testing.T) {
	const data, headers, settings, windowUpdate = 0, 1, 4, 8
	update := func(stream, by uint32) string {
		frame := []byte(http2Frame(windowUpdate, 0, string(binary.BigEndian.AppendUint32(nil, by))))
		binary.BigEndian.PutUint32(frame[5:], stream)
		return string(frame)
	}
	written := update(0, 1<<20) + http2Frame(headers, 4, update(0, 9)) + update(1, 1<<30) + update(0, 1) + http2Frame(data, 0, update(0, 9)) + http2Frame(data, 1, "")
	read := http2Frame(settings, 0, "") + http2Frame(data, 0, strings.Repeat("d", 300)) + http2Frame(headers, 4, "fields") + http2Frame(data, 8, "\x02dpp") + http2Frame(data, 1, "")
	for _, size := range []int{1, 3, 9, 10, 12, len(read)} {
		var out answerScan
		for part := range slices.Chunk([]byte(written), size) {
			out.pass(part)
		}
		in := fieldTable{size: usedTable}
		for part := range slices.Chunk([]byte(read), size) {
			if err := in.pass(part); err != nil {
				t.Fatal(err)
			}
		}
		if out.granted != 1<<20+1 || in.data != 304 {
			t.Errorf("%d bytes at a time: %d granted, %d used", size, out.granted, in.data)
		}
	}
	near, far := net.Pipe()
	_, _ = near.Close(), far.Close()
	for _, row := range []struct {
		before     int64
		worn, over bool
	}{{firstRoom, false, false}, {wornRoom - 1, false, false}, {wornRoom, true, false}, {mostRoom - 1, true, false}, {mostRoom, true, true}} {
		c := &coalescer{Conn: tls.Client(near, &tls.Config{InsecureSkipVerify: true})}
		c.room.Store(row.before)
		_, err := c.Write([]byte(update(0, 1)))
		if worn := (&conn{answers: c}).worn(); worn != row.worn || (err == errTooMuchRoom) != row.over {
			t.Errorf("with room for %d and one more: worn %t, %v", row.before, worn, err)
		}
	}
	if (&conn{}).worn() {
		t.Error("a connection of HTTP/1 is worn")
	}
}
