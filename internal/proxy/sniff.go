package proxy

import "encoding/binary"

// protocol is what a tunnel's first bytes from the client are.
type protocol uint8

const (
	undecided protocol = iota // more bytes are needed
	opaque                    // none of the others
	plainHTTP                 // an HTTP/1 request in the clear
	tlsHello                  // a whole TLS ClientHello
)

// sniffLimit bounds how much of a first message is kept. A ClientHello that is longer is refused unread: the longest seen, with post-quantum key
// shares and padding, are below 4 KiB.
const sniffLimit = 64 << 10

// hello is what a ClientHello tells.
type hello struct {
	serverName string // "": it has none
	encrypted  bool   // there may be another one inside (RFC 9849), whose name nobody here can read. Browsers say so of hellos without one too
}

// sniffer looks at a client's first bytes while they come.
type sniffer struct {
	message []byte // of TLS, without what its records add
	at      int    // how much of the bytes is in it, or skipped
	left    int    // of a record
	skips   bool   // the record, which is of another kind
}

// sniff is given all bytes there are each time.
func (s *sniffer) sniff(b []byte) (protocol, hello) {
	if len(b) == 0 {
		return undecided, hello{}
	}
	if beginsTLS(b[0]) {
		return s.sniffHello(b)
	}
	return sniffHTTP(b), hello{}
}

// beginsTLS tells whether a record with a ClientHello, or one that a server may pass over in front of it, can begin so.
func beginsTLS(first byte) bool {
	switch first {
	case recordHandshake, recordAlert, recordCipherSpec, recordHeartbeat:
		return true
	}
	return false
}

// sniffHTTP recognises METHOD SP and a target as a proxy or an origin gets it. HTTP/2's preface has a target of neither form.
func sniffHTTP(b []byte) protocol {
	const longestMethod = 24
	i := 0
	for i < len(b) && i < longestMethod && (b[i] >= 'A' && b[i] <= 'Z' || b[i] == '-' && i > 0) {
		i++
	}
	switch {
	case i == len(b):
		return undecided
	case i == 0 || b[i] != ' ':
		return opaque
	case i+1 == len(b):
		return undecided
	case b[i+1] == '/':
		return plainHTTP
	}
	for _, form := range []string{"http://", "https://", "* HTTP/1."} {
		switch rest := b[i+1:]; {
		case len(rest) < len(form) && form[:len(rest)] == string(rest):
			return undecided
		case len(rest) >= len(form) && string(rest[:len(form)]) == form:
			return plainHTTP
		}
	}
	return opaque
}

// Numbers of TLS (RFC 8446 sections 4, 5.1, 5.2, RFC 6066 section 3, RFC 6520 section 3 and RFC 9849 section 5).
const (
	recordHeader        = 5
	recordCipherSpec    = 20
	recordAlert         = 21
	recordHandshake     = 22
	recordData          = 23
	recordHeartbeat     = 24
	messageClientHello  = 1
	extensionServerName = 0
	extensionEncrypted  = 0xfe0d
	nameTypeHost        = 0
)

// sniffHello reads a ClientHello, which may be spread over several records, with others before and between. It goes by the message, as servers do: some
// take records of versions that are none, and pass over alerts.
func (s *sniffer) sniffHello(all []byte) (protocol, hello) {
	for {
		b := all[s.at:]
		if s.left == 0 {
			if len(b) < recordHeader {
				return undecided, hello{}
			}
			length, ok := recordLength(b)
			if !ok {
				return opaque, hello{}
			}
			s.at, s.left, s.skips = s.at+recordHeader, length, b[0] != recordHandshake
			continue
		}
		part := b[:min(len(b), s.left)]
		if len(part) == 0 {
			return undecided, hello{}
		}
		s.at, s.left = s.at+len(part), s.left-len(part)
		if s.skips {
			continue
		}
		s.message = append(s.message, part...)
		if s.message[0] != messageClientHello {
			return opaque, hello{}
		}
		if m := s.message; len(m) >= 4 {
			want := 4 + int(m[1])<<16 + int(m[2])<<8 + int(m[3])
			if len(m) >= want {
				h, ok := parseHello(m[4:want])
				if !ok {
					return opaque, hello{}
				}
				return tlsHello, h
			}
		}
	}
}

// recordLength is the length of a record that may come before a ClientHello's end; false: it may not. Beside handshakes those are strict, as the bytes of another
// protocol that look so are held back: an alert has two bytes, which may come apart, and a change of ciphers one.
func recordLength(header []byte) (length int, ok bool) {
	const most = 1<<14 + 2<<10
	length = int(binary.BigEndian.Uint16(header[3:]))
	switch header[0] {
	case recordHandshake:
		ok = length <= most
	case recordAlert:
		ok = length <= 2
	case recordCipherSpec:
		ok = length <= 1
	case recordHeartbeat:
		ok = length <= most && header[1] == 3
	}
	return length, ok
}

// fields reads what a TLS message is made of; ok turns false at the first that is cut short.
type fields struct {
	b  []byte
	ok bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.b) {
		f.ok, f.b = false, nil
		return nil
	}
	head := f.b[:n]
	f.b = f.b[n:]
	return head
}

func (f *fields) number(bytes int) (n int) {
	for _, c := range f.take(bytes) {
		n = n<<8 | int(c)
	}
	return n
}

// vector is a field with its length before it.
func (f *fields) vector(lengthBytes int) fields {
	return fields{f.take(f.number(lengthBytes)), f.ok}
}

// parseHello reads a ClientHello's body.
func parseHello(body []byte) (h hello, ok bool) {
	f := fields{body, true}
	f.take(2 + 32) // version, random
	f.vector(1)    // session id
	f.vector(2)    // cipher suites
	f.vector(1)    // compression methods
	if !f.ok || len(f.b) == 0 {
		return h, f.ok
	}
	extensions := f.vector(2)
	named := false
	for f.ok && extensions.ok && len(extensions.b) > 0 {
		kind := extensions.number(2)
		body := extensions.vector(2)
		switch {
		case kind == extensionEncrypted:
			h.encrypted = true
		case kind == extensionServerName && !named:
			named = true
			names := body.vector(2)
			for names.ok && len(names.b) > 0 && h.serverName == "" {
				nameType := names.number(1)
				host := names.vector(2)
				if nameType == nameTypeHost && names.ok {
					h.serverName = string(host.b)
				}
			}
			if !names.ok {
				return hello{}, false
			}
		}
	}
	return h, f.ok && extensions.ok
}

// closesTLS reports whether b are whole TLS records and the last of them is an alert, as a close_notify is. TLS 1.3 hides which records are alerts,
// but not that they are short: two bytes, one for what it is, and the cipher's tag of 16.
func closesTLS(b []byte) bool {
	const hiddenAlert = 2 + 1 + 16
	for len(b) > recordHeader && b[1] == 3 {
		kind, length := b[0], int(binary.BigEndian.Uint16(b[3:]))
		b = b[recordHeader:]
		if length == len(b) {
			return kind == recordAlert || kind == recordData && length == hiddenAlert
		}
		b = b[min(length, len(b)):]
	}
	return false
}
