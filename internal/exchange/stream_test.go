package exchange

import (
	"net/http"
	"testing"
)

func TestStreams(t *testing.T) {
	for contentType, want := range map[string]bool{
		"text/event-stream": true, "Text/Event-Stream; charset=utf-8": true, "application/grpc": true, "application/grpc+proto": true,
		"application/x-ndjson": true, " application/jsonl ": true, "multipart/x-mixed-replace;boundary=x": true,
		"application/json": false, "text/event-stream-not": false, "": false,
	} {
		if got := Streams(http.Header{"Content-Type": {contentType}}); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
	if Streams(nil) {
		t.Error("no field is a stream")
	}
}
