package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/trace"
	"httpowerd/internal/proxy/wire"
)

// ServeHTTP is the way of every request, on a listener, in an intercepted connection or in a tunnel with plaintext inside: audit, problem, clean,
// match, access, then the policy's chain.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		growStack(false)
	}
	if r.ProtoMajor == 2 || s.wireOuter == nil {
		s.served.Add(1)
		defer s.served.Add(-1)
	}
	v := s.newVisit(w, r)
	defer v.finish()
	if refusal := v.conn.refusal; refusal != nil && r.Host == marker.host {
		v.Method, v.URL = "", ""
		v.answer(refusal)
		return
	}
	v.websocket = wantsWebSocket(r)
	ctx := exchange.NewContext(r.Context(), &v.Exchange)
	t := v.conn.tunnel
	overHTTP2 := r.ProtoMajor == 2 && t == nil // to an HTTPS listener
	if r.Method == http.MethodConnect && overHTTP2 {
		if err := s.connectRefusal(r); err != nil {
			v.answer(err)
			return
		}
		v.connectStream(w, r)
		return
	}
	if r.Method == http.MethodConnect && t == nil {
		s.door.ServeHTTP(&v.w, r.WithContext(ctx))
		return
	}
	if t != nil && t.context != nil {
		ctx = t.context(ctx)
	}
	v.request = *r.WithContext(ctx)
	out := &v.request
	err := s.unguarded(out)
	if err == nil && overHTTP2 {
		err = absolute(out)
		v.raw.RequestURI = out.RequestURI
	}
	if err == nil {
		err = v.target(out)
	}
	if err == nil {
		err = v.identify(out.Header)
	}
	if err != nil {
		v.answer(err)
		return
	}
	v.seenBefore = ownVia(out.Header, s.pseudonym)
	v.cleanRequest(out)
	s.door.ServeHTTP(&v.w, out)
}

// refused answers a head that must not be served.
func (s *Server) refused(w http.ResponseWriter, r *http.Request, why *exchange.Refusal) {
	v := s.newVisit(w, r)
	defer v.finish()
	v.Method, v.URL = "", ""
	v.answer(why)
}

// unguarded looks at what HTTP/2 lets through and guard would not.
func (s *Server) unguarded(r *http.Request) error {
	if r.ProtoMajor != 2 {
		return nil
	}
	if err := wire.CheckSize(r, s.limits.headerBytes); err != nil {
		return err
	}
	if !wire.IsMethod(r.Method) {
		return wire.RefuseHead("the method has a character that none may have")
	}
	for name := range r.Header {
		if strings.ContainsAny(name, "_.") && wire.AliasesFraming([]byte(name)) {
			return wire.RefuseHead("a header field name imitates one that frames the message")
		}
	}
	if r.Header.Get("Expect") != "" { // the server has taken 100-continue away
		return wire.RefuseExpectation()
	}
	for _, host := range r.Header["Host"] {
		if !strings.EqualFold(host, r.Host) {
			return exchange.Refuse(exchange.AuthorityMismatch, "the request's Host field is not its :authority")
		}
	}
	delete(r.Header, "Host")
	return nil
}

// originForm answers requests that are not for a proxy.
func (s *Server) originForm(w http.ResponseWriter, r *http.Request) {
	visitOf(exchange.From(r.Context())).answer(exchange.Refuse(exchange.BadRequest,
		"this is a proxy: send the absolute URL, or CONNECT"))
}

// target makes the request's URL absolute and canonical, and keeps the bytes of path and query as the client sent them.
func (v *visit) target(r *http.Request) error {
	path := r.RequestURI
	if t := v.conn.tunnel; t != nil {
		if err := t.admit(r, &path); err != nil {
			v.URL = t.scheme + "://" + r.Host
			v.Target, v.Policy = t.authority, v.snapshot.HostOf(t.tenant, t.authority).Base.Name // for the record: whose tunnel it was
			v.Host = v.server.labels.For(&v.Exchange)
			return err
		}
		v.Scheme, v.Target = t.scheme, t.authority
		v.URL = t.scheme + "://" + t.authority.ForScheme(t.scheme) + path
	} else {
		v.URL = r.RequestURI
		if !r.URL.IsAbs() {
			return nil // goproxy hands it to originForm
		}
		scheme, authority, rest, err := splitAbsolute(r)
		if err != nil {
			return err
		}
		v.Scheme, v.Target, path = scheme, authority, rest
	}
	v.aim(r)
	return keepBytes(r, path)
}

// aim writes scheme and target into the request.
func (v *visit) aim(r *http.Request) {
	said := r.URL.Host
	if said == "" {
		said = r.Host
	}
	r.URL.Scheme, r.URL.Host = v.Scheme, v.Target.As(said)
	r.Host = r.URL.Host
	if v.Target.IsDefault(v.Scheme) {
		r.Host = v.Target.ForScheme(v.Scheme)
	}
}

// splitAbsolute takes an absolute-form target apart (RFC 9112 section 3.2.2: it wins over Host).
func splitAbsolute(r *http.Request) (scheme string, a exchange.Authority, path string, err error) {
	port := uint16(80)
	switch r.URL.Scheme {
	case "http":
	case "https":
		port = 443
	default:
		return "", a, "", exchange.Refuse(exchange.BadRequest, "the URL's scheme is neither http nor https")
	}
	rest := r.RequestURI[strings.Index(r.RequestURI, ":")+1:]
	rest, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return "", a, "", exchange.Refuse(exchange.BadRequest, "the URL has no host")
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end]
	if strings.IndexByte(host, '@') >= 0 {
		return "", a, "", exchange.Refuse(exchange.BadRequest, "the URL has userinfo; send an Authorization field instead")
	}
	a, err = exchange.ParseAuthority(host, port)
	return r.URL.Scheme, a, rest[end:], err
}

// keepBytes makes the transport send path and query exactly as they came. url.URL re-encodes some spellings; Opaque does not.
func keepBytes(r *http.Request, path string) error {
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c == 0x7f || c == '#' {
			return exchange.Refuse(exchange.BadRequest, "the URL has a character that none may have, or a fragment")
		}
	}
	raw, _, _ := strings.Cut(path, "?")
	switch {
	case raw == "*" && r.Method != http.MethodOptions:
		return exchange.Refuse(exchange.BadRequest, "the target * is for OPTIONS alone")
	case raw == "" && r.Method == http.MethodOptions && path == "":
		r.URL.Opaque, r.URL.Path, r.URL.RawPath = "*", "", "" // RFC 9112 section 3.2.4
	case raw == "" || raw == "*":
	case r.URL.RawPath != "" && r.URL.EscapedPath() != raw:
		if strings.HasPrefix(raw, "//") {
			return exchange.Refuse(exchange.BadRequest, "the URL's path begins with two slashes and has characters that must be percent-encoded")
		}
		r.URL.Opaque = raw
	}
	return nil
}

// roundTrip answers a request and never fails: goproxy sees responses only.
func (v *visit) roundTrip(r *http.Request) (resp *http.Response) {
	defer func() {
		if p := recover(); p != nil {
			v.server.log.Error("a stage panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "id", v.ID)
			resp = v.refusal(errLogged)
		}
		v.noMore1xx()
		v.headDone(resp)
		v.w.setHeader(resp.Header)
		resp.Header = nil
	}()
	resp, err := v.front(r)
	if err != nil {
		return v.refusal(err)
	}
	return resp
}

var errNoAnswer = errors.New("a stage returned neither a whole answer nor an error")

// front is what holds for all requests before and after their chain.
func (v *visit) front(r *http.Request) (*http.Response, error) {
	if err := v.memory(); err != nil {
		return nil, err
	}
	if answer, err := v.hops(r); answer != nil || err != nil {
		return answer, err
	}
	err := v.match(r)
	if v.policy != nil && v.policy.Audit.Headers { // what is refused is recorded with what it said
		v.content = &content{requestHeader: r.Header.Clone()}
	}
	if err != nil {
		return nil, err
	}
	leave, err := v.occupy(false)
	if err != nil {
		return nil, err
	}
	v.leave = leave
	if !v.websocket {
		v.Informational = v
	}
	v.prepareBody(r)
	trace.Carry(&v.Exchange, r.Header)
	resp, err := v.policy.Requests.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp == nil || resp.Body == nil || resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols || resp.StatusCode > 999 {
		return nil, errNoAnswer
	}
	return v.upstreamAnswer(resp)
}

// memory refuses what is new while memory is short.
func (v *visit) memory() error {
	if s := v.server.short; s != nil && s() {
		return &exchange.Refusal{Code: exchange.Overloaded, Detail: "this proxy is short of memory", RetryAfter: time.Second}
	}
	return nil
}

// match finds the policy and asks whether it lets the request through. Nothing is spent on what is forbidden.
func (v *visit) match(r *http.Request) error {
	host := v.snapshot.HostOf(v.Tenant, v.Target)
	v.policy = host.Policy(r)
	v.Policy = v.policy.Name
	v.Host = v.server.labels.For(&v.Exchange)
	if err := v.recordable(); err != nil {
		return err
	}
	if err := v.mayUse(); err != nil {
		return err
	}
	if err := v.access(); err != nil {
		return err
	}
	if err := v.snapshot.Rules.CheckHost(v.Target); err != nil {
		return err
	}
	if v.policy.Upgrade && v.Scheme == "http" {
		v.Mode, v.Scheme = exchange.ModeUpgrade, "https"
		if v.Target.Port == 80 {
			v.Target.Port = 443
		}
		v.aim(r)
	}
	return nil
}

// matchTunnel is match for a CONNECT. Where the requests inside will be seen, each is asked for access by its own route.
func (v *visit) matchTunnel() error {
	host := v.snapshot.HostOf(v.Tenant, v.Target)
	v.policy = host.Base
	v.Policy = v.policy.Name
	v.Host = v.server.labels.For(&v.Exchange)
	if err := v.recordable(); err != nil {
		return err
	}
	if err := v.mayUse(); err != nil {
		return err
	}
	if err := v.snapshot.Rules.CheckHost(v.Target); err != nil {
		return err
	}
	if v.policy.Intercept && len(host.Routes) > 0 {
		return nil
	}
	return v.access()
}

// recordable refuses what the policy lets nobody do unrecorded, while the audit trail takes no records.
func (v *visit) recordable() error {
	if v.policy.Audit.OnFull != policy.OnFullFailClosed || v.server.audit == nil || v.server.audit.Admit() {
		return nil
	}
	v.unrecorded = true
	return &exchange.Refusal{Code: exchange.Overloaded, Detail: "the audit trail takes no records, and the policy lets nothing through unrecorded", RetryAfter: time.Second}
}

func (v *visit) access() error {
	switch v.policy.Access {
	case policy.Deny:
		return exchange.Refuse(exchange.Denied, "policy denies requests to %s", v.Target.Host)
	case policy.Report:
		v.Observe(string(exchange.Denied))
	}
	return nil
}

// hops refuses loops and does what Max-Forwards asks (RFC 9110 sections 7.6.2 and 7.6.3).
func (v *visit) hops(r *http.Request) (*http.Response, error) {
	if v.seenBefore {
		return nil, exchange.Refuse(exchange.Loop, "the request carries this proxy's own Via")
	}
	if r.Method != http.MethodTrace && r.Method != http.MethodOptions {
		return nil, nil
	}
	value := r.Header.Get("Max-Forwards")
	if value == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil, exchange.Refuse(exchange.BadRequest, "Max-Forwards is not a number")
	}
	if n > 0 {
		r.Header.Set("Max-Forwards", strconv.FormatUint(n-1, 10))
		return nil, nil
	}
	if r.Method == http.MethodTrace {
		return nil, &exchange.Refusal{Code: exchange.Unsupported, Detail: "this proxy does not echo TRACE requests"}
	}
	return v.own(http.StatusOK, http.Header{"Allow": {"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT"}}, nil), nil
}

// prepareBody puts the counters around the request's body.
func (v *visit) prepareBody(r *http.Request) {
	a := &v.policy.Audit
	if v.content == nil && (a.RequestBodies() || a.ResponseBodies()) {
		v.content = &content{}
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		r.Body = nil
		return
	}
	if a.RequestBodies() {
		v.content.in = &capture{max: int(a.MaxBody)}
	}
	v.in.ReadCloser, v.in.v = r.Body, v
	if v.digest != nil {
		v.in.ReadCloser = newDigestBody(r.Body, v.digest)
	}
	r.Body = &v.in
	if total := v.policy.Timeout.Total.D(); total > 0 && !exchange.Ready(v.raw.Body) {
		v.in.bounded = true
		v.bodyBy(v.Start.Add(total + afterTotal))
	}
}

// afterTotal lets the chain's own deadline come first. But net/http does not return while it waits for a client's body: that wait must end too.
const afterTotal = 50 * time.Millisecond

// bodyBy bounds the reading of the client's body; noDeadline lifts the bound.
func (v *visit) bodyBy(t time.Time) {
	if v.raw.ProtoMajor == 1 {
		_ = v.conn.SetReadDeadline(t)
		return
	}
	_ = http.NewResponseController(v.w.ResponseWriter).SetReadDeadline(t)
}

// upstreamAnswer makes the upstream's answer fit for the client.
func (v *visit) upstreamAnswer(resp *http.Response) (*http.Response, error) {
	switched := resp.StatusCode == http.StatusSwitchingProtocols
	if switched && (!v.websocket || !hasToken(resp.Header["Upgrade"], "websocket")) {
		_ = resp.Body.Close()
		return nil, &exchange.Failure{Code: exchange.UpstreamProtocol, Sent: true, Detail: "the upstream switched to a protocol that nobody asked for"}
	}
	v.cleanResponse(resp, switched)
	if v.policy.Audit.Headers {
		v.content.responseHeader = resp.Header.Clone()
	}
	if v.policy.Audit.ResponseBodies() {
		v.content.out = &capture{max: int(v.policy.Audit.MaxBody)}
	}
	v.w.stream = streams(resp)
	v.out.ReadCloser, v.out.v, v.out.resp = resp.Body, v, resp
	resp.Body = &v.out
	v.Update(func(s *exchange.Story) { s.Status, s.StatusBy = resp.StatusCode, "upstream" })
	return resp, nil
}

// headDone notes how long the proxy itself took to the answer's head.
func (v *visit) headDone(resp *http.Response) {
	elapsed := time.Since(v.Start)
	v.Update(func(s *exchange.Story) {
		s.Overhead = max(0, elapsed-s.Upstream-s.LimitWait-s.Backoff)
	})
}

// gone tells whether the client left.
func (v *visit) gone(err error) bool {
	return v.raw.Context().Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, http.ErrAbortHandler))
}

// cutOff tells whether a drain ended the request, and not its client.
func (v *visit) cutOff() bool { return context.Cause(v.raw.Context()) == error(errCutOff) }
