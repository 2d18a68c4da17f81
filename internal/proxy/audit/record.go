package audit

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"httpowerd/internal/coding"
	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// The bounds of what a client or an upstream controls, in bytes.
const (
	maxID       = 128
	maxMethod   = 32
	maxName     = 260
	maxURL      = 8 << 10
	maxText     = 4 << 10
	maxFields   = 200
	maxBody     = 16 << 20
	maxAttempts = 100

	// What a part may take once it is escaped, so that no record passes maxLine.
	maxHeaderLine = 512 << 10
	maxBodyLine   = 24 << 20
)

// maxURLRead bounds what the redactor is given of a URL; no listener lets so much through.
const maxURLRead = 256 << 10

// record encodes one record. It ends without the closing brace, which the writer adds together with the chain.
type record struct {
	redactor *redact.Redactor
	pass     redact.Pass // the redactor's, of this record
	counts   redact.Counts
	text     []byte // redacted text before it is escaped
	clock    clock
	repeats  *repeats // nil: none
}

// appendExchange appends the record of x.
func (r *record) appendExchange(b []byte, x *exchange.Exchange, e *Extra) []byte {
	end := e.End
	if end.IsZero() {
		end = time.Now()
	}
	if e.Sent != nil {
		r.redactor = r.redactor.Knowing(e.Sent, x.URL[:min(len(x.URL), maxURLRead)])
	}
	r.pass = r.redactor.Begin(&r.counts)
	defer r.pass.Done()
	b = r.clock.append(append(b, `{"time":`...), end)
	b = r.appendWho(b, x)
	x.Read(func(s *exchange.Story) { b = r.appendStory(b, s, end.Sub(x.Start)) })
	b = r.appendHeader(b, `,"request_headers":`, e.RequestHeader)
	b = r.appendHeader(b, `,"response_headers":`, e.ResponseHeader)
	if e.RequestBody != nil {
		b = r.appendBody(b, "request_body", e.request())
	}
	if e.ResponseBody != nil {
		b = r.appendBody(b, "response_body", e.response())
	}
	return r.appendCounts(b)
}

// appendWho appends what was asked by whom.
func (r *record) appendWho(b []byte, x *exchange.Exchange) []byte {
	if x.OwnID {
		b = appendField(b, `,"id":`, x.ID, maxID)
	} else {
		b = r.appendClean(b, `,"id":`, x.ID, maxID)
	}
	b = appendField(b, `,"trace_id":`, x.TraceID, maxID)
	b = appendField(b, `,"kind":`, string(x.Kind), maxMethod)
	b = appendField(b, `,"tenant":`, x.Tenant, maxName)
	b = appendField(b, `,"client":`, x.Client, maxName)
	return r.appendQuestion(b, questionOf(x))
}

// appendQuestion appends what was asked for, from memory where the same was asked before.
func (r *record) appendQuestion(b []byte, q *question) []byte {
	if r.repeats == nil || len(q.method)+len(q.url)+len(q.host) > longestRepeat {
		return r.appendNewQuestion(b, q)
	}
	k, ok := r.redactor.Knowledge()
	if !ok {
		return r.appendNewQuestion(b, q)
	}
	text, row := r.repeats.find(q, k)
	if text != nil {
		return append(b, text...)
	}
	start, hidden := len(b), r.counts.Total()
	b = r.appendNewQuestion(b, q)
	if row != nil && r.counts.Total() == hidden {
		row.keep(q, k, b[start:])
	}
	return b
}

func (r *record) appendNewQuestion(b []byte, q *question) []byte {
	b = r.appendClean(b, `,"method":`, q.method, maxMethod)
	if q.url != "" {
		r.text = r.pass.AppendURL(r.text[:0], q.url[:min(len(q.url), maxURLRead)])
		b = appendString(append(b, `,"url":`...), r.text, maxURL)
	}
	if q.host == q.policy { // a name that the configuration has, too
		b = appendField(b, `,"host":`, q.host, maxName)
	} else {
		b = r.appendClean(b, `,"host":`, r.hostOf(q), maxName)
	}
	b = appendField(b, `,"policy":`, q.policy, 2*maxName)
	return appendField(b, `,"mode":`, string(q.mode), maxMethod)
}

// hostOf is the host in lower case, but as it was written where that gives a secret away.
func (r *record) hostOf(q *question) string {
	if said := exchange.HostIn(q.url, q.host); said != q.host && r.redactor.Text(said) != said {
		return said
	}
	return q.host
}

// appendStory appends what came of it.
func (r *record) appendStory(b []byte, s *exchange.Story, took time.Duration) []byte {
	if s.Status != 0 {
		b = appendInt(b, `,"status":`, int64(s.Status))
	}
	b = appendField(b, `,"status_by":`, s.StatusBy, maxMethod)
	b = appendField(b, `,"outcome":`, string(s.Outcome), maxName)
	b = r.appendText(b, `,"detail":`, s.Detail)
	b = appendAttempts(b, s.Attempts)
	b = appendMillis(append(b, `,"duration_ms":`...), took)
	b = appendMillis(append(b, `,"overhead_ms":`...), s.Overhead)
	b = appendMillis(append(b, `,"limit_wait_ms":`...), s.LimitWait)
	b = appendInt(b, `,"request_bytes":`, s.BytesIn)
	b = appendInt(b, `,"response_bytes":`, s.BytesOut)
	b = appendField(b, `,"breaker":`, s.Breaker, maxName)
	b = appendField(b, `,"dedup":`, s.Dedup, maxName)
	b = appendField(b, `,"not_retried":`, s.NotRetried, maxName)
	b = appendSanitized(b, s.Sanitized)
	b = appendList(b, `,"observed":`, s.Observed)
	return appendList(b, `,"unapplied":`, s.Unapplied)
}

// appendField appends a text where there is one. Its key comes as `,"key":`, like all of ours.
func appendField(b []byte, key, s string, limit int) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, key...), s, limit)
}

// shortestSecret is what no secret and no card number is shorter than.
const shortestSecret = 8

// appendClean appends what the client chose and no URL or header carries: a card number fits there too.
func (r *record) appendClean(b []byte, key, s string, limit int) []byte {
	if len(s) < shortestSecret {
		return appendField(b, key, s, limit)
	}
	r.text = r.pass.AppendText(r.text[:0], s[:min(len(s), maxURLRead)])
	return appendString(append(b, key...), r.text, limit)
}

// appendText appends a redacted text where there is one.
func (r *record) appendText(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return r.appendValue(append(b, key...), s)
}

func (r *record) appendValue(b []byte, s string) []byte {
	r.text = r.pass.AppendText(r.text[:0], s[:min(len(s), maxURLRead)])
	return appendString(b, r.text, maxText)
}

func appendList(b []byte, key string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(append(b, key...), '[')
	for i, s := range list[:min(len(list), maxFields)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s, 2*maxName)
	}
	return append(b, ']')
}

func appendAttempts(b []byte, attempts []exchange.Attempt) []byte {
	if len(attempts) == 0 {
		return b
	}
	b = append(append(b, `,"attempts":`...), '[')
	for i := range attempts[:min(len(attempts), maxAttempts)] {
		a := &attempts[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendInt(b, `{"n":`, int64(a.N))
		if a.Status != 0 {
			b = appendInt(b, `,"status":`, int64(a.Status))
		}
		b = appendField(b, `,"error":`, string(a.Error), maxName)
		b = appendMillis(append(b, `,"wait_ms":`...), a.Wait)
		b = appendMillis(append(b, `,"duration_ms":`...), a.Duration)
		b = appendField(b, `,"reason":`, a.Reason, maxName)
		b = appendField(b, `,"address":`, a.Address, maxName)
		if a.Reused {
			b = append(b, `,"reused":true`...)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendHeader appends sanitised fields, sorted, each name with the list of its values.
func (r *record) appendHeader(b []byte, key string, h http.Header) []byte {
	if h == nil {
		return b
	}
	names := slices.Sorted(maps.Keys(h))
	b = append(append(b, key...), '{')
	start := len(b)
	for i, name := range names[:min(len(names), maxFields)] {
		if len(b)-start > maxHeaderLine {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, r.redactor.Text(name), maxName), ':', '[') // whoever chose the value chose the name, too
		values := h[name]
		for j, v := range values[:min(len(values), maxFields)] {
			if len(b)-start > maxHeaderLine {
				break
			}
			if j > 0 {
				b = append(b, ',')
			}
			b = appendString(b, r.pass.Field(name, v), maxText)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// body is what was kept of a request's or an answer's content.
type body struct {
	contentType, encoding string
	data                  []byte
	truncated             bool
	limit                 int
}

func (e *Extra) request() body {
	return body{e.RequestType, e.RequestEncoding, e.RequestBody, e.RequestTruncated, e.MaxBody}
}

func (e *Extra) response() body {
	return body{e.ResponseType, e.ResponseEncoding, e.ResponseBody, e.ResponseTruncated, e.MaxBody}
}

// decoded is the content without its codings and as UTF-8, up to what may be recorded. What cannot be decoded stays as it is; where it does not look like
// text it is shown by its length only.
func (c body) decoded() body {
	if c.encoding != "" {
		data, whole, err := coding.Decode(c.encoding, c.data, max(c.limit, len(c.data)))
		if err != nil {
			if !utf8.Valid(c.data) {
				c.contentType = ""
			} // else it was not coded at all, and its type says how to read it
			return c
		}
		c.data, c.truncated = data, c.truncated || !whole
	}
	if isWide(c.contentType) { // the redactor looks which of the two bytes comes first, whatever the name says
		return c
	}
	if kind, text, ok := coding.Text(c.contentType, c.data); ok {
		c.contentType, c.data = kind, text
	}
	return c
}

func isWide(contentType string) bool { return strings.Contains(strings.ToLower(contentType), "utf-16") }

func (r *record) appendBody(b []byte, name string, c body) []byte {
	c = c.decoded()
	clean := r.redactor.Body(c.contentType, c.data, c.truncated, &r.counts)
	b = append(append(append(b, `,"`...), name...), `":`...)
	start := len(b)
	if b = appendString(b, clean, maxBody); len(b)-start > maxBodyLine {
		b = appendString(b[:start], clean, maxBodyLine/longestEscape)
	}
	if c.truncated {
		b = append(append(append(b, `,"`...), name...), `_truncated":true`...)
	}
	return b
}

func (r *record) appendCounts(b []byte) []byte {
	if r.counts.Total() == 0 {
		return b
	}
	b = append(append(b, `,"redactions":`...), '{')
	first := true
	r.counts.Each(func(k redact.Kind, n int) {
		if n == 0 {
			return
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, string(k), maxMethod), ':')
		b = appendNumber(b, int64(n))
	})
	return append(b, '}')
}

// appendEvent appends a record that is not an exchange.
func (r *record) appendEvent(b []byte, now time.Time, kind string, attrs []slog.Attr) []byte {
	r.pass = r.redactor.Begin(&r.counts)
	defer r.pass.Done()
	b = appendTime(append(b, `{"time":`...), now)
	b = appendField(b, `,"kind":`, kind, maxMethod)
	for _, a := range attrs {
		if a.Key == "" {
			continue
		}
		b = append(appendString(append(b, ','), a.Key, maxName), ':')
		b = r.appendAny(b, a.Value.Resolve())
	}
	return r.appendCounts(b)
}

func (r *record) appendAny(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return r.appendValue(b, v.String())
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindFloat64:
		return appendFloat(b, v.Float64())
	case slog.KindDuration:
		return appendMillis(b, v.Duration())
	case slog.KindTime:
		return appendTime(b, v.Time())
	case slog.KindGroup:
		return r.appendGroup(b, v.Group())
	}
	return r.appendOther(b, v.Any())
}

func (r *record) appendGroup(b []byte, attrs []slog.Attr) []byte {
	b = append(b, '{')
	for i, a := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, a.Key, maxName), ':')
		b = r.appendAny(b, a.Value.Resolve())
	}
	return append(b, '}')
}

func (r *record) appendOther(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case []string:
		b = append(b, '[')
		for i, s := range v[:min(len(v), maxFields)] {
			if i > 0 {
				b = append(b, ',')
			}
			b = r.appendValue(b, s)
		}
		return append(b, ']')
	case error:
		return r.appendValue(b, v.Error())
	}
	return r.appendValue(b, fmt.Sprint(v))
}
