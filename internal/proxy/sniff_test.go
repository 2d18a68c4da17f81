package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// clientHello is what crypto/tls sends first for a name.
func clientHello(t testing.TB, name string) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() // fails: nobody answers
		client.Close()
	}()
	b := make([]byte, 1<<14)
	_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := server.Read(b)
	for err == nil && n < 5+int(binary.BigEndian.Uint16(b[3:])) {
		var more int
		more, err = server.Read(b[n:])
		n += more
	}
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// split spreads a handshake message over records of at most size bytes.
func split(record []byte, size int) (out []byte) {
	message := record[5:]
	for len(message) > 0 {
		n := min(size, len(message))
		out = append(out, recordHandshake, 3, 1, byte(n>>8), byte(n))
		out = append(out, message[:n]...)
		message = message[n:]
	}
	return out
}

func TestSniffTLS(t *testing.T) {
	hello := clientHello(t, "api.example.com")
	nameless := clientHello(t, "192.0.2.1") // crypto/tls sends no name for an address
	const alert = "\x15\x03\x01\x00\x02\x01\x5a"
	of := func(version string) []byte { return append([]byte("\x16"+version), hello[3:]...) }
	behind := func(before string) []byte { return append([]byte(before), hello...) }
	among := split(hello, 100)
	among = slices.Concat(among[:105], []byte(alert), among[105:])
	for name, c := range map[string]struct {
		in   []byte
		want protocol
		sni  string
	}{
		"whole":         {hello, tlsHello, "api.example.com"},
		"and more":      {append(append([]byte{}, hello...), "extra"...), tlsHello, "api.example.com"},
		"no name":       {nameless, tlsHello, ""},
		"two records":   {split(hello, 100), tlsHello, "api.example.com"},
		"many records":  {split(hello, 1), tlsHello, "api.example.com"},
		"one byte":      {hello[:1], undecided, ""},
		"half":          {hello[:len(hello)/2], undecided, ""},
		"not a hello":   {[]byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, opaque, ""},
		"empty record":  {[]byte{22, 3, 1, 0, 0}, undecided, ""},
		"alert":         {[]byte(alert), undecided, ""},
		"long alert":    {[]byte{21, 3, 1, 0, 3}, opaque, ""},
		"data":          {[]byte{23, 3, 3, 0, 20}, opaque, ""},
		"long record":   {[]byte{22, 3, 1, 0x50, 0}, opaque, ""},
		"heartbeat 9":   {[]byte{24, 9, 9, 0, 3}, opaque, ""},
		"alert, text":   {[]byte(alert + "hello"), opaque, ""},
		"version 2.3":   {of("\x02\x03"), tlsHello, "api.example.com"},
		"version 4.1":   {of("\x04\x01"), tlsHello, "api.example.com"},
		"behind alert":  {behind(alert), tlsHello, "api.example.com"},
		"behind alerts": {behind(strings.Repeat(alert, 20)), tlsHello, "api.example.com"},
		"alert apart":   {behind("\x15\x03\x01\x00\x01\x01\x15\x03\x01\x00\x01\x5a"), tlsHello, "api.example.com"},
		"behind odd":    {behind("\x15\x05\x01\x00\x02\x01\x5a"), tlsHello, "api.example.com"},
		"among alerts":  {among, tlsHello, "api.example.com"},
		"behind cipher": {behind("\x14\x03\x03\x00\x01\x01"), tlsHello, "api.example.com"},
		"behind beat":   {behind("\x18\x03\x01\x00\x03\x01\x00\x00"), tlsHello, "api.example.com"},
		"behind empty":  {behind("\x16\x03\x01\x00\x00"), tlsHello, "api.example.com"},
		"garbled":       {append([]byte{22, 3, 1, 0, 44, 1, 0, 0, 40}, strings.Repeat("\xff", 40)...), opaque, ""},
	} {
		if what, said := new(sniffer).sniff(c.in); what != c.want || said.serverName != c.sni {
			t.Errorf("%s: %d %q; want %d %q", name, what, said.serverName, c.want, c.sni)
		}
	}
	for i := range hello {
		if what, _ := new(sniffer).sniff(hello[:i]); what != undecided {
			t.Fatalf("%d of %d bytes: %d", i, len(hello), what)
		}
	}
}

func TestSniffHTTP(t *testing.T) {
	for in, want := range map[string]protocol{
		"":                                 undecided,
		"GET / HTTP/1.1\r\n":               plainHTTP,
		"GET /":                            plainHTTP,
		"M-SEARCH /":                       plainHTTP,
		"POST http://api.example.com/":     plainHTTP,
		"GET https://api.example.com/":     plainHTTP,
		"OPTIONS * HTTP/1.1\r\n":           plainHTTP,
		"GE":                               undecided,
		"GET ":                             undecided,
		"GET htt":                          undecided,
		"OPTIONS * HT":                     undecided,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": opaque,
		"SSH-2.0-OpenSSH_9.2\r\n":          opaque,
		"NICK joe\r\n":                     opaque,
		"PING\r\n":                         opaque,
		"CONNECT {\"verbose\":false}\r\n":  opaque,
		"OPTIONS rtsp://camera/\r\n":       opaque,
		"OPTIONS * RTSP/1.0\r\n":           opaque,
		"get / HTTP/1.1\r\n":               opaque,
		" GET /":                           opaque,
		"\x00\x01":                         opaque,
		"\x80\x2e\x01":                     opaque,
		strings.Repeat("A", 30):            opaque,
		strings.Repeat("A", 25):            opaque,
		strings.Repeat("A", 24):            undecided,
		strings.Repeat("A", 24) + " /":     plainHTTP,
	} {
		if got, _ := new(sniffer).sniff([]byte(in)); got != want {
			t.Errorf("%q: %d; want %d", in, got, want)
		}
	}
}

// FuzzSniff: no input breaks it, what is decided stays decided when more comes, and what crypto/tls takes for a ClientHello it does too.
func FuzzSniff(f *testing.F) {
	const alert = "\x15\x03\x01\x00\x02\x01\x5a"
	sent := clientHello(f, "api.example.com")
	f.Add(sent, []byte("x"))
	f.Add(append([]byte(alert), sent...), []byte("x"))
	f.Add(append([]byte("\x16\x04\x01"), sent[3:]...), []byte("x"))
	f.Add(split(sent, 100), []byte(alert))
	f.Add([]byte("GET / HTTP/1.1\r\n"), []byte("x"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0}, []byte{0, 1, 9})
	f.Add([]byte(strings.Repeat("A", 24)+" "), []byte("/"))
	f.Fuzz(func(t *testing.T, head, more []byte) {
		what, said := new(sniffer).sniff(head)
		var s sniffer
		slow, then := undecided, hello{}
		for i := 0; i < len(head) && slow == undecided; i++ {
			slow, then = s.sniff(head[:i+1])
		}
		if slow != what || then != said {
			t.Fatalf("%d %+v, byte by byte %d %+v", what, said, slow, then)
		}
		if taken := served(head); taken != nil && (what != tlsHello || said.serverName != taken.ServerName) {
			t.Fatalf("%d %+v, crypto/tls serves %q", what, said, taken.ServerName)
		}
		if what == undecided {
			return
		}
		if again, then := new(sniffer).sniff(append(append([]byte{}, head...), more...)); again != what || then != said {
			t.Fatalf("%d %+v became %d %+v", what, said, again, then)
		}
	})
}

// served is the ClientHello that crypto/tls reads; nil: none.
func served(head []byte) (hello *tls.ClientHelloInfo) {
	client := &read{in: bytes.NewReader(head)}
	_ = tls.Server(client, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, io.EOF
	}}).Handshake()
	return hello
}

// read is a connection on which everything has been sent.
type read struct {
	net.Conn
	in *bytes.Reader
}

func (r *read) Read(p []byte) (int, error)       { return r.in.Read(p) }
func (r *read) Write(p []byte) (int, error)      { return len(p), nil }
func (r *read) Close() error                     { return nil }
func (r *read) SetDeadline(time.Time) error      { return nil }
func (r *read) SetWriteDeadline(time.Time) error { return nil }

func BenchmarkSniffTLS(b *testing.B) {
	hello := clientHello(b, "api.example.com")
	b.ReportAllocs()
	for b.Loop() {
		new(sniffer).sniff(hello)
	}
}

func TestClosesTLS(t *testing.T) {
	record := func(kind, length byte) string {
		return string([]byte{kind, 3, 3, 0, length}) + strings.Repeat("\x00", int(length))
	}
	for name, c := range map[string]struct {
		in   string
		want bool
	}{
		"in clear":             {record(recordAlert, 2), true},
		"TLS 1.2":              {record(recordAlert, 26), true},
		"TLS 1.3":              {record(recordData, 19), true},
		"behind data":          {record(recordData, 60) + record(recordData, 19), true},
		"before data":          {record(recordData, 19) + record(recordData, 60), false},
		"data":                 {record(recordData, 60), false},
		"short data":           {record(recordData, 20), false},
		"a handshake":          {record(recordHandshake, 19), false},
		"cut short":            {record(recordData, 19)[:20], false},
		"with something after": {record(recordData, 19) + "x", false},
		"half a header after":  {record(recordData, 19) + "\x17\x03\x03\x00\x13", false},
		"nothing":              {"", false},
		"not TLS":              {"quit\r\n", false},
	} {
		if got := closesTLS([]byte(c.in)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
