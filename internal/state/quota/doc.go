// Package quota reads what upstreams announce about their rate limits, and holds requests back while an announced quota is used up.
package quota
