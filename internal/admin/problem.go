package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/redact"
)

// The codes of refusals. Those that the proxy has too mean the same here.
const (
	codeBadRequest    = string(exchange.BadRequest)
	codeDenied        = string(exchange.Denied)
	codeTooLarge      = string(exchange.TooLarge)
	codeUnsupported   = string(exchange.Unsupported)
	codeRateLimited   = string(exchange.RateLimited)
	codeOverloaded    = string(exchange.Overloaded)
	codeDraining      = string(exchange.Draining)
	codeInternal      = string(exchange.Internal)
	codeUnauthorized  = "unauthorized"
	codeNotFound      = "not_found"
	codeMethod        = "method_not_allowed"
	codeInvalidConfig = "invalid_config"
	codeNotReady      = "not_ready"
)

// kinds say what a code is in HTTP.
var kinds = map[string]struct {
	status int
	title  string
}{
	codeBadRequest:    {http.StatusBadRequest, "The request is malformed"},
	codeUnauthorized:  {http.StatusUnauthorized, "The admin token is required"},
	codeDenied:        {http.StatusForbidden, "The request is not allowed"},
	codeNotFound:      {http.StatusNotFound, "There is no such thing"},
	codeMethod:        {http.StatusMethodNotAllowed, "The method is not allowed"},
	codeTooLarge:      {http.StatusRequestEntityTooLarge, "The request is too large"},
	codeUnsupported:   {http.StatusUnsupportedMediaType, "The body's type is not supported"},
	codeInvalidConfig: {http.StatusUnprocessableEntity, "The configuration is not valid"},
	codeRateLimited:   {http.StatusTooManyRequests, "Too many wrong tokens, or changes"},
	codeInternal:      {http.StatusInternalServerError, "The daemon failed"},
	codeNotReady:      {http.StatusServiceUnavailable, "The daemon is not ready"},
	codeDraining:      {http.StatusServiceUnavailable, "The daemon is shutting down"},
	codeOverloaded:    {http.StatusServiceUnavailable, "The admin listener is at a ceiling"},
}

const errorField = "Httpowerd-Error"

// problem is an answer that says no (RFC 9457).
type problem struct {
	code, detail string
	allow        string // of a 405
	authenticate string // of a 401
	retryAfter   time.Duration
	faults       []policy.Fault // of a 422
}

// refuse makes a problem; detail never holds an error's own text, a path or a secret.
func refuse(code, detail string) *problem { return &problem{code: code, detail: detail} }

func notReady() *problem {
	p := refuse(codeNotReady, "no configuration is loaded yet")
	p.retryAfter = time.Second
	return p
}

// write answers with the problem.
func (c *call) write(p *problem) {
	kind := kinds[p.code]
	h := c.w.Header()
	h.Set(errorField, p.code)
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.authenticate != "" {
		h.Set("WWW-Authenticate", p.authenticate)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.retryAfter+time.Second-1)/time.Second), 10))
	}
	c.send(kind.status, "application/problem+json", struct {
		Type      string         `json:"type"`
		Title     string         `json:"title"`
		Status    int            `json:"status"`
		Detail    string         `json:"detail,omitempty"`
		Code      string         `json:"code"`
		RequestID string         `json:"request_id"`
		Faults    []policy.Fault `json:"faults,omitempty"`
	}{"urn:httpowerd:error:" + p.code, kind.title, kind.status, p.detail, p.code, c.id, p.faults})
}

// json answers with a value.
func (c *call) json(v any) *problem {
	c.send(http.StatusOK, "application/json", v)
	return nil
}

// send encodes before anything is written: what cannot be encoded is a defect, and answered as one.
func (c *call) send(status int, contentType string, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("an answer cannot be encoded: " + err.Error())
	}
	c.bytes(status, contentType, append(body, '\n'))
}

func (c *call) bytes(status int, contentType string, body []byte) {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // whoever asked may be gone; there is nobody else to tell
}

// allowed is the Allow field of a path.
func allowed(methods map[string]endpoint) string {
	var out []string
	for m := range methods {
		out = append(out, m)
		if m == http.MethodGet {
			out = append(out, http.MethodHead)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// shown are faults as they may leave the daemon: a mistyped secret may stand in the text that names the mistake.
func shown(faults []policy.Fault) []policy.Fault {
	out := make([]policy.Fault, len(faults))
	for i, f := range faults {
		f.Message = redact.Default().Text(f.Message)
		f.Path = redact.Default().Text(f.Path)
		out[i] = f
	}
	return out
}
