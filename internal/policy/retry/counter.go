package retry

import (
	"net/http"
	"strings"
)

// counter is a field in which programs say how often they have sent a request themselves.
type counter struct {
	field string // net/http's spelling
	label string // what the number follows within the value; "": it is the whole value
	first int    // what the first attempt says
}

// counters lists them: vendors' libraries, AWS's, gRPC's (proposal A6), Envoy's (a sidecar that retries is the program's too) and Google's.
var counters = [...]counter{
	{"X-Stainless-Retry-Count", "", 0},
	{"Amz-Sdk-Request", "attempt=", 1},
	{"Grpc-Previous-Rpc-Attempts", "", 0},
	{"X-Envoy-Attempt-Count", "", 1},
	{"X-Goog-Api-Client", "attempt-count/", 1},
}

// maxRepeats bounds what is believed.
const maxRepeats = 1000

// repeats is how often the program has sent the request before, by its own account; 0: never, or it does not say. Of several accounts the highest
// counts. What cannot be read says nothing.
func repeats(h http.Header) (n int) {
	for i := range counters {
		values := h[counters[i].field]
		if len(values) > 0 {
			n = max(n, counters[i].read(values[0]))
		}
	}
	return n
}

func (c *counter) read(value string) int {
	if c.label != "" {
		at := strings.Index(value, c.label)
		if at < 0 {
			return 0
		}
		value = value[at+len(c.label):]
	} else {
		value = strings.Trim(value, " \t")
	}
	n, digits := 0, 0
	for digits < len(value) && value[digits] >= '0' && value[digits] <= '9' {
		n = min(n*10+int(value[digits]-'0'), maxRepeats)
		digits++
	}
	if rest := value[digits:]; digits == 0 || rest != "" && (c.label == "" || strings.IndexByte("; \t,", rest[0]) < 0) {
		return 0
	}
	return max(0, n-c.first)
}
