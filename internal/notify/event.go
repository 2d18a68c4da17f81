package notify

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/redact"
)

// Event is what is told.
type Event struct {
	Type       string
	Time       time.Time
	Policy     string
	Tenant     string
	Host       string // metrics label
	Authority  string
	From, To   string // states; "" where the type has none
	Reason     string
	RetryAfter time.Duration
}

// subject is what events are about: two of one subject may become one.
type subject struct{ family, policy, tenant, authority string }

func (e *Event) subject() subject {
	family, _, _ := strings.Cut(e.Type, ".")
	if e.Type == AuditFailed { // the trail and each of its copies fail by themselves
		return subject{family: family, authority: e.Reason}
	}
	return subject{family, e.Policy, e.Tenant, e.Authority}
}

// maxText bounds each text of an event.
const maxText = 512

// clean is the event with texts of bounded length and without secrets: it leaves the house.
func (e Event) clean() Event {
	for _, text := range []*string{&e.Policy, &e.Tenant, &e.Host, &e.Authority, &e.From, &e.To, &e.Reason} {
		*text = redact.SafeText(redact.Default().Text(*text), maxText)
	}
	return e
}

// payload is the event as JSON.
type payload struct {
	Type       string   `json:"type"`
	Time       string   `json:"time"`
	Policy     string   `json:"policy,omitempty"`
	Tenant     string   `json:"tenant,omitempty"`
	Host       string   `json:"host,omitempty"`
	Authority  string   `json:"authority,omitempty"`
	From       string   `json:"from,omitempty"`
	To         string   `json:"to,omitempty"`
	Reason     string   `json:"reason"`
	RetryAfter *float64 `json:"retry_after_seconds,omitempty"` // of what has states
}

// body is what is posted.
func (e Event) body(f Format) []byte {
	var v any
	if f == Slack {
		v = struct {
			Text string `json:"text"`
		}{e.slack()}
	} else {
		p := payload{e.Type, e.Time.UTC().Format(time.RFC3339Nano), e.Policy, e.Tenant, e.Host, e.Authority, e.From, e.To, e.Reason, nil}
		if e.To != "" {
			seconds := math.Round(e.RetryAfter.Seconds()*1000) / 1000
			p.RetryAfter = &seconds
		}
		v = p
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic("a notification cannot be written: " + err.Error()) // made of nothing but texts and a finite number
	}
	return text
}

// title is what an event is called in a message.
func (e *Event) title() string {
	switch e.Type {
	case BreakerStateChanged:
		return "Circuit breaker " + strings.ReplaceAll(e.To, "_", " ")
	case GateClosed:
		return "Quota used up, gate closed"
	case GateOpened:
		return "Gate opened"
	case CredentialFailed:
		return "Credential failed"
	case AuditFailed:
		return "Audit records cannot be written"
	case ConfigReloadFailed:
		return "Configuration not loaded"
	}
	return e.Type
}

// slack is the event as a line of Slack's markup. Its control characters are escaped, so that no text can mention a channel or make a link.
func (e *Event) slack() string {
	text := "*" + e.title() + "*"
	if e.Authority != "" {
		text += " for `" + e.Authority + "`"
	}
	if e.From != "" {
		text += " (was " + strings.ReplaceAll(e.From, "_", " ") + ")"
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.RetryAfter > 0 {
		text += "; tried again in " + e.RetryAfter.Round(time.Second).String()
	}
	if e.Tenant != "" {
		text += "; tenant " + e.Tenant
	}
	return slackEscapes.Replace(text)
}

var slackEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// newID names a message for its receiver, the same for each try.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return "msg_" + hex.EncodeToString(b[:])
}

// sign is the signature of Standard Webhooks: version 1, over id, timestamp and body.
func sign(key []byte, id string, at time.Time, body []byte) (timestamp, signature string) {
	timestamp = strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return timestamp, "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
