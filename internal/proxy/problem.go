package proxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
	"httpowerd/internal/redact"
)

// verdict is an error as the client, the record and the metrics are told it.
type verdict struct {
	code       exchange.Code
	outcome    exchange.Code // in the record; "": the code
	status     int           // 0: nobody is told
	detail     string
	error      string // of Proxy-Status; "": the code's
	retryAfter time.Duration
	close      bool
	final      bool // X-Should-Retry: false
}

// judge turns whatever the chain returned into a verdict.
func (v *visit) judge(err error) verdict {
	if v.cutOff() {
		err = errCutOff // whatever a stage makes of it that its time was over
	}
	var refusal *exchange.Refusal
	refused := errors.As(err, &refusal)
	if exchange.BrokeOff(v.in.ended()) && (refused && refusal.Code == exchange.BadRequest || v.gone(err)) {
		return verdict{code: exchange.BadRequest, outcome: exchange.ClientGone, status: http.StatusBadRequest, detail: "the request's body broke off", close: true, final: true}
	}
	if refused {
		return verdict{code: refusal.Code, status: refusal.HTTPStatus(), detail: refusal.Detail, error: refusal.ProxyStatus, retryAfter: refusal.RetryAfter,
			close: refusal.Close, final: refusal.Code.Info().Final && refusal.RetryAfter == 0}
	}
	if errors.Is(v.in.ended(), wire.ErrFraming) { // the server takes that for a client that left
		return verdict{code: exchange.BadRequest, status: http.StatusBadRequest, detail: "the request's body is malformed", close: true, final: true}
	}
	if errors.Is(v.in.ended(), errBodyDigest) {
		return verdict{code: exchange.BadRequest, status: http.StatusBadRequest, detail: errBodyDigest.Error(), close: true, final: true}
	}
	if v.gone(err) {
		return verdict{code: exchange.ClientGone}
	}
	var failure *exchange.Failure
	if errors.As(err, &failure) {
		retriedOut := false
		v.Read(func(s *exchange.Story) { retriedOut = oneByOne(s.Attempts) > 1 })
		return verdict{code: failure.Code, status: failure.Code.Info().Status, detail: failure.Detail, error: failure.ProxyStatus, final: retriedOut || failure.Permanent}
	}
	v.server.log.Error("an error that no stage explains", "error", err, "id", v.ID)
	return verdict{code: exchange.Internal, status: http.StatusInternalServerError, detail: internalDetail}
}

// oneByOne counts the attempts that were made after another one: a hedge was made beside one.
func oneByOne(attempts []exchange.Attempt) (n int) {
	for i := range attempts {
		if attempts[i].Reason != exchange.ReasonHedge {
			n++
		}
	}
	return n
}

const internalDetail = "an internal error was logged under this request's id"

// errLogged is for what went wrong so that the log has it already.
var errLogged = exchange.Refuse(exchange.Internal, internalDetail)

// statusClientGone is what goproxy is given for a client that left; nobody sees it.
const statusClientGone = 499

// decide judges err and notes the verdict.
func (v *visit) decide(err error) verdict {
	d := v.judge(err)
	if d.outcome == "" {
		d.outcome = d.code
	}
	v.w.parting = d.outcome == exchange.Draining || d.outcome == exchange.ClientGone
	v.Update(func(s *exchange.Story) {
		s.Outcome, s.Detail = d.outcome, d.detail
		if d.status != 0 {
			s.Status, s.StatusBy = d.status, "proxy"
		}
	})
	switch {
	case d.code == exchange.Internal && err != errLogged:
		v.server.log.Error("an exchange failed for an internal error", "id", v.ID, "error", err)
	case errors.Unwrap(err) != nil && v.server.log.Enabled(context.Background(), slog.LevelDebug):
		v.server.log.Debug("refused", "id", v.ID, "code", string(d.code), "error", v.asSaid(err.Error()))
	}
	return d
}

// asSaid is an error's text with the host as the client spelt it: case tells a token, which the log hides, from a word.
func (v *visit) asSaid(text string) string {
	const shortestToken = 12
	if len(v.Target.Host) < shortestToken {
		return text
	}
	return strings.ReplaceAll(text, v.Target.Host, exchange.HostIn(v.URL, v.Target.Host))
}

// refusal is the answer that the proxy makes itself.
func (v *visit) refusal(err error) *http.Response {
	d := v.decide(err)
	if d.status == 0 {
		v.w.mute = true
		return &http.Response{StatusCode: statusClientGone, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody}
	}
	header, body := v.problem(d)
	return v.own(d.status, header, body)
}

// own is an answer of the proxy's own making.
func (v *visit) own(status int, header http.Header, body []byte) *http.Response {
	v.Update(func(s *exchange.Story) { s.Status, s.StatusBy = status, "proxy" })
	header["Httpowerd-Request-Id"] = []string{v.ID}
	if _, ok := header["Content-Type"]; !ok {
		header["Content-Type"] = nil
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	v.out.ReadCloser, v.out.v = http.NoBody, v
	if v.raw.Method != http.MethodHead { // whose answer has the length alone, and the record none of its bytes
		v.out.ReadCloser = io.NopCloser(bytes.NewReader(body))
	}
	return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: header, Body: &v.out, ContentLength: int64(len(body))}
}

// problem is the head and body of a refusal (RFC 9457).
func (v *visit) problem(d verdict) (http.Header, []byte) {
	info := d.code.Info()
	h := http.Header{
		"Content-Type":    {"application/problem+json"},
		"Cache-Control":   {"no-store"},
		"Httpowerd-Error": {string(d.code)},
		"Proxy-Status":    {"httpowerd; error=" + cmp.Or(d.error, info.ProxyStatus)},
	}
	switch {
	case d.retryAfter > 0, d.status == http.StatusTooManyRequests, d.status == http.StatusServiceUnavailable:
		h["Retry-After"] = []string{strconv.FormatInt(int64(max(1, (d.retryAfter+time.Second-1)/time.Second)), 10)}
	case d.status == http.StatusProxyAuthRequired:
		h["Proxy-Authenticate"] = v.challenge()
	}
	if d.final {
		h["X-Should-Retry"] = []string{"false"}
		if v.policy != nil && v.policy.Signal != "" {
			h[v.policy.Signal] = []string{"false"}
		}
	}
	if d.close {
		h["Connection"] = []string{"close"}
	}
	b := make([]byte, 0, 256)
	b = append(b, `{"type":"urn:httpowerd:error:`...)
	b = append(b, d.code...)
	b = append(b, `","title":`...)
	b = appendJSON(b, info.Title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(d.status), 10)
	if d.detail != "" {
		b = append(b, `,"detail":`...)
		b = appendJSON(b, redact.SafeText(d.detail, 512))
	}
	b = append(b, `,"code":"`...)
	b = append(b, d.code...)
	b = append(b, `","request_id":`...)
	b = appendJSON(b, v.ID)
	return h, append(b, "}\n"...)
}

// appendJSON quotes a string that holds no control characters.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// writeRaw answers on a connection that no HTTP server serves. The code stands in the reason phrase too: many clients show nothing else of a failed CONNECT.
func (v *visit) writeRaw(c net.Conn, d verdict) {
	header, body := v.problem(d)
	header["Connection"] = []string{"close"}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	header["Httpowerd-Request-Id"] = []string{v.ID}
	n := 0
	err := writeHead(c, d.status, "httpowerd: "+string(d.code), header)
	if err == nil {
		n, err = c.Write(body)
	}
	v.toldRaw(n, err)
}

// toldRaw notes what a client got of an answer of which the writer does not know.
func (v *visit) toldRaw(n int, err error) {
	v.w.bytes = int64(n)
	if err != nil && n == 0 {
		v.Update(func(s *exchange.Story) { s.Status, s.StatusBy = 0, "" })
	}
}

// writeHead writes an answer's head.
func writeHead(c net.Conn, status int, reason string, header http.Header) error {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 ")
	b.WriteString(strconv.Itoa(status))
	b.WriteByte(' ')
	b.WriteString(reason)
	b.WriteString("\r\n")
	_ = header.Write(&b) // a buffer does not fail
	b.WriteString("\r\n")
	_, err := c.Write(b.Bytes())
	return err
}

// answer writes a refusal without goproxy, where the request is not fit to be handed on.
func (v *visit) answer(err error) {
	resp := v.refusal(err)
	v.headDone(resp)
	if v.w.mute {
		return
	}
	h := v.w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	v.w.WriteHeader(resp.StatusCode)
	_, _ = v.out.WriteTo(&v.w) // the client may be gone; there is nobody else to tell
}
