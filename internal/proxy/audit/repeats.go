package audit

import (
	"hash/maphash"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

const (
	maxRepeats    = 256
	longestRepeat = 512 // what the client's part of a question has at most, in bytes
)

// repeats remembers how records say what was asked for: clients ask for the same again and again, and to search and to write that anew takes half of the
// time that a record takes. Only what holds no secret is remembered, and only from its second time on, so that what never comes again costs nothing. One
// goroutine uses it.
type repeats struct {
	seed maphash.Seed
	rows [maxRepeats]repeat
}

// repeat is a question and how records say it.
type repeat struct {
	hash      uint64           // of the question's URL
	missed    uint64           // the hash of the last one that came here and was not remembered
	knowledge redact.Knowledge // with which no secret was found
	question  question
	text      []byte // nil: nothing is remembered
}

// question is what an exchange asked for: how records say it depends on nothing else but on what is known to be secret.
type question struct {
	method, url, host, policy string
	mode                      exchange.Mode
}

func questionOf(x *exchange.Exchange) *question {
	return &question{x.Method, x.URL, x.Target.Host, x.Policy, x.Mode}
}

func newRepeats() *repeats { return &repeats{seed: maphash.MakeSeed()} }

// find is how records say q, nil where that is not remembered. Then row is where to remember it: nil where it was not asked before.
func (p *repeats) find(q *question, k redact.Knowledge) (text []byte, row *repeat) {
	h := maphash.String(p.seed, q.url)
	row = &p.rows[(h+uint64(len(q.method)))%maxRepeats]
	if row.hash == h && row.knowledge == k && row.question == *q {
		return row.text, row
	}
	if row.missed == h {
		return nil, row
	}
	row.missed = h
	return nil, nil
}

// keep remembers a question, the last one that was missed here, and how records say it. It copies: the strings of a request hold on to all of its head.
func (r *repeat) keep(q *question, k redact.Knowledge, text []byte) {
	r.hash, r.knowledge, r.text = r.missed, k, append(r.text[:0], text...)
	r.question = question{strings.Clone(q.method), strings.Clone(q.url), strings.Clone(q.host), q.policy, q.mode}
}
