package audit

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"httpowerd/internal/setting"
)

const (
	// syslogPriority is log audit (13), informational (6).
	syslogPriority = 13*8 + 6

	dialTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second

	// maxDatagram is what UDP carries over IPv4. Receivers may take less.
	maxDatagram = 65_507
	// chunkOut is about how much one write takes.
	chunkOut = 64 << 10
	// uncertain is how much may be on its way without our knowing whether it arrived: the kernel's buffers, which are told to be smaller.
	uncertain = 1 << 20
	sendRoom  = 256 << 10
	// settled is after what time a connection that still stands is taken as proof of what was sent before.
	settled = time.Minute
	// unacknowledged ends a connection whose peer acknowledges nothing, long before settled.
	unacknowledged = 30 * time.Second
)

// syslog sends records as RFC 5424 messages: a datagram each (RFC 5426, or a local socket), or with their length in front over TCP (RFC 6587) and TLS
// (RFC 5425). No such transport says that a record has arrived: after a connection was lost, what was sent lately is sent again, and seq tells
// the receiver which ones it has.
type syslog struct {
	target setting.Target
	files  TLSFiles
	header []byte // behind the time
	stream bool

	conn    net.Conn
	gone    atomic.Bool // the peer closed it, or it broke
	reader  sync.WaitGroup
	recent  [][]byte // lines that may not have arrived
	times   []time.Time
	bytes   int
	resend  int // how many of recent are still to be sent again
	toolong int
	frames  []byte
}

func newSyslog(t setting.Target, files TLSFiles) *syslog {
	host, err := os.Hostname()
	if err != nil || host == "" || len(host) > 255 || bytes.ContainsFunc([]byte(host), func(r rune) bool { return r <= ' ' || r > '~' }) {
		host = "-"
	}
	s := &syslog{target: t, files: files, stream: t.Scheme == setting.SyslogTCP || t.Scheme == setting.SyslogTLS}
	s.header = fmt.Appendf(nil, " %s httpowerd %d audit - ", host, os.Getpid())
	return s
}

// message appends the syslog message of a record.
func (s *syslog) message(b, line []byte) []byte {
	b = append(b, "<"+strconv.Itoa(syslogPriority)+">1 "...)
	if _, ok := timeOf(line); ok {
		b = append(append(b, line[len(opening):len(opening)+len("2006-01-02T15:04:05.000000")]...), 'Z') // six digits are all that the RFC allows
	} else {
		b = append(b, '-')
	}
	return append(append(b, s.header...), line...)
}

func (s *syslog) connect() error {
	if s.conn != nil && !s.gone.Load() {
		return nil
	}
	s.drop()
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	network := map[string]string{setting.SyslogUnix: "unixgram", setting.SyslogUDP: "udp"}[s.target.Scheme]
	if network == "" {
		network = "tcp"
	}
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	c, err := d.DialContext(ctx, network, s.target.Address)
	if err != nil {
		return err
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(sendRoom)
		giveUpAfter(t, unacknowledged)
	}
	if s.target.Scheme == setting.SyslogTLS {
		if c, err = s.secure(ctx, c); err != nil {
			return err
		}
	}
	s.conn, s.resend = c, len(s.recent)
	s.gone.Store(false)
	if s.stream {
		s.reader.Go(func() { // syslog receivers say nothing: what comes is the end
			_, _ = io.Copy(io.Discard, c)
			s.gone.Store(true)
		})
	}
	return nil
}

func (s *syslog) secure(ctx context.Context, c net.Conn) (net.Conn, error) {
	config, err := s.files.config(s.target.Address)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

// drop closes the connection. What was sent over it lately is sent again over the next one.
func (s *syslog) drop() {
	if s.conn == nil {
		return
	}
	_ = s.conn.Close()
	s.reader.Wait()
	s.conn = nil
}

// Write sends whole lines.
func (s *syslog) Write(lines []byte) (n int, err error) {
	if err := s.again(); err != nil {
		return 0, err
	}
	for n < len(lines) {
		sent, err := s.some(lines[n:], true)
		n += sent
		if err != nil {
			s.drop()
			return n, err
		}
	}
	return n, nil
}

// again connects, and sends what may have been lost with the connection before.
func (s *syslog) again() error {
	if err := s.connect(); err != nil {
		return err
	}
	for s.resend > 0 {
		at := len(s.recent) - s.resend
		if _, err := s.some(s.recent[at], false); err != nil {
			s.drop()
			return err
		}
		s.resend--
		s.times[at] = time.Now()
	}
	return nil
}

// some sends the first of the lines: one datagram, or as many as a write should take.
func (s *syslog) some(lines []byte, remember bool) (int, error) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if !s.stream {
		line := firstLine(lines)
		return len(line), s.datagram(line, remember)
	}
	s.frames = s.frames[:0]
	n := 0
	for n < len(lines) && len(s.frames) < chunkOut {
		line := firstLine(lines[n:])
		n += len(line)
		start := len(s.frames)
		s.frames = s.message(s.frames, bytes.TrimSuffix(line, []byte{'\n'}))
		length := strconv.AppendInt(nil, int64(len(s.frames)-start), 10)
		s.frames = append(s.frames, make([]byte, len(length)+1)...)
		copy(s.frames[start+len(length)+1:], s.frames[start:len(s.frames)-len(length)-1])
		copy(s.frames[start:], append(length, ' '))
	}
	if _, err := s.conn.Write(s.frames); err != nil {
		return 0, err
	}
	if remember {
		s.remember(lines[:n])
	}
	if cap(s.frames) > keepBuffer {
		s.frames = nil
	}
	return n, nil
}

func (s *syslog) datagram(line []byte, remember bool) error {
	s.frames = s.message(s.frames[:0], bytes.TrimSuffix(line, []byte{'\n'}))
	if s.target.Scheme == setting.SyslogUDP && len(s.frames) > maxDatagram {
		s.toolong++
		return nil
	}
	_, err := s.conn.Write(s.frames)
	if errors.Is(err, syscall.EMSGSIZE) {
		s.toolong++
		return nil
	}
	if err == nil && remember {
		s.remember(line)
	}
	return err
}

// remember keeps what was sent until it is certain.
func (s *syslog) remember(lines []byte) {
	s.recent, s.times, s.bytes = append(s.recent, bytes.Clone(lines)), append(s.times, time.Now()), s.bytes+len(lines)
	s.forget()
}

func (s *syslog) forget() {
	n, now := 0, time.Now()
	for n < len(s.recent) && (s.bytes > uncertain && n < len(s.recent)-1 || now.Sub(s.times[n]) > settled) {
		s.bytes -= len(s.recent[n])
		n++
	}
	if n == 0 {
		return
	}
	s.recent, s.times = append(s.recent[:0:0], s.recent[n:]...), append(s.times[:0:0], s.times[n:]...)
	s.resend = min(s.resend, len(s.recent))
}

// Sync looks whether the connection still stands, and if not sends again what may be lost.
func (s *syslog) Sync() error {
	if s.conn != nil && !s.gone.Load() {
		if s.resend == 0 {
			s.forget()
		}
		return nil
	}
	if len(s.recent) == 0 {
		return nil
	}
	return s.again()
}

func (s *syslog) Reopen() (bool, error) { return false, nil }

func (s *syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	if t, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite()
	}
	s.drop()
	return nil
}

func (s *syslog) pending() bool { return len(s.recent) > 0 }

func (s *syslog) unsendable() int {
	n := s.toolong
	s.toolong = 0
	return n
}
