package audit

import (
	"strconv"

	"httpowerd/internal/exchange"
)

// appendSanitized appends what was found in the traffic itself: its place and kind, never its value.
func appendSanitized(b []byte, list []exchange.Sanitized) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(append(b, `,"sanitized":`...), '[')
	for i, s := range list[:min(len(list), maxFields)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"where":`...), s.Where, maxMethod)
		b = appendField(b, `,"kind":`, s.Kind, maxMethod)
		b = appendField(b, `,"action":`, s.Action, maxMethod)
		b = strconv.AppendInt(append(b, `,"count":`...), int64(s.Count), 10)
		b = append(b, '}')
	}
	return append(b, ']')
}
