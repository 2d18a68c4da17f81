package proxy

import (
	"net/http"
	"strings"

	"httpowerd/internal/proxy/wire"
)

// isHopByHop tells of the fields that are for one connection only, whether or not Connection names them (RFC 9110 section 7.6.1), and of all Proxy-* but
// Proxy-Status (RFC 9209), which is for everybody. Trailers are announced anew where there are any: a Trailer that was no part of a chunked message would have
// the fields that it names moved behind the body.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return strings.HasPrefix(name, "Proxy-") && name != "Proxy-Status"
}

// stripHopByHop removes what Connection names, and what is for one connection anyway.
func stripHopByHop(h http.Header) {
	stripNamed(h)
	for name := range h {
		if isHopByHop(name) {
			delete(h, name)
		}
	}
}

// stripNamed removes what Connection names.
func stripNamed(h http.Header) {
	for _, line := range h["Connection"] {
		for line != "" {
			var name string
			name, line, _ = strings.Cut(line, ",")
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
}

// cleanRequest removes hop-by-hop fields from a client's request and adds Via. Where the client wants to speak WebSocket, exactly that upgrade is
// written anew.
func (v *visit) cleanRequest(r *http.Request) {
	h := r.Header
	trailers := hasToken(h["Te"], "trailers")
	stripHopByHop(h)
	stripTrailers(r.Trailer)
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if v.websocket {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	addVia(h, v.via[:1], r.ProtoMajor, r.ProtoMinor, v.server)
}

// stripForeign removes what an upstream may not say to our client: what is for one connection, and what only we say. An empty Date is none: the server adds its own.
func stripForeign(h http.Header) {
	stripNamed(h)
	for name, values := range h {
		if isHopByHop(name) || strings.HasPrefix(name, "Httpowerd-") || name == "Date" && len(values) == 1 && values[0] == "" {
			delete(h, name)
		}
	}
}

// stripTrailers removes fields that may not come behind a body: software that merges trailers would take them for headers (RFC 9110 section 6.5.1). It is
// called when they are announced and when they have come. Of too many none is passed on, as section 6.5.1 allows.
func stripTrailers(t http.Header) {
	if len(t) > wire.MaxTrailers {
		clear(t)
	}
	for name := range t {
		if !wire.MayTrail(name) {
			delete(t, name)
		}
	}
}

// keepHead has trailers come unannounced whose names the head has too: of an announced name all values go behind the body, the head's as well, and those are no
// trailers (RFC 9110 section 6.5.1).
func keepHead(h, trailer http.Header) {
	for name := range trailer {
		if _, both := h[name]; both {
			delete(trailer, name)
		}
	}
}

// cleanResponse removes what an upstream may not say to our client, and adds Via and the exchange's id.
func (v *visit) cleanResponse(resp *http.Response, websocket bool) {
	h := resp.Header
	stripForeign(h)
	stripTrailers(resp.Trailer)
	keepHead(h, resp.Trailer)
	if websocket {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if websocket || resp.StatusCode == http.StatusNoContent {
		delete(h, "Content-Length") // a 101 and a 204 have no content (RFC 9110 section 8.6); a client takes one over HTTP/2 for cut off
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or the server would guess one from the body
	}
	addVia(h, v.via[1:], resp.ProtoMajor, resp.ProtoMinor, v.server)
	v.id[0] = v.ID
	h["Httpowerd-Request-Id"] = v.id[:]
}

// addVia appends our member (RFC 9110 section 7.6.3), naming the version of the message as it was received. room is for one that stands alone.
func addVia(h http.Header, room []string, major, minor int, s *Server) {
	member := s.via[1]
	switch {
	case major == 2:
		member = s.via[2]
	case major == 1 && minor == 0:
		member = s.via[0]
	}
	if had := h["Via"]; had != nil {
		h["Via"] = append(had, member)
		return
	}
	room[0] = member
	h["Via"] = room[:1:1]
}

// ownVia tells whether the request has been here before.
func ownVia(h http.Header, pseudonym string) bool {
	for _, line := range h["Via"] {
		if strings.Contains(line, pseudonym) {
			return true
		}
	}
	return false
}

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		if wire.HasMember(line, token) {
			return true
		}
	}
	return false
}

// wantsWebSocket tells whether the client asks for exactly that upgrade, and for no other beside it. It must agree with what guard read: where guard
// stopped reading, nothing but a 101 may keep the connection.
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 && hasToken(r.Header["Connection"], "upgrade") &&
		len(r.Header["Upgrade"]) == 1 && wire.EqualFold(r.Header["Upgrade"][0], "websocket")
}
