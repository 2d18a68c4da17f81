package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
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
		status, err := o.post()
		switch {
		case err != nil:
			return n, err
		case status == http.StatusRequestEntityTooLarge && count > 1:
			most = max(1, count/2)
			continue
		case status == http.StatusRequestEntityTooLarge:
			o.refused++
		case status/100 != 2:
			return n, fmt.Errorf("%s answered %d", o.url, status)
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

// post sends the request. Records that the collector refuses for good are counted: it must not get them again.
func (o *otlp) post() (status int, err error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, o.url, bytes.NewReader(o.body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "httpowerd")
	resp, err := o.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
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
		o.refused += max(0, min(n, otlpRecords))
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
