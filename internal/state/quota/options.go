package quota

import "slices"

// Auto recognises a dialect by its field names, and a reset by its shape and size.
const Auto = "auto"

// Options type what a host is known to send; the zero value is Auto, and seconds.
type Options struct {
	Dialect string
	Reset   string
	Unit    string // of a bare number in Retry-After: s (also where it is empty) or ms
}

// The dialects, most specific first: this is the order in which Auto tries them.
const (
	Anthropic  = "anthropic"
	OpenAI     = "openai"
	Shopify    = "shopify"
	Gorgias    = "gorgias"
	HubSpot    = "hubspot"
	Salesforce = "salesforce"
	Discord    = "discord"
	GitHub     = "github"
	X          = "x"
	GitLab     = "gitlab"
	Docker     = "docker"
	IETF       = "ietf"     // RateLimit and RateLimit-Policy: drafts 07 to 10
	IETFOld    = "ietf-old" // RateLimit-Limit, -Remaining, -Reset: drafts 00 to 06
	Generic    = "generic"  // X-RateLimit-Limit, -Remaining, -Reset
)

var dialects = []string{Auto, Anthropic, OpenAI, Shopify, Gorgias, HubSpot, Salesforce, Discord, GitHub, X, GitLab, Docker, IETF, IETFOld, Generic}

// How a reset is written.
const (
	Seconds      = "seconds"      // to go
	Milliseconds = "milliseconds" // to go
	Epoch        = "epoch"        // seconds since 1970
	EpochMillis  = "epoch-ms"     // milliseconds since 1970
	Duration     = "duration"     // to go, with units: 6m0s
	Date         = "date"         // RFC 3339 or an HTTP date
)

var resets = []string{Auto, Seconds, Milliseconds, Epoch, EpochMillis, Duration, Date}

// Dialects are the names that Options.Dialect takes.
func Dialects() []string { return slices.Clone(dialects) }

// Resets are the names that Options.Reset takes.
func Resets() []string { return slices.Clone(resets) }
