package ratelimit

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
	"httpowerd/internal/state/memory"
)

// counted is one limiter with what changed of it lately.
type counted struct {
	*memory.Limiter
	recent state.Recent
	told   atomic.Pointer[told]
}

// limits are the limiters of one level.
type limits struct {
	room  *Room
	level string
	rate  atomic.Pointer[memory.Rate] // of those that are made later
	table *state.Table[*counted]
}

// kept is the part of a Config that limiters are kept by: what says whom they count. New numbers are given to those that are there.
type kept struct{ scope, key string }

func (r *Room) keepLimits(scope state.Scope, l Level) *limits {
	rate := &memory.Rate{Requests: l.Config.Requests, Per: l.Config.Per.D(), Burst: l.Config.burst()}
	level := state.Scope{Generation: scope.Generation, Policy: l.Name}
	all := state.Keep(level, "rate_limit", kept{l.Config.Scope, strings.Join(l.Config.Key, "\n")}, func() *limits {
		all := &limits{room: r, level: l.Name}
		all.rate.Store(rate)
		all.table = state.NewTable(state.MaxEntries, all.limiter)
		r.mu.Lock()
		r.limits[all] = struct{}{}
		r.mu.Unlock()
		return all
	})
	scope.Generation.OnCommit(func() {
		old := all.rate.Swap(rate)
		all.table.Each(func(_ state.Key, l *counted) {
			if l.SetRate(*rate) {
				l.recent.Add(rateText(*old), rateText(*rate), "configuration")
			}
		})
	})
	return all
}

func rateText(r memory.Rate) string {
	return fmt.Sprintf("%d per %s, burst %d", r.Requests, setting.Duration(r.Per), r.Burst)
}

// limiter makes the limiter of a key.
func (l *limits) limiter(k state.Key) *counted {
	c := &counted{}
	if s := l.room.shared; s != nil {
		c.Limiter = s.limiter(l, k, c)
	} else {
		c.Limiter = memory.NewLimiter(*l.rate.Load(), l.room.spread)
	}
	return c
}

// Close forgets the limiters; requests that still use them may go on doing so.
func (l *limits) Close() error {
	l.room.mu.Lock()
	delete(l.room.limits, l)
	l.room.mu.Unlock()
	return nil
}

// limit is one level that limits.
type limit struct {
	*limits
	config  Config
	price   price
	headers []string // of the key, in net/http's spelling; "" stands for another part
	turns   bool     // tenants share it, and take turns
	text    string   // for refusals
	policy  string   // the RateLimit-Policy item
	name    string   // the quoted name of its item in RateLimit
}

func (r *Room) limitOf(scope state.Scope, l Level) limit {
	out := limit{limits: r.keepLimits(scope, l), config: l.Config, turns: !slices.Contains(l.Config.Key, "tenant"),
		text: fmt.Sprintf("the limit of %d in %s (%s)", l.Config.Requests, l.Config.Per, l.Name)}
	var err error
	if out.price, err = newPrice(l.Config); err != nil {
		panic("a cost that was checked before: " + err.Error())
	}
	for _, part := range l.Config.Key {
		name, _ := strings.CutPrefix(part, "header:")
		if name == part {
			name = ""
		}
		out.headers = append(out.headers, http.CanonicalHeaderKey(name))
	}
	out.name = quote(l.Name)
	out.policy = policyItem(out.name, l.Config, out.price.ordinary())
	return out
}

// of is the limiter that counts this request.
func (l *limit) of(room *Room, x *exchange.Exchange, r *http.Request) *counted {
	k := state.Key{Authority: x.Target}
	if l.config.Scope == ScopePattern {
		pattern := x.Pattern()
		k.Authority = exchange.Authority{Host: pattern}
	}
	if len(l.config.Key) == 0 {
		return l.table.Get(k)
	}
	var space [fingerprintSpace]byte
	parts := space[:secretSize]
	for i, part := range l.config.Key {
		switch part {
		case "tenant":
			k.Tenant = x.Tenant
		case "credential":
			parts = appendPart(parts, part, room.credential(r.Header))
		case "path":
			parts = appendPart(parts, part, r.URL.Path)
		default:
			parts = appendPart(parts, part, strings.Join(r.Header[l.headers[i]], ","))
		}
	}
	if len(parts) > secretSize {
		k.Credential = room.fingerprint(parts)
	}
	return l.table.Get(k)
}
