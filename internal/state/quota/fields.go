package quota

import (
	"net/http"
	"strings"
	"time"
)

// Fields are the rate-limit fields that an answer has, of all dialects: one look at its header spares asking for each of them.
type Fields struct {
	seen                    seen
	limit, remaining, reset []string // X-RateLimit-, which most upstreams have
}

// seen is what fields show. The dialects are told apart by it, see dialect.
type seen uint32

const (
	anthropicField seen = 1 << iota
	openAIField
	shopifyField
	gorgiasField
	hubSpotField
	salesforceField
	xField         // X-Rate-Limit-, of Twitter
	limitField     // X-RateLimit-
	remainsField   // X-RateLimit-
	resetField     // X-RateLimit-
	resetAfter     // of Discord
	bucketField    // of Discord
	resourceField  // of GitHub
	gitLabField    // what GitLab adds to RateLimit-
	remainingField // RateLimit-Remaining, whose form tells Docker Hub's
	ietfOldField   // RateLimit-
	ietfField      // RateLimit
	policyField    // RateLimit-Policy
	otherField     // one that only means something to who was told the dialect
	storedField    // Age: the answer may come from a store
)

// FieldsOf looks at a header.
func FieldsOf(h http.Header) (f Fields) {
	for name, values := range h {
		if len(name) < len("Ratelimit") {
			if name == "Age" {
				f.seen |= storedField
			}
			continue
		}
		switch name[0] {
		case 'R', 'X', 'A', 'S':
		default:
			continue // spares the call for most
		}
		s := fieldOf(name)
		switch f.seen |= s; s {
		case limitField:
			f.limit = values
		case remainsField:
			f.remaining = values
		case resetField:
			f.reset = values
		}
	}
	return f
}

func fieldOf(name string) seen {
	switch name[0] {
	case 'R':
		if rest, ok := strings.CutPrefix(name, "Ratelimit"); ok {
			return standardField(rest)
		}
	case 'X':
		if rest, ok := strings.CutPrefix(name, "X-Ratelimit-"); ok {
			return customField(rest)
		}
		return vendorField(name)
	case 'A':
		if rest, ok := strings.CutPrefix(name, "Anthropic-Ratelimit-"); ok {
			switch rest {
			case "Requests-Remaining", "Tokens-Remaining", "Input-Tokens-Remaining", "Output-Tokens-Remaining":
				return anthropicField
			}
			return otherField
		}
	case 'S':
		if name == "Sforce-Limit-Info" {
			return salesforceField
		}
	}
	return 0
}

func standardField(rest string) seen {
	switch rest {
	case "":
		return ietfField
	case "-Policy":
		return policyField
	case "-Remaining":
		return ietfOldField | remainingField
	case "-Limit", "-Reset":
		return ietfOldField
	case "-Observed", "-Resettime":
		return gitLabField
	}
	return otherField
}

func customField(rest string) seen {
	switch rest {
	case "Limit":
		return limitField
	case "Remaining":
		return remainsField
	case "Reset":
		return resetField
	case "Remaining-Requests", "Remaining-Tokens", "Reset-Requests", "Reset-Tokens":
		return openAIField
	case "Reset-After":
		return resetAfter
	case "Bucket":
		return bucketField
	case "Resource":
		return resourceField
	}
	return otherField
}

func vendorField(name string) seen {
	switch name {
	case "X-Rate-Limit-Remaining", "X-Rate-Limit-Limit":
		return xField
	case "X-Shopify-Shop-Api-Call-Limit":
		return shopifyField
	case "X-Gorgias-Account-Api-Call-Limit":
		return gorgiasField
	case "X-Hubspot-Ratelimit-Remaining", "X-Hubspot-Ratelimit-Daily-Remaining", "X-Hubspot-Ratelimit-Secondly-Remaining":
		return hubSpotField
	}
	if strings.HasPrefix(name, "X-Rate-Limit-") || strings.HasPrefix(name, "X-Hubspot-Ratelimit-") {
		return otherField
	}
	return 0
}

// Speaks tells whether there are fields that Read knows, whichever the dialect.
func (f *Fields) Speaks() bool { return f.seen&^storedField != 0 }

// plain is the form that most upstreams announce a quota in: X-RateLimit-Limit, -Remaining, and -Reset in seconds to go, each a few digits.
type plain struct{ limit, remaining, reset int64 }

// span is the time until the reset.
func (p plain) span() time.Duration { return min(time.Duration(p.reset)*time.Second, longest) }

// plain reads that form; ok is false where there is any other.
func (f *Fields) plain(o Options) (p plain, ok bool) {
	if f.seen != limitField|remainsField|resetField || len(f.limit) != 1 || len(f.remaining) != 1 || len(f.reset) != 1 ||
		o.Dialect != "" && o.Dialect != Auto || o.Reset != "" && o.Reset != Auto {
		return p, false
	}
	if p.limit, ok = whole(f.limit[0]); !ok {
		return p, false
	}
	if p.remaining, ok = whole(f.remaining[0]); !ok {
		return p, false
	}
	p.reset, ok = whole(f.reset[0])
	return p, ok && p.reset < leastEpoch
}

func (s seen) has(what seen) bool { return s&what != 0 }

// Announces tells whether there are fields of any dialect.
func (f *Fields) Announces(h http.Header) bool {
	name, _ := f.seen.dialect(h)
	return name != "" || f.seen.has(policyField)
}

// Standard tells which of today's standard fields there are, RateLimit and RateLimit-Policy.
func (f *Fields) Standard() (state, policies bool) {
	return f.seen.has(ietfField), f.seen.has(policyField)
}

// dialect recognises the dialect, the most specific first, and tells by which fields; "": there is none.
func (s seen) dialect(h http.Header) (name string, by seen) {
	generic := s & (limitField | remainsField | resetField)
	switch {
	case s.has(anthropicField):
		return Anthropic, anthropicField
	case s.has(openAIField):
		return OpenAI, openAIField
	case s.has(shopifyField):
		return Shopify, shopifyField
	case s.has(gorgiasField):
		return Gorgias, gorgiasField
	case s.has(hubSpotField):
		return HubSpot, hubSpotField
	case s.has(salesforceField):
		return Salesforce, salesforceField
	case generic != 0 && s.has(resetAfter), s.has(bucketField):
		return Discord, resetAfter | bucketField
	case generic != 0 && s.has(resourceField):
		return GitHub, resourceField
	case s.has(xField):
		return X, xField
	case s.has(gitLabField):
		return GitLab, gitLabField
	case s.has(remainingField) && strings.Contains(first(h, "Ratelimit-Remaining"), ";w="):
		return Docker, remainingField
	case s.has(ietfField):
		return IETF, ietfField
	case s.has(ietfOldField):
		return IETFOld, ietfOldField
	case generic != 0:
		return Generic, generic
	}
	return "", 0
}
