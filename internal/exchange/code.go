package exchange

import "net/http"

// Code names what happened, in answers, metrics, audit records and the Httpowerd-Error header.
type Code string

// The codes of answers that the proxy makes itself, and of attempts that failed.
const (
	BadRequest          Code = "bad_request"
	AuthorityMismatch   Code = "authority_mismatch"
	AuthRequired        Code = "auth_required"
	Denied              Code = "denied"
	DestinationDenied   Code = "destination_denied"
	SNIMismatch         Code = "sni_mismatch"
	BlockedContent      Code = "blocked_content"
	Loop                Code = "loop"
	TooLarge            Code = "too_large"
	Unsupported         Code = "unsupported"
	RateLimited         Code = "rate_limited"
	QuotaExhausted      Code = "quota_exhausted"
	ConcurrencyLimited  Code = "concurrency_limited"
	BreakerOpen         Code = "breaker_open"
	IdempotencyConflict Code = "idempotency_conflict"
	DedupTimeout        Code = "dedup_timeout"
	UpstreamTimeout     Code = "upstream_timeout"
	UpstreamDNS         Code = "upstream_dns"
	UpstreamConnect     Code = "upstream_connect"
	UpstreamTLS         Code = "upstream_tls"
	UpstreamReset       Code = "upstream_reset"
	UpstreamProtocol    Code = "upstream_protocol"
	Overloaded          Code = "overloaded"
	Draining            Code = "draining"
	Internal            Code = "internal"

	// ClientGone is an outcome only: there is nobody left to answer.
	ClientGone Code = "client_gone"
	// Superseded is an attempt's end only: the answer of another one, made at the same time, was taken.
	Superseded Code = "superseded"
	// UpstreamError is an outcome only: the upstream's own final 5xx.
	UpstreamError Code = "upstream_error"
	// OK is an outcome only.
	OK Code = "ok"
)

// CodeInfo is what a code means to a client.
type CodeInfo struct {
	Status      int    // the usual status; a Refusal may name another
	Title       string // one short sentence without details
	ProxyStatus string // RFC 9209 section 2.3 error type; a Refusal or Failure may name a closer one
	// Final marks answers that the same request will meet again: an SDK should not retry them.
	Final bool
}

// Info describes the code. Unknown codes are described as Internal.
func (c Code) Info() CodeInfo {
	if info, ok := codes[c]; ok {
		return info
	}
	return codes[Internal]
}

var codes = map[Code]CodeInfo{
	BadRequest:          {http.StatusBadRequest, "The request is malformed", "http_request_error", true},
	AuthorityMismatch:   {http.StatusBadRequest, "The request names another authority than its tunnel", "http_request_error", true},
	AuthRequired:        {http.StatusProxyAuthRequired, "Proxy credentials are required", "http_request_denied", true},
	Denied:              {http.StatusForbidden, "Policy forbids this request", "http_request_denied", true},
	DestinationDenied:   {http.StatusForbidden, "The destination is not allowed", "destination_ip_prohibited", true},
	SNIMismatch:         {http.StatusForbidden, "The TLS server name is not the tunnel's host", "http_request_denied", true},
	BlockedContent:      {http.StatusForbidden, "The content is blocked", "http_request_denied", true},
	Loop:                {http.StatusBadGateway, "The request came back to this proxy", "proxy_loop_detected", true},
	TooLarge:            {http.StatusRequestEntityTooLarge, "The request is too large", "http_request_error", true},
	Unsupported:         {http.StatusNotImplemented, "The request asks for something unsupported", "http_request_error", true},
	RateLimited:         {http.StatusTooManyRequests, "The configured rate limit is reached", "http_request_denied", false},
	QuotaExhausted:      {http.StatusTooManyRequests, "The upstream's announced quota is used up", "http_request_denied", false},
	ConcurrencyLimited:  {http.StatusServiceUnavailable, "Too many requests are in flight", "connection_limit_reached", false},
	BreakerOpen:         {http.StatusServiceUnavailable, "The circuit breaker is open", "destination_unavailable", false},
	IdempotencyConflict: {http.StatusConflict, "A write with this idempotency key conflicts", "http_request_denied", true},
	DedupTimeout:        {http.StatusGatewayTimeout, "The shared answer did not come in time", "http_response_timeout", false},
	UpstreamTimeout:     {http.StatusGatewayTimeout, "The upstream did not answer in time", "http_response_timeout", false},
	UpstreamDNS:         {http.StatusBadGateway, "The upstream's name could not be resolved", "dns_error", false},
	UpstreamConnect:     {http.StatusBadGateway, "The upstream could not be connected to", "connection_refused", false},
	UpstreamTLS:         {http.StatusBadGateway, "No secure connection to the upstream could be made", "tls_protocol_error", false},
	UpstreamReset:       {http.StatusBadGateway, "The upstream closed the connection", "connection_terminated", false},
	UpstreamProtocol:    {http.StatusBadGateway, "The upstream's answer is malformed", "http_protocol_error", false},
	Overloaded:          {http.StatusServiceUnavailable, "The proxy is at a ceiling", "connection_limit_reached", false},
	Draining:            {http.StatusServiceUnavailable, "The proxy is shutting down", "proxy_internal_response", false},
	Internal:            {http.StatusInternalServerError, "The proxy failed", "proxy_internal_error", false},
}
