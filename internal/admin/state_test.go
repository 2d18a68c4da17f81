package admin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestState(t *testing.T) {
	r := newRig(t, "")
	w := r.ask("GET", "/api/v1/state", "")
	r.is(w, 200, "")
	want := `{"backend":"redis","up":false,"last_error":"timeout","on_failure":"local","share":2}`
	var got bytes.Buffer
	if err := json.Compact(&got, w.Body.Bytes()); err != nil || strings.TrimSpace(got.String()) != want {
		t.Errorf("%s, %v; want %s", &got, err, want)
	}
	r.is(r.ask("POST", "/api/v1/state", "{}"), 405, "method_not_allowed")
}
