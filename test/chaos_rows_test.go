package test

import "strings"

// chaosRows is the matrix: what goes wrong, and what must come of it for requests that may be repeated and for those that may not.
func chaosRows() []chaos {
	ok := end{status: 200, body: "ok", received: 1, attempts: "200"}
	var rows []chaos
	for _, group := range [][]chaos{lostAnswers(), brokenBodies(), statuses(), waits(), refusedRetries(), signals()} {
		rows = append(rows, group...)
	}
	rows = append(rows, chaos{name: "nothing", script: "ok", repeat: ok}, chaos{name: "nothing, on a kept connection", script: "ok", warm: true,
		repeat: end{status: 200, body: "ok", received: 2, attempts: "200"}})
	return append(rows, elsewhere(rows)...)
}

// elsewhere are the rows that are not in clear: the same by TLS, those that HTTP/2 has words for, and those that only HTTP/2 has.
func elsewhere(rows []chaos) []chaos {
	var out []chaos
	for _, row := range rows {
		if strings.Contains(row.policy, "upgrade:") {
			continue // it is the lack of TLS
		}
		row.over = overTLS
		out = append(out, row)
		if row.over = overHTTP2; speakable(row.script) {
			out = append(out, row)
		}
	}
	for _, row := range streams() {
		row.over = overHTTP2
		out = append(out, row)
	}
	return out
}

// streams are what can go wrong with one stream, or be said of a whole connection.
func streams() []chaos {
	unseen := lost(502, "upstream_reset", 4, times(4, "reset", "upstream_reset"), "attempts") // nobody looked at it: any may be repeated
	again := end{status: 200, body: "ok", received: 2, attempts: "upstream_reset, reset 200"}
	kept := again
	kept.received++
	opened := lost(502, "upstream_reset", 3, times(3, "reset", "upstream_reset"), "breaker")
	opened.never = true // three attempts were made
	rows := []chaos{}
	for _, word := range []string{"refused", "goaway"} {
		rows = append(rows,
			chaos{name: word + ", always", script: word, repeat: unseen},
			chaos{name: word + ", until the breaker opens", script: word, policy: "breaker: {consecutive: 3}", repeat: opened},
			chaos{name: word + ", once", script: word + "/ok", repeat: again},
			chaos{name: word + ", on a kept connection", script: "ok/" + word + "/ok", warm: true, repeat: kept})
	}
	for word, code := range map[string]string{"internal": "upstream_reset", "enhance": "upstream_reset", "goaway-seen": "upstream_reset", "protocol": "upstream_protocol"} {
		second := end{status: 200, body: "ok", received: 2, attempts: code + ", reset 200"}
		rows = append(rows, chaos{name: word + ", once", script: word + "/ok", once: lostOnce(502, code), repeat: second})
		if word == "protocol" { // net/http was about to send it again by itself, which hides why
			rows[len(rows)-1].other = map[string]end{"get": again}
		}
	}
	cut := end{status: 200, body: "0123456789", cut: true, received: 1, attempts: "200", outcome: "upstream_reset"}
	long := end{status: 200, body: "ok", received: 1, attempts: "200", outcome: "upstream_protocol"} // the client has what was announced
	return append(rows,
		chaos{name: "resets the stream within its body", script: "part-reset/ok", repeat: cut},
		chaos{name: "less than its length", script: "short/ok", repeat: cut},
		chaos{name: "more than its length", script: "long/ok", repeat: long})
}

// times is an attempt, and n-1 more for the same reason.
func times(n int, reason, ended string) string {
	return ended + strings.Repeat(", "+reason+" "+ended, n-1)
}

// lost is a failure that the proxy answers, repeated or not.
func lost(status int, code string, received int, attempts, why string) end {
	return end{status: status, received: received, attempts: attempts, outcome: code, notRetried: why, never: why == "attempts"}
}

// lostOnce is the end of a request that may not be repeated.
func lostOnce(status int, code string) *end {
	e := lost(status, code, 1, code, "method")
	return &e
}

// lostAnswers are upstreams from which no answer comes.
func lostAnswers() []chaos {
	second := func(reason, ended string) end { // good on the second attempt
		return end{status: 200, body: "ok", received: 2, attempts: ended + ", " + reason + " 200"}
	}
	always := func(code, reason string, status int) end {
		return lost(status, code, 4, times(4, reason, code), "attempts")
	}
	short := "timeout: {attempt: 2s, total: 40s}" // what is to be in time has it also on a machine that is busy
	rows := []chaos{
		{name: "refuses connections", repeat: lost(502, "upstream_connect", 0, times(4, "connect", "upstream_connect"), "attempts")},
		{name: "does not speak TLS", script: "ok", policy: "upgrade: https",
			repeat: lost(502, "upstream_tls", 0, times(4, "tls", "upstream_tls"), "attempts")},
		{name: "hangs", script: "hang", policy: short, repeat: always("upstream_timeout", "timeout", 504), once: lostOnce(504, "upstream_timeout")},
		{name: "hangs once", script: "hang/ok", policy: short, repeat: second("timeout", "upstream_timeout"), once: lostOnce(504, "upstream_timeout")},
		{name: "hangs within the head", script: "head-hang/ok", policy: short, repeat: second("timeout", "upstream_timeout"),
			once: lostOnce(504, "upstream_timeout")},
		{name: "answers slowly, but in time", script: "slow", repeat: end{status: 200, body: "ok", received: 1, attempts: "200"}},
		{name: "answers too late", script: "late", policy: "timeout: {attempt: 300ms, total: 40s}", repeat: always("upstream_timeout", "timeout", 504),
			once: lostOnce(504, "upstream_timeout")},
	}
	for word, code := range map[string]string{"reset": "upstream_reset", "close": "upstream_reset", "half-close": "upstream_reset",
		"head-cut": "upstream_reset", "informed-cut": "upstream_reset", "garbage": "upstream_protocol", "two-lengths": "upstream_protocol"} {
		kept := second("reset", code)
		kept.received++
		never := lostOnce(502, code)
		never.received++
		rows = append(rows,
			chaos{name: word + ", always", script: word, repeat: always(code, "reset", 502), once: lostOnce(502, code)},
			chaos{name: word + ", once", script: word + "/ok", repeat: second("reset", code), once: lostOnce(502, code)},
			chaos{name: word + ", on a kept connection", script: "ok/" + word + "/ok", warm: true, repeat: kept, once: never})
	}
	return rows
}

// brokenBodies are answers that end badly after their head went to the client: nothing can be repeated any more.
func brokenBodies() []chaos {
	cut := func(outcome string) end {
		return end{status: 200, body: "0123456789", cut: true, received: 1, attempts: "200", outcome: outcome}
	}
	return []chaos{
		{name: "resets after the head", script: "body-reset/ok", repeat: cut("upstream_reset")},
		{name: "truncated body", script: "body-cut/ok", repeat: cut("upstream_reset")},
		{name: "truncated chunks", script: "chunk-cut/ok", repeat: cut("upstream_reset")},
		{name: "body that stops", script: "body-hang/ok", policy: "timeout: {attempt: 10s, body_idle: 300ms}", repeat: cut("upstream_timeout")},
		{name: "more than its length", script: "too-long", repeat: end{status: 200, body: "ok", received: 1, attempts: "200"}},
		{name: "answers before it has read", script: "413-unread/ok", repeat: end{status: 413, body: "413", received: 1, attempts: "413"}},
	}
}

// statuses are answers that say that it went wrong.
func statuses() []chaos {
	var rows []chaos
	outcome := func(status string) string {
		if status[0] == '5' {
			return "upstream_error"
		}
		return ""
	}
	number := map[string]int{"400": 400, "404": 404, "408": 408, "409": 409, "425": 425, "429": 429, "500": 500, "501": 501, "502": 502, "503": 503, "504": 504}
	for status, n := range number {
		once := end{status: n, body: status, received: 1, attempts: status, outcome: outcome(status)}
		switch status {
		case "400", "404", "409", "501":
			rows = append(rows, chaos{name: status, script: status + "/ok", repeat: once})
			continue
		}
		once.notRetried = "method"
		rows = append(rows, chaos{name: status + ", always", script: status, once: &once,
			repeat: end{status: n, body: status, received: 4, attempts: times(4, "status", status), outcome: outcome(status), notRetried: "attempts", never: true}},
			chaos{name: status + ", once", script: status + "/ok", once: &once,
				repeat: end{status: 200, body: "ok", received: 2, attempts: status + ", status 200"}})
	}
	failed := end{status: 500, body: "500", received: 1, attempts: "500", outcome: "upstream_error", notRetried: "method"}
	return append(rows,
		chaos{name: "fails three times in three ways", script: "reset/500/503/ok", once: lostOnce(502, "upstream_reset"),
			repeat: end{status: 200, body: "ok", received: 4, attempts: "upstream_reset, reset 500, status 503, status 200"}},
		chaos{name: "fails four times", script: "500/503/502/504/ok", once: &failed, repeat: end{status: 504, body: "504", received: 4,
			attempts: "500, status 503, status 502, status 504", outcome: "upstream_error", notRetried: "attempts", never: true}})
}

// waits are answers that say when to come again.
func waits() []chaos {
	var rows []chaos
	for _, w := range []struct{ word, status string }{{"after-1", "503"}, {"after-date", "503"}, {"after-0", "503"}, {"after-past", "503"},
		{"after-word", "503"}, {"after-minus", "503"}, {"429-after-1", "429"}, {"429-date", "429"}} {
		once := end{status: 503, body: w.status, received: 1, attempts: w.status, outcome: "upstream_error", notRetried: "method"}
		if w.status == "429" {
			once.status, once.outcome = 429, ""
		}
		rows = append(rows, chaos{name: w.status + " " + w.word, script: w.word + "/ok", once: &once,
			repeat: end{status: 200, body: "ok", received: 2, attempts: w.status + ", status 200"}})
	}
	for _, w := range []struct{ word, status string }{{"after-hour", "503"}, {"after-never", "503"}, {"after-ages", "503"}, {"429-hour", "429"}} {
		repeat := end{status: 503, body: w.status, received: 1, attempts: w.status, outcome: "upstream_error", notRetried: "retry_after"}
		if w.status == "429" {
			repeat.status, repeat.outcome = 429, ""
		}
		once := repeat
		once.notRetried = "method"
		rows = append(rows, chaos{name: w.status + " " + w.word + ", longer than is waited", script: w.word + "/ok", repeat: repeat, once: &once})
	}
	return rows
}

// refusedRetries are failures after which something else than the upstream forbids another attempt.
func refusedRetries() []chaos {
	no := func(why string) (repeat end, once *end) {
		repeat = end{status: 503, body: "503", received: 1, attempts: "503", outcome: "upstream_error", notRetried: why}
		other := repeat
		other.notRetried = "method"
		return repeat, &other
	}
	spent, once := no("budget")
	unkept, _ := no("body")
	unkeptOnce := *once
	good := end{status: 200, body: "ok", received: 2, attempts: "503, status 200"}
	off := spent
	off.notRetried = ""
	single := spent
	single.notRetried = "attempts"
	late := spent
	late.notRetried = "retry_after"
	return []chaos{
		{name: "the budget is spent", script: "503/ok", retry: "budget: {ratio: 0, floor: 0}", repeat: spent, once: once},
		{name: "the body is not kept", script: "503/ok", retry: "buffer: 4", repeat: unkept, other: map[string]end{"get": good, "post": unkeptOnce,
			"post-unhonoured": unkeptOnce}},
		{name: "the wait ends after the deadline", script: "after-1/ok", policy: "timeout: {attempt: 700ms, total: 800ms}", retry: "retry_after: {max: 790ms}",
			repeat: late, once: once},
		{name: "retries are off", script: "503/ok", retry: "attempts: 1", repeat: off, other: map[string]end{"post-keyed": single, "post-injected": single}},
	}
}

// signals are upstreams that say themselves whether another attempt helps.
func signals() []chaos {
	failed := end{status: 503, body: "503", received: 1, attempts: "503", outcome: "upstream_error", notRetried: "method"}
	told := failed
	told.notRetried, told.never = "", true
	conflict := end{status: 409, body: "409", received: 1, attempts: "409", notRetried: "method"}
	busy := end{status: 200, body: "ok", received: 1, attempts: "200", notRetried: "method"}
	return []chaos{
		{name: "asks for a retry of an unsafe method", script: "503-again/ok", repeat: end{status: 200, body: "ok", received: 2, attempts: "503, status 200"},
			once: &failed},
		{name: "asks for a retry of what is none", script: "409-again/ok", repeat: end{status: 200, body: "ok", received: 2, attempts: "409, status 200"},
			once: &conflict},
		{name: "forbids a retry", script: "503-not/ok", repeat: told},
		{name: "a 200 that is a failure", script: "busy/ok", retry: `failure_when: "'x-busy' in response.headers"`,
			repeat: end{status: 200, body: "ok", received: 2, attempts: "200, predicate 200"}, once: &busy},
	}
}
