package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// column is a kind of request that the chaos matrix sends to every kind of upstream.
type column struct {
	name, method string
	key          string // that the client sends
	retry        string // of the retry block
	repeatable   bool   // although the upstream may have acted on it
	injects      bool
}

var columns = []column{
	{name: "get", method: http.MethodGet, repeatable: true},
	{name: "put", method: http.MethodPut, repeatable: true},
	{name: "post", method: http.MethodPost},
	{name: "post-unhonoured", method: http.MethodPost, key: "k-1"}, // nobody says that the upstream honours it
	{name: "post-keyed", method: http.MethodPost, key: "k-1", repeatable: true, retry: "idempotency_key: {inject: false}"},
	{name: "post-injected", method: http.MethodPost, repeatable: true, injects: true, retry: "idempotency_key: on"},
}

// columnsElsewhere are those that are sent to rows that are not in clear: what a key is and means is the same there.
var columnsElsewhere = []string{"get", "put", "post", "post-keyed"}

// chaos is what goes wrong, and what must come of it.
type chaos struct {
	name   string
	over   string         // how the upstream is spoken to: in clear, or within an intercepted connection by overTLS or overHTTP2
	script string         // for the upstream, see behaviours; "": nobody listens
	policy string         // further blocks
	retry  string         // further keys of the retry block
	warm   bool           // a connection is kept from a request before
	repeat end            // of what may be repeated
	once   *end           // of what may not, where that differs
	other  map[string]end // of single columns
}

// How the upstream is spoken to otherwise than in clear.
const (
	overTLS   = "TLS"
	overHTTP2 = "HTTP/2"
)

// end is what the client, the upstream, the record and the metrics must say.
type end struct {
	status     int
	body       string // "": a problem of the proxy
	cut        bool   // the body breaks off
	received   int    // requests that the upstream got
	attempts   string // for each, after a comma: the reason for it, where it has one, and how it ended
	outcome    string // "": ok
	notRetried string
	never      bool // the client is told not to retry
}

// cell is one request of the matrix.
type cell struct {
	chaos
	column
	host   string
	want   end
	got    answered
	warmed string // the id of the request that warmed the connection up
}

// answered is what the client got.
type answered struct {
	status int
	header http.Header
	body   string
	err    error // while the body was read
}

const chaosBody = "amount=1"

// matrix makes a cell of every row and column.
func matrix() []*cell {
	var cells []*cell
	for i, row := range chaosRows() {
		for _, col := range columns {
			if row.over != "" && !slices.Contains(columnsElsewhere, col.name) {
				continue
			}
			c := &cell{chaos: row, column: col, host: fmt.Sprintf("%s-%d.example.com", col.name, i), want: row.repeat}
			if other, ok := row.other[col.name]; ok {
				c.want = other
			} else if row.once != nil && !col.repeatable {
				c.want = *row.once
			}
			if c.want.outcome == "" {
				c.want.outcome = "ok"
			}
			cells = append(cells, c)
		}
	}
	return cells
}

// TestChaos sends every kind of request to an upstream process that fails in every way, all through one daemon and all at once, and compares
// what the client got, what the upstream received, what the record says and what the metrics counted. A host for each cell keeps them apart.
func TestChaos(t *testing.T) {
	u, nobody := startScripted(t), refusing(t)
	cells := matrix()
	var config strings.Builder
	fmt.Fprintf(&config, "ca: {cert: %s, key: %s}\n", u.ca.certFile, u.ca.keyFile)
	config.WriteString("defaults: {timeout: {connect: 10s, attempt: 10s, body_idle: 10s}}\nhosts:\n")
	for _, c := range cells {
		known(t, strings.TrimPrefix(c.script+"/ok", "/"))
		config.WriteString(c.block(u, nobody))
	}
	d := start(t, config.String())
	var wg sync.WaitGroup
	slots := make(chan struct{}, 100)
	for _, c := range cells {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c.run(t, d, u.ca)
		})
	}
	wg.Wait()
	records := map[string][]record{}
	eventually(t, "every exchange is recorded", func() error {
		all := d.records(t, func(r record) bool { return r.Kind == "request" })
		if n := len(all); n < requests(cells) {
			return fmt.Errorf("%d of %d", n, requests(cells))
		}
		for _, r := range all {
			records[r.Host] = append(records[r.Host], r)
		}
		return nil
	})
	page := parseMetrics(d.ask("/metrics"))
	keys := map[string]string{}
	for _, c := range cells {
		t.Run(strings.ReplaceAll(c.chaos.title(), " ", "-")+"/"+c.column.name, func(t *testing.T) {
			c.checkAnswer(t)
			c.checkUpstream(t, u, keys)
			c.checkRecord(t, records[c.host])
			c.checkMetrics(t, page)
		})
	}
	t.Logf("%d rows, %d requests", len(chaosRows()), requests(cells))
	d.stop()
}

// requests is how many a matrix sends.
func requests(cells []*cell) (n int) {
	for _, c := range cells {
		if n++; c.warm {
			n++
		}
	}
	return n
}

// title names a row.
func (c chaos) title() string {
	if c.over == "" {
		return c.name
	}
	return c.name + " over " + strings.ReplaceAll(c.over, "/", "-")
}

// block is the cell's host.
func (c *cell) block(u *upstream, nobody string) string {
	address, trust := u.address, ""
	policy := c.policy
	if c.over != "" {
		address, trust = u.secure, ", ca: "+u.ca.certFile
		policy = strings.TrimSuffix("tls: intercept, "+policy, ", ")
	}
	switch {
	case c.script == "":
		address = nobody
	case c.over == overHTTP2:
		address = u.http2
	}
	retry := []string{"backoff: {base: 5ms, throttled: 10ms}"}
	for _, more := range []string{c.chaos.retry, c.column.retry} {
		if more != "" {
			retry = append(retry, more)
		}
	}
	if policy != "" {
		policy = ", " + policy
	}
	return fmt.Sprintf("  %s: {upstream: {resolve: {%s: \"%s\"}%s}, retry: {%s}%s}\n", c.host, c.host, address, trust, strings.Join(retry, ", "), policy)
}

func (c *cell) run(t *testing.T, d *daemon, ca *authority) {
	transport := &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: ca.pool()}}
	client := &http.Client{Transport: transport, Timeout: 2 * patience}
	url := "http://" + c.host + "/" + c.script
	if c.over != "" {
		url = "https" + strings.TrimPrefix(url, "http")
	}
	if c.warm {
		resp, err := client.Get(url)
		if err != nil {
			t.Errorf("%s: %v", c.host, err)
			return
		}
		c.warmed = resp.Header.Get("Httpowerd-Request-Id")
		if got := body(t, resp); got != "ok" {
			t.Errorf("%s: the request that warms it up got %s %q", c.host, resp.Status, got)
		}
	}
	var content io.Reader
	if c.method != http.MethodGet {
		content = strings.NewReader(chaosBody)
	}
	r, err := http.NewRequestWithContext(t.Context(), c.method, url, content)
	if err != nil {
		t.Error(err)
		return
	}
	if c.key != "" {
		r.Header.Set("Idempotency-Key", c.key)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Errorf("%s: %v", c.host, err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	c.got = answered{resp.StatusCode, resp.Header, string(text), err}
}

func (c *cell) checkAnswer(t *testing.T) {
	got := c.got
	switch {
	case got.status != c.want.status:
		t.Errorf("the client got %d %q; want %d", got.status, got.body, c.want.status)
	case c.want.body == "" && got.header.Get("Httpowerd-Error") != c.want.outcome:
		t.Errorf("the client got %q %q; want a problem %s", got.header.Get("Httpowerd-Error"), got.body, c.want.outcome)
	case c.want.body != "" && (got.body != c.want.body || got.header.Get("Httpowerd-Error") != ""):
		t.Errorf("the client got %q %v; want the upstream's %q", got.body, got.header, c.want.body)
	}
	if (got.err != nil) != c.want.cut {
		t.Errorf("the body ended with %v; want it to break off: %t", got.err, c.want.cut)
	}
	if never := got.header.Get("X-Should-Retry") == "false"; never != c.want.never {
		t.Errorf("X-Should-Retry is %q; want it to forbid: %t", got.header.Get("X-Should-Retry"), c.want.never)
	}
	n := len(c.attempts())
	if status := strings.Join(got.header.Values("Proxy-Status"), ", "); c.want.body != "" && n > 1 != strings.Contains(status, fmt.Sprintf("%d attempts", n)) {
		t.Errorf("Proxy-Status is %q after %d attempts", status, n)
	}
}

// checkUpstream compares what was received. keys are the injected ones so far: no two requests may share one.
func (c *cell) checkUpstream(t *testing.T, u *upstream, keys map[string]string) {
	var seen []sighting
	eventually(t, "the upstream received it", func() error {
		if seen = u.seen(t, c.host); len(seen) < c.want.received { // more shows below
			return fmt.Errorf("%d of %d", len(seen), c.want.received)
		}
		return nil
	})
	if c.warm && len(seen) > 0 {
		seen = seen[1:]
	}
	if n := c.want.received; len(seen) != n && !c.warm || c.warm && len(seen) != n-1 {
		t.Errorf("the upstream received %d requests; want %d (the one that warms up included)", len(seen), n)
	}
	for i, s := range seen {
		key := s.Header.Get("Idempotency-Key")
		first := seen[0].Header.Get("Idempotency-Key")
		want := chaosBody
		if c.method == http.MethodGet {
			want = ""
		}
		switch {
		case (s.Proto == 2) != (c.over == overHTTP2):
			t.Errorf("request %d is by HTTP/%d", i+1, s.Proto)
		case s.Method != c.method || s.Body != want:
			t.Errorf("request %d is %s %q; want %s %q", i+1, s.Method, s.Body, c.method, want)
		case !c.injects && key != c.key:
			t.Errorf("request %d carries the key %q; want %q", i+1, key, c.key)
		case c.injects && (len(key) != 36 || key != first):
			t.Errorf("request %d carries the key %q, the first one %q; want the same UUID", i+1, key, first)
		case c.injects && keys[key] != "" && keys[key] != c.host:
			t.Errorf("%s got the same key %q", keys[key], key)
		case i > 0 && s.At.Before(seen[i-1].NotBefore):
			t.Errorf("request %d came %v before the upstream allowed it", i+1, seen[i-1].NotBefore.Sub(s.At))
		}
		if c.injects {
			keys[key] = c.host
		}
	}
}

// attempts are the wanted ones, each as reason and end.
func (c *cell) attempts() (out [][2]string) {
	for text := range strings.SplitSeq(c.want.attempts, ", ") {
		reason, ended, two := strings.Cut(text, " ")
		if !two {
			reason, ended = "", reason
		}
		out = append(out, [2]string{reason, ended})
	}
	return out
}

func (c *cell) checkRecord(t *testing.T, records []record) {
	if c.warm { // its record is written after its answer, perhaps behind the other
		records = slices.DeleteFunc(records, func(r record) bool { return r.ID == c.warmed })
	}
	if len(records) != 1 {
		t.Fatalf("there are %d records", len(records))
	}
	r := records[0]
	if r.Status != c.want.status || r.Outcome != c.want.outcome || r.NotRetried != c.want.notRetried {
		t.Errorf("the record says %d, %q, not retried for %q; want %d, %q, %q\n%s", r.Status, r.Outcome, r.NotRetried, c.want.status, c.want.outcome,
			c.want.notRetried, r.line)
	}
	var got [][2]string
	for i, a := range r.Attempts {
		ended := a.Error
		if a.Status != 0 {
			ended = fmt.Sprint(a.Status)
		}
		got = append(got, [2]string{a.Reason, ended})
		if a.N != i+1 {
			t.Errorf("attempt %d is numbered %d", i+1, a.N)
		}
	}
	if !slices.Equal(got, c.attempts()) {
		t.Errorf("the record has the attempts %q; want %q\n%s", got, c.attempts(), r.line)
	}
}

// checkMetrics compares everything that was counted for the cell's host with what the wanted attempts come to.
func (c *cell) checkMetrics(t *testing.T, page samples) {
	want := map[string]map[string]float64{"httpowerd_attempts_total": {}, "httpowerd_retries_total": {}, "httpowerd_retries_refused_total": {},
		"httpowerd_requests_total": {}}
	for _, a := range c.attempts() {
		result := a[1]
		if result[0] >= '1' && result[0] <= '5' {
			result = result[:1] + "xx"
		}
		want["httpowerd_attempts_total"][result]++
		if a[0] != "" {
			want["httpowerd_retries_total"][a[0]]++
		}
	}
	if c.warm {
		want["httpowerd_attempts_total"]["2xx"]++
		want["httpowerd_requests_total"]["GET 200 ok"]++
	}
	if c.want.notRetried != "" {
		want["httpowerd_retries_refused_total"][c.want.notRetried]++
	}
	want["httpowerd_requests_total"][fmt.Sprintf("%s %d %s", c.method, c.want.status, c.want.outcome)]++
	for family, labels := range map[string][]string{"httpowerd_attempts_total": {"result"}, "httpowerd_retries_total": {"reason"},
		"httpowerd_retries_refused_total": {"reason"}, "httpowerd_requests_total": {"method", "code", "outcome"}} {
		got := page.of(family, c.host, labels...)
		if !maps.Equal(got, want[family]) {
			t.Errorf("%s is %v; want %v", family, got, want[family])
		}
	}
}
