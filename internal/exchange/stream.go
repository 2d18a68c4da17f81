package exchange

import (
	"net/http"
	"strings"
)

// Streams tells whether a body of this type comes in pieces that matter one by one: silence within it is usual, its end is not worth waiting for, and
// what has come must be passed on at once.
func Streams(h http.Header) bool {
	values := h["Content-Type"]
	if len(values) == 0 {
		return false
	}
	media, _, _ := strings.Cut(values[0], ";")
	media = strings.ToLower(strings.TrimSpace(media))
	switch media {
	case "text/event-stream", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json-seq",
		"application/stream+json", "application/vnd.amazon.eventstream", "multipart/x-mixed-replace":
		return true
	}
	return strings.HasPrefix(media, "application/grpc")
}
