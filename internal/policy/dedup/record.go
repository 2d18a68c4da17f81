package dedup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
)

// A record is an answer as a store keeps it: a version, numbers as varints, texts with their length before them, the body as the rest.
const recordVersion = 1

// Bounds of what is believed of a record.
const (
	maxRecordFields = 10_000
	maxRecordLength = 1 << 40
)

// appendRecord encodes an answer.
func appendRecord(b []byte, head *http.Response, trailer http.Header, body []byte) []byte {
	b = binary.AppendUvarint(append(b, recordVersion), uint64(head.StatusCode))
	b = binary.AppendUvarint(b, uint64(head.ProtoMajor))
	b = binary.AppendUvarint(b, uint64(head.ProtoMinor))
	b = binary.AppendUvarint(b, uint64(head.ContentLength+1)) // -1 is unknown
	b = appendFields(b, head.Header)
	b = appendFields(b, trailer)
	return append(b, body...)
}

func appendFields(b []byte, h http.Header) []byte {
	b = binary.AppendUvarint(b, uint64(len(h)))
	for name, values := range h {
		b = appendValues(appendPart(b, name), values)
	}
	return b
}

var errRecord = errors.New("the stored record is damaged")

// parseRecord decodes an answer, whose body is a part of b.
func parseRecord(b []byte) (*http.Response, error) {
	r := recordReader{b: b}
	if r.byte() != recordVersion {
		return nil, errRecord
	}
	status, major, minor, length := r.number(999), r.number(9), r.number(9), r.number(maxRecordLength)
	resp := &http.Response{StatusCode: int(status), ProtoMajor: int(major), ProtoMinor: int(minor), ContentLength: int64(length) - 1,
		Header: r.fields(), Trailer: r.fields()}
	if r.failed || resp.StatusCode < 200 || resp.ContentLength >= 0 && resp.ContentLength != int64(len(r.b)) && len(r.b) > 0 {
		return nil, errRecord
	}
	resp.Proto = "HTTP/" + string(rune('0'+major)) + "." + string(rune('0'+minor))
	resp.Status = strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	if len(resp.Trailer) == 0 {
		resp.Trailer = nil
	}
	resp.Body = io.NopCloser(bytes.NewReader(slices.Clip(r.b)))
	return resp, nil
}

// recordReader takes a record apart. Once something was wrong it yields nothing more.
type recordReader struct {
	b      []byte
	failed bool
}

func (r *recordReader) byte() byte {
	if len(r.b) == 0 {
		r.failed = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *recordReader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	if r.failed || size <= 0 || n > most {
		r.failed = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *recordReader) text() string {
	n := r.number(uint64(len(r.b)))
	if n > uint64(len(r.b)) {
		r.failed = true
	}
	if r.failed {
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *recordReader) fields() http.Header {
	h := http.Header{}
	for n := r.number(maxRecordFields); n > 0 && !r.failed; n-- {
		name := r.text()
		var values []string
		for m := r.number(maxRecordFields); m > 0 && !r.failed; m-- {
			values = append(values, r.text())
		}
		h[name] = values
	}
	return h
}
