package sanitize

import (
	"errors"
	"fmt"
	"strings"

	"httpowerd/internal/setting"
)

// Config is the block sanitize. Start from Default.
type Config struct {
	// Request is what may not leave. What blocks holds a request back until all of it, or MaxBody of it, was looked at.
	Request Rules `yaml:"request"`
	// Response is what may not come in. What masks or blocks asks the upstream for no part of an answer, and for no coding that cannot be read.
	Response Rules `yaml:"response"`
	// Skip is where card numbers and secrets belong: what stands there is not judged.
	Skip Skip `yaml:"skip"`
	// MaxBody is how much of a body is held back. What is larger is looked at as it goes, and cut off where something is to be blocked: the other side
	// has a part of it then. It is memory for each exchange.
	MaxBody setting.Size `yaml:"max_body"`
	// Unreadable says what happens to a body that cannot be looked at, because of its coding or charset: pass notes it, block refuses it.
	Unreadable string `yaml:"unreadable"`
	// Mode observe counts and notes what would be masked and blocked, and changes nothing.
	Mode setting.Mode `yaml:"mode"`
}

// Rules are what happens to what is found in one direction.
type Rules struct {
	// Cards are card numbers, what a magnetic stripe holds, and security codes by their name.
	Cards Action `yaml:"cards"`
	// Secrets are tokens of known vendors, JSON web tokens and private keys. A program's own credentials in their header fields are none.
	Secrets Action `yaml:"secrets"`
}

// Skip names places.
type Skip struct {
	// Headers are header fields; case makes no difference.
	Headers []string `yaml:"headers"`
	// Fields are fields of JSON, forms and XML, and parameters of URLs, at any depth; case, - and _ make no difference.
	Fields []string `yaml:"fields"`
}

// Default is the block with nothing written in it.
func Default() Config {
	return Config{Request: Rules{Cards: Block, Secrets: Block}, Response: Rules{Cards: Mask, Secrets: Off}, MaxBody: 1 << 20, Unreadable: unreadablePass, Mode: setting.Enforce}
}

// The values of Unreadable.
const (
	unreadablePass  = "pass"
	unreadableBlock = "block"
)

// Action is what happens to what is found.
type Action string

// The actions.
const (
	Off    Action = "off"    // it is not looked for
	Report Action = "report" // it is counted and noted
	Mask   Action = "mask"   // something else takes its place
	Block  Action = "block"  // the message is refused
)

var errAction = errors.New("must be off, report, mask or block")

// DecodeSetting takes the words, and false.
func (a *Action) DecodeSetting(v any) error {
	switch v {
	case false, "off":
		*a = Off
	case "report", "mask", "block":
		*a = Action(v.(string))
	default:
		return errAction
	}
	return nil
}

// SettingKind describes what may be written.
func (Action) SettingKind() string { return "off, report, mask or block" }

// On tells whether anything is looked for.
func (r Rules) On() bool { return r.Cards != Off || r.Secrets != Off }

// Bounds of what may be written.
const (
	leastBody = 4 << 10
	mostBody  = 64 << 20
	mostNames = 256
	mostName  = 128
)

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	fault := func(key, format string, args ...any) { faults = append(faults, setting.Faultf(key, format, args...)) }
	if !c.Request.On() && !c.Response.On() {
		fault("", "looks for nothing in either direction: write sanitize: off")
	}
	names := func(key string, list []string, check func(string) string) {
		if len(list) > mostNames {
			fault(key, "may have at most %d entries, has %d", mostNames, len(list))
		}
		for i, name := range list {
			if message := check(name); message != "" {
				fault(fmt.Sprintf("%s[%d]", key, i), "%s", message)
			}
		}
	}
	names("skip.headers", c.Skip.Headers, checkHeader)
	names("skip.fields", c.Skip.Fields, checkField)
	if c.MaxBody < leastBody || c.MaxBody > mostBody {
		fault("max_body", "must be from %s to %s, is %s", setting.Size(leastBody), setting.Size(mostBody), c.MaxBody)
	}
	if c.Unreadable != unreadablePass && c.Unreadable != unreadableBlock {
		fault("unreadable", "must be pass or block, is %q", c.Unreadable)
	}
	if c.Mode != setting.Enforce && c.Mode != setting.Observe {
		fault("mode", "must be enforce or observe, is %q", c.Mode)
	}
	return faults
}

func checkHeader(s string) string {
	if s == "" || len(s) > mostName || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) {
		return fmt.Sprintf("%.40q is not the name of a header field: write it without colon or spaces, such as X-Card-Token", s)
	}
	return ""
}

func checkField(s string) string {
	switch {
	case len(s) > mostName:
		return fmt.Sprintf("is longer than %d bytes", mostName)
	case !strings.ContainsFunc(s, func(r rune) bool { return r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z' }):
		return fmt.Sprintf("%q has no letter or digit, so it would match no name", s)
	}
	return ""
}
