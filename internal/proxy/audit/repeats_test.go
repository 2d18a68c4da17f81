package audit

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// asks is an exchange that asked q.
func asks(q question) *exchange.Exchange {
	x := typical()
	x.Method, x.URL, x.Target.Host, x.Policy, x.Mode = q.method, q.url, q.host, q.policy, q.mode
	return x
}

// TestRepeatsSayTheSame: a record that is made from memory is the one that is made without it, whatever was asked in between.
func TestRepeatsSayTheSame(t *testing.T) {
	const pan = "4111" + "111111" + "111111"
	custom, err := redact.New(redact.Config{Patterns: []string{"charges"}})
	if err != nil {
		t.Fatal(err)
	}
	var all []question
	for _, method := range []string{"GET", "PUT", "POST", pan} {
		for _, url := range []string{"https://api.example.com/v1/charges", "https://api.example.com/v1/charges?limit=10", "https://api.example.com/\"\x01é",
			"https://api.example.com/?token=" + strings.Repeat("s3cr3t", 4), "https://api.example.com/" + pan, "https://api.example.com/" + strings.Repeat("a", 600), ""} {
			for _, host := range []string{"api.example.com", pan + ".example.com"} {
				for _, mode := range []exchange.Mode{exchange.ModePlain, exchange.ModeIntercept} {
					all = append(all, question{method, url, host, "api.example.com", mode}, question{method, url, host, "*.example.com", mode})
				}
			}
		}
	}
	for _, r := range []*redact.Redactor{redact.Default(), custom} {
		with := record{redactor: r, repeats: newRepeats()}
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 30 * len(all) {
			q := all[rnd.IntN(len(all))]
			if rnd.IntN(2) > 0 { // some come more often
				q = all[rnd.IntN(10)]
			}
			without := record{redactor: r}
			with.counts = redact.Counts{}
			e := &Extra{End: time.Unix(1, 0)}
			got, wanted := string(with.appendExchange(nil, asks(q), e)), string(without.appendExchange(nil, asks(q), e))
			if got != wanted || with.counts.Total() != without.counts.Total() {
				t.Fatalf("%q\nfrom memory %s\nanew        %s", q, got, wanted)
			}
		}
		kept := 0
		for i := range with.repeats.rows {
			row := &with.repeats.rows[i]
			if row.text != nil {
				kept++
			}
			if s := fmt.Sprintf("%v %s", row.question, row.text); strings.Contains(s, "s3cr3t") || strings.Contains(s, pan) || r == custom && strings.Contains(s, "charges") {
				t.Errorf("remembered: %s", s)
			}
		}
		if kept == 0 {
			t.Error("nothing is remembered")
		}
	}
}

// TestRepeatsForget: what was remembered before a secret was learned, or with other rules, is searched anew.
func TestRepeatsForget(t *testing.T) {
	shared := redact.Shared{Literals: &redact.Literals{}}
	plain := shared.On(redact.Default())
	strict, err := redact.New(redact.Config{Patterns: []string{"order-[0-9]+"}})
	if err != nil {
		t.Fatal(err)
	}
	strict = shared.On(strict)
	r := record{repeats: newRepeats()}
	x := typical()
	x.URL = "https://api.example.com/v1/ord-7788-99/order-12"
	ask := func(by *redact.Redactor) string {
		r.redactor, r.counts = by, redact.Counts{}
		return string(r.appendExchange(nil, x, &Extra{}))
	}
	hidden := func(what, line, secret string, n int) {
		t.Helper()
		if strings.Contains(line, secret) != (n == 0) || r.counts.Total() != n {
			t.Errorf("%s: %d hidden in %s", what, r.counts.Total(), line)
		}
	}
	for i := range 3 {
		hidden(fmt.Sprint("a secret nobody knows of, ", i), ask(plain), "ord-7788-99", 0)
	}
	if text, _ := r.repeats.find(questionOf(x), knowledgeOf(plain)); text == nil {
		t.Fatal("it is not remembered")
	}
	for range 3 {
		hidden("by other rules", ask(strict), "order-12", 1)
	}
	hidden("by the first rules again", ask(plain), "order-12", 0)
	for range 2 {
		shared.Literals.Add(redact.NewSecret("ord-7788-99"))
		hidden("once it is known", ask(plain), "ord-7788-99", 1)
		shared.Literals.Remove(redact.NewSecret("ord-7788-99"))
		for range 3 {
			hidden("once it is forgotten", ask(plain), "ord-7788-99", 0)
		}
	}
}

// TestRepeatsKeepWhatComesAgain: what comes once takes no memory, and nothing away from what comes again.
func TestRepeatsKeepWhatComesAgain(t *testing.T) {
	r := record{redactor: redact.Default(), repeats: newRepeats()}
	x := typical()
	for i := range 10 * maxRepeats {
		x.URL = fmt.Sprintf("https://api.example.com/v1/charges/%d", max(0, i-5))
		r.appendExchange(nil, x, &Extra{})
	}
	for i := range r.repeats.rows {
		if row := &r.repeats.rows[i]; row.text != nil && !strings.HasSuffix(row.question.url, "/0") {
			t.Errorf("remembered: %s", row.text)
		}
	}
	x.URL = "https://api.example.com/v1/charges/0"
	if text, _ := r.repeats.find(questionOf(x), knowledgeOf(r.redactor)); text == nil {
		t.Error("what came six times is not remembered")
	}
}

func knowledgeOf(r *redact.Redactor) redact.Knowledge {
	k, _ := r.Knowledge()
	return k
}
