package audit

import (
	"net/http"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
)

// TestHostileRecord: what the sender says of a message decides less about its record than what it sent.
func TestHostileRecord(t *testing.T) {
	const secret = "hunter2"
	token := "gh" + "p_" + "4eC39HqLyjWDarjtT1zdp7dc"
	wide := func(s string, order int) []byte {
		var b []byte
		for _, c := range []byte(s) {
			pair := [2]byte{c}
			b = append(b, pair[order], pair[1-order])
		}
		return b
	}
	for name, e := range map[string]*Extra{
		"the name of a field":    {RequestHeader: http.Header{"X-" + token: {"1"}}},
		"a coding that is not":   {RequestType: "text/csv", RequestEncoding: "gzip", RequestBody: []byte("user,password\nx," + secret + "\n")},
		"an unknown coding":      {RequestType: "text/csv", RequestEncoding: "aws-chunked", RequestBody: []byte("user,password\nx," + secret + "\n")},
		"the low byte first":     {RequestType: "text/plain; charset=utf-16", RequestBody: wide("password="+secret, 0)},
		"the high byte first":    {RequestType: "text/plain; charset=utf-16", RequestBody: wide("password="+secret, 1)},
		"the wrong order":        {RequestType: "text/plain; charset=UTF-16LE", RequestBody: wide("password="+secret, 1)},
		"the other wrong order":  {RequestType: "text/plain; charset=utf-16be", RequestBody: wide("password="+secret, 0)},
		"no charset, and binary": {RequestType: "text/plain", RequestBody: wide("password="+secret, 0)},
	} {
		line := exchangeLine(&exchange.Exchange{}, e)
		checkLine(t, line)
		for _, shown := range []string{secret, token[4:], "栀甀渀琀"} { // the last is what the wrong order makes of the first
			if strings.Contains(line, shown) {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}
