package wire

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair are the two sides of TLS with a certificate of its own.
func pair(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: roots, ServerName: "a.example.com"}
}

// secureListener is a server's, once or twice within TLS.
type secureListener struct {
	net.Listener
	config *tls.Config
	layers int
}

func (l secureListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	for range l.layers {
		if err == nil {
			c = tls.Server(&UnderTLS{Conn: c}, l.config)
			err = c.(*tls.Conn).Handshake()
		}
	}
	return c, err
}

// serveTLS starts a server within TLS.
func serveTLS(t testing.TB, layers int, handler http.HandlerFunc) (*Server, func() (*net.TCPConn, *tls.Conn)) {
	t.Helper()
	s, _ := serve(t, handler)
	server, client := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(secureListener{l, server, layers}) })
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return s, func() (*net.TCPConn, *tls.Conn) {
		c := dial(t, l.Addr().String())
		var top net.Conn = c.TCPConn
		for range layers {
			top = tls.Client(top, client)
			if err := top.(*tls.Conn).Handshake(); err != nil {
				t.Fatal(err)
			}
		}
		return c.TCPConn, top.(*tls.Conn)
	}
}

// resting tells whether every connection waits for a request in the way that needs no buffer.
func (s *Server) resting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if state := c.state.Load(); c.tls == nil || state != parked && state != nudged && state != rested {
			return false
		}
	}
	return true
}

// TestIdleTLS: requests within TLS are read whatever way they come, and a client that waits is waited for at its socket.
func TestIdleTLS(t *testing.T) {
	if !rawCalls {
		t.Skip("sockets cannot be asked here")
	}
	long := strings.Repeat("y", 40<<10)
	for layers := 1; layers <= 2; layers++ {
		s, open := serveTLS(t, layers, echo)
		_, c := open()
		r := bufio.NewReader(c)
		ask := func(want ...string) {
			t.Helper()
			for _, w := range want {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(b), w) {
					t.Fatalf("%q, %v; want %q", b, err, w)
				}
			}
		}
		send := func(text string) {
			t.Helper()
			if _, err := io.WriteString(c, text); err != nil {
				t.Fatal(err)
			}
		}
		one := "GET /one HTTP/1.1\r\n" + at + "\r\n"
		for range 3 {
			send(one)
			ask("GET /one")
			eventually(t, "it waits", s.resting)
		}
		send(one + strings.Replace(one, "one", "two", 1)) // in one record
		ask("GET /one", "GET /two")
		send(one[:5])
		time.Sleep(5 * time.Millisecond)
		send(one[5:])
		ask("GET /one")
		send("POST /long HTTP/1.1\r\n" + at + "Content-Length: 40960\r\n\r\n" + long + one) // more than a record and than a buffer
		ask("POST /long", "GET /one")
		eventually(t, "it waits", s.resting)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
	}
}

// TestIdleTLSPieces: a record that comes byte by byte is waited for without a busy loop, and read when it is whole.
func TestIdleTLSPieces(t *testing.T) {
	if !rawCalls {
		t.Skip("sockets cannot be asked here")
	}
	server, client := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, _ := serve(t, echo)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		secure := tls.Server(&UnderTLS{Conn: c}, server)
		if secure.Handshake() == nil {
			s.ServeConn(secure)
		}
	})
	socket := dial(t, l.Addr().String())
	pieces := &inPieces{Conn: socket.TCPConn}
	c := tls.Client(pieces, client)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	pieces.on = true
	if _, err := io.WriteString(c, "GET /slow HTTP/1.1\r\n"+at+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), "GET /slow") {
		t.Errorf("%q", b)
	}
	_ = c.Close()
}

// inPieces sends byte by byte.
type inPieces struct {
	net.Conn
	on bool
}

func (p *inPieces) Write(b []byte) (int, error) {
	if !p.on {
		return p.Conn.Write(b)
	}
	for i := range b {
		if _, err := p.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		if i%8 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return len(b), nil
}

// TestPatient: what reads a tunnel through TLS has a buffer only while there is something, and tells a goodbye from an end within a record.
func TestPatient(t *testing.T) {
	if !rawCalls {
		t.Skip("sockets cannot be asked here")
	}
	server, client := pair(t)
	for _, broken := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		socket := dial(t, l.Addr().String())
		below, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		top := tls.Server(&UnderTLS{Conn: below}, server)
		c := tls.Client(socket.TCPConn, client)
		var wg sync.WaitGroup
		wg.Go(func() { _ = c.Handshake() })
		if err := top.Handshake(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		held, buf := 0, make([]byte, 1<<10)
		p := NewPatient(top)
		read := func() (string, error) {
			n, err := p.Read(func() []byte { held++; return buf }, func() { held-- })
			if n > 0 {
				held--
			}
			return string(buf[:n]), err
		}
		_, _ = io.WriteString(c, "hello")
		if text, err := read(); text != "hello" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		if broken {
			_, _ = socket.Write([]byte{23, 3, 3, 0, 99, 1})
			_ = socket.CloseWrite()
		} else {
			_ = c.CloseWrite()
		}
		want := io.EOF
		if broken {
			want = io.ErrUnexpectedEOF
		}
		if text, err := read(); text != "" || err != want {
			t.Errorf("%q, %v; want %v", text, err, want)
		}
		if held != 0 {
			t.Errorf("%d buffers are held", held)
		}
		_ = top.Close()
	}
}
