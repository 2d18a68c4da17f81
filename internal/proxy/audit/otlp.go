package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/setting"
)

const (
	otlpRecords = 512
	otlpBytes   = 1 << 20
	otlpTimeout = 10 * time.Second
	otlpAnswer  = 64 << 10
)

// otlp posts records as OpenTelemetry logs (OTLP/HTTP with JSON). The body of each is the line as a file would have it. A batch counts as delivered
// when the collector says so; any other answer is tried again.
type otlp struct {
	url     string
	client  *http.Client
	body    []byte
	refused int
	after   time.Duration // what the last answer asked for
}

func newOTLP(t setting.Target, files TLSFiles) *otlp {
	scheme := "http"
	if t.Scheme == setting.OTLPHTTPS {
		scheme = "https"
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: dialTimeout}
	if scheme == "https" {
		transport.DialTLSContext = tlsDialer(files)
	}
	return &otlp{url: scheme + "://" + t.Address + t.Path, client: &http.Client{Transport: transport, Timeout: otlpTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Write posts whole lines, as many at a time as a collector takes.
func (o *otlp) Write(lines []byte) (n int, err error) {
	most := otlpRecords
	for n < len(lines) {
		part, count := o.batch(lines[n:], most)
		status, err := o.post(count)
		switch {
		case err != nil:
			return n, err
		case status == http.StatusRequestEntityTooLarge && count > 1:
			most = max(1, count/2)
			continue
		case status == http.StatusRequestEntityTooLarge:
			o.refused++
		case status/100 != 2:
			return n, &answered{url: o.url, status: status, after: o.after}
		}
		n += part
	}
	return n, nil
}

// batch makes the request of the first lines, and tells how many bytes and records they are.
func (o *otlp) batch(lines []byte, most int) (n, count int) {
	b := append(o.body[:0], `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"httpowerd"}}]},`...)
	b = append(b, `"scopeLogs":[{"scope":{"name":"httpowerd/audit"},"logRecords":[`...)
	for n < len(lines) && count < most && (count == 0 || len(b) < otlpBytes) {
		line := firstLine(lines[n:])
		n += len(line)
		if count > 0 {
			b = append(b, ',')
		}
		b = appendLogRecord(b, bytes.TrimSuffix(line, []byte{'\n'}))
		count++
	}
	o.body = append(b, `]}]}]}`...)
	return n, count
}

func appendLogRecord(b, line []byte) []byte {
	b = append(b, '{')
	if t, ok := timeOf(line); ok {
		b = append(strconv.AppendInt(append(b, `"timeUnixNano":"`...), t.UnixNano(), 10), `",`...)
	}
	b = append(b, `"severityNumber":9,"severityText":"INFO","body":{"stringValue":`...)
	b = append(appendString(b, line, len(line)), '}')
	if e, ok := parseEnding(line[max(0, len(line)-linkSize):]); ok {
		b = append(b, `,"attributes":[{"key":"httpowerd.seq","value":{"intValue":"`...)
		b = append(strconv.AppendUint(b, e.seq, 10), `"}}]`...)
	}
	return append(b, '}')
}

// answered is an answer after which the request is made again, and not before the time that it names.
type answered struct {
	url    string
	status int
	after  time.Duration
}

func (a *answered) Error() string { return fmt.Sprintf("%s answered %d", a.url, a.status) }

// longestAfter bounds what a collector may ask for: it must not keep records in memory for ever.
const longestAfter = 30 * time.Second

// retryAfter is what an answer asks for (RFC 9110 section 10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	after := time.Duration(0)
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		after = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		after = at.Sub(now)
	}
	return max(0, min(after, longestAfter))
}

// pauseAfter is the wait before the next try: the usual one, or a longer one that the other side asked for.
func pauseAfter(err error, usual time.Duration) time.Duration {
	var a *answered
	if errors.As(err, &a) {
		return max(usual, a.after)
	}
	return usual
}

// posted is the body of a request, which counts itself out when the transport is through with it.
type posted struct {
	*bytes.Reader
	readers *atomic.Int32
	once    sync.Once
}

func (p *posted) Close() error {
	p.once.Do(func() { p.readers.Add(-1) })
	return nil
}

// post sends the request of so many records. Those that the collector refuses for good are counted: it must not get them again.
func (o *otlp) post(count int) (status int, err error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, o.url, nil)
	if err != nil {
		return 0, err
	}
	var readers atomic.Int32
	open := func() (io.ReadCloser, error) {
		readers.Add(1)
		return &posted{Reader: bytes.NewReader(o.body), readers: &readers}, nil
	}
	r.Body, _ = open()
	r.GetBody, r.ContentLength = open, int64(len(o.body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "httpowerd")
	defer func() {
		if readers.Load() > 0 || cap(o.body) > keepBuffer { // an answer that came early: the transport may still be reading
			o.body = nil
		}
	}()
	resp, err := o.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	o.after = retryAfter(resp.Header, time.Now())
	text, err := io.ReadAll(io.LimitReader(resp.Body, otlpAnswer))
	if err != nil {
		return 0, err
	}
	var said struct {
		PartialSuccess struct {
			Rejected json.RawMessage `json:"rejectedLogRecords"` // an int64, which JSON of protobuf writes as a string
		} `json:"partialSuccess"`
	}
	if resp.StatusCode/100 == 2 && json.Unmarshal(text, &said) == nil {
		n, _ := strconv.Atoi(string(bytes.Trim(said.PartialSuccess.Rejected, `"`)))
		o.refused += max(0, min(n, count)) // whatever it says
	}
	return resp.StatusCode, nil
}

func (*otlp) Sync() error           { return nil }
func (*otlp) Reopen() (bool, error) { return false, nil }

func (o *otlp) Close() error {
	o.client.CloseIdleConnections()
	return nil
}

func (*otlp) pending() bool { return false }

func (o *otlp) unsendable() int {
	n := o.refused
	o.refused = 0
	return n
}
