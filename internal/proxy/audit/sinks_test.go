package audit

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// receiver takes syslog messages over a stream.
type receiver struct {
	t      testing.TB
	mu     sync.Mutex
	l      net.Listener
	tls    *tls.Config
	conns  []net.Conn
	got    []string // messages
	closed sync.WaitGroup
}

// takenAgain is where a port is given up and taken again: not where all other tests get theirs, in the meantime too. Not every system has more of loopback.
var takenAgain = map[bool]string{true: "127.0.0.2:0", false: "127.0.0.1:0"}[runtime.GOOS == "linux"]

func (r *receiver) listen(address string) string {
	r.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.l = l
	r.closed.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r.tls != nil {
				c = tls.Server(c, r.tls)
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			r.closed.Go(func() { r.read(c) })
		}
	})
	return l.Addr().String()
}

func (r *receiver) read(c net.Conn) {
	defer c.Close()
	for b := bufio.NewReader(c); ; {
		length, err := b.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil {
			r.t.Errorf("no length: %q", length)
			return
		}
		m := make([]byte, n)
		if _, err := io.ReadFull(b, m); err != nil {
			return
		}
		r.mu.Lock()
		r.got = append(r.got, string(m))
		r.mu.Unlock()
	}
}

// stop ends the listener and cuts every connection.
func (r *receiver) stop() {
	_ = r.l.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // what has arrived and was not read is lost, as with a process that dies
		}
		_ = c.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.closed.Wait()
}

func (r *receiver) messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

var rfc5424 = regexp.MustCompile(`^<110>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) \S+ httpowerd \d+ audit - (\{.*\})$`)

// records takes the records out of messages, each once, in the order of their numbers.
func recordsOf(t testing.TB, messages []string) []string {
	t.Helper()
	bySeq := map[uint64]string{}
	for _, m := range messages {
		p := rfc5424.FindStringSubmatch(m)
		if p == nil {
			t.Fatalf("not as RFC 5424 says: %q", m)
		}
		if !strings.HasPrefix(p[2], opening+strings.TrimSuffix(p[1], "Z")) {
			t.Fatalf("another time: %q", m)
		}
		e, ok := parseEnding([]byte(p[2][max(0, len(p[2])-linkSize):]))
		if !ok {
			t.Fatalf("not chained: %q", m)
		}
		bySeq[e.seq] = p[2]
	}
	var out []string
	for i := uint64(1); int(i) <= len(bySeq); i++ {
		out = append(out, bySeq[i])
	}
	return out
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never:", what)
		}
	}
}

// TestSyslogStream: over a receiver that dies in the middle and comes back, every record arrives, and the chain is whole.
func TestSyslogStream(t *testing.T) {
	r := &receiver{t: t}
	address := r.listen(takenAgain)
	tr := at(t, "syslog+tcp://"+address, nil)
	tr.events(200)
	eventually(t, "the first records", func() bool { return len(r.messages()) > 100 })
	r.stop()
	tr.events(200) // some of them go into a connection that is dead already
	time.Sleep(50 * time.Millisecond)
	r.listen(address)
	tr.events(200)
	tr.end()
	r.stopGently()
	lines := recordsOf(t, r.messages())
	chained(t, lines)
	want(t, "events", strings.Count(strings.Join(lines, "\n"), `"event":"loaded"`), 600)
	wantText(t, "the last", lines[len(lines)-1], stopEvent)
	want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 0)
}

// stopGently waits until what was sent has been read.
func (r *receiver) stopGently() {
	_ = r.l.Close()
	r.closed.Wait()
}

// TestSyslogIdleLoss: what went into a connection that then broke is sent again, though no other record comes.
func TestSyslogIdleLoss(t *testing.T) {
	l, err := net.Listen("tcp", takenAgain)
	if err != nil {
		t.Fatal(err)
	}
	tr := at(t, "syslog+tcp://"+l.Addr().String(), nil)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // audit_started is in the kernel, and nobody has read it
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	_ = l.Close()
	r := &receiver{t: t}
	r.listen(l.Addr().String())
	eventually(t, "the record that was lost", func() bool { return len(r.messages()) == 1 })
	wantText(t, "record", r.messages()[0], startEvent)
	tr.end()
	r.stopGently()
}

// testCA makes a CA and a certificate for 127.0.0.1 by it.
func testCA(t testing.TB) (caFile string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return put(t, filepath.Join(t.TempDir(), "ca.pem"), string(text)), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestSyslogTLS: the target's certificate is checked, against the CA that is named.
func TestSyslogTLS(t *testing.T) {
	ca, pair := testCA(t)
	r := &receiver{t: t, tls: &tls.Config{Certificates: []tls.Certificate{pair}}}
	address := r.listen("127.0.0.1:0")
	tr := at(t, "syslog+tls://"+address, func(c *Config) { c.TLS.CA = ca })
	tr.events(3)
	tr.end()
	tr = at(t, "syslog+tls://"+address, nil)
	tr.events(3)
	eventually(t, "the refusal", func() bool { return tr.counter("httpowerd_audit_write_failures_total") > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := tr.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "5 audit records are lost") || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a certificate of nobody's: %v", err)
	}
	r.stop()
	lines := recordsOf(t, r.messages())
	want(t, "records", summary(t, lines), "audit_started loaded:0 loaded:1 loaded:2 audit_stopped")
}

// TestSyslogDatagrams: one message each; what is too long is not cut but counted, and the trail says that it is missing.
func TestSyslogDatagrams(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "log")
	for network, address := range map[string]string{"unixgram": socket, "udp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			pc, err := net.ListenPacket(network, address)
			if err != nil {
				t.Fatal(err)
			}
			output := "syslog+unix://" + socket
			if network == "udp" {
				output = "syslog+udp://" + pc.LocalAddr().String()
			}
			tr := at(t, output, nil)
			tr.events(2)
			long := typical()
			tr.Exchange(long, &Extra{RequestBody: []byte(strings.Repeat("a word and ", 40_000)), RequestType: "text/plain"})
			tr.events(1)
			var got []string
			buf := make([]byte, 1<<20)
			for len(got) < 5 {
				_ = pc.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, _, err := pc.ReadFrom(buf)
				if err != nil {
					t.Fatal(err, got)
				}
				m := rfc5424.FindStringSubmatch(string(buf[:n]))
				if m == nil {
					t.Fatalf("%q", buf[:n])
				}
				got = append(got, m[2])
			}
			sorted := strings.Fields(summary(t, got))
			slices.Sort(sorted) // datagrams may overtake each other
			want(t, "records", strings.Join(sorted, " "), "audit_started loaded:0 loaded:0 loaded:1 records_missing:1")
			want(t, "unsendable", tr.counter("httpowerd_audit_unsendable_total"), 1)
			eventually(t, "all are counted", func() bool { return tr.counter("httpowerd_audit_records_total") == 5 })
			wantText(t, "log", tr.said.String(), "none was cut")
			tr.end()
			pc.Close()
		})
	}
}

// collector is an OTLP receiver that answers as it is told.
type collector struct {
	mu     sync.Mutex
	got    []string
	counts []int
	answer func(count int) (int, string)
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ResourceLogs []struct {
			Resource  struct{ Attributes []map[string]any }
			ScopeLogs []struct {
				LogRecords []struct {
					TimeUnixNano   string
					SeverityNumber int
					Body           struct{ StringValue string }
					Attributes     []struct {
						Key   string
						Value struct{ IntValue string }
					}
				}
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	logs := m.ResourceLogs[0].ScopeLogs[0].LogRecords
	c.counts = append(c.counts, len(logs))
	status, text := c.answer(len(logs))
	if status == http.StatusOK {
		for _, l := range logs {
			e, _ := parseEnding([]byte(l.Body.StringValue[max(0, len(l.Body.StringValue)-linkSize):]))
			if at, _ := timeOf([]byte(l.Body.StringValue)); l.TimeUnixNano != strconv.FormatInt(at.UnixNano(), 10) ||
				l.Attributes[0].Value.IntValue != strconv.FormatUint(e.seq, 10) {
				status, text = http.StatusBadRequest, "the parts do not fit"
			}
			c.got = append(c.got, l.Body.StringValue)
		}
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// TestOTLP: a batch counts when the collector took it; until then it is posted again, in smaller parts where it is too large.
func TestOTLP(t *testing.T) {
	tries := 0
	c := &collector{}
	c.answer = func(count int) (int, string) {
		switch tries++; {
		case tries < 3:
			return http.StatusServiceUnavailable, ""
		case count > 100:
			return http.StatusRequestEntityTooLarge, ""
		}
		return http.StatusOK, `{"partialSuccess":{}}`
	}
	s := httptest.NewServer(c)
	defer s.Close()
	tr := at(t, "otlp+"+s.URL, nil)
	x := typical()
	x.URL = "https://api.example.com/\u2028ü\"\\<é>"
	tr.Exchange(x, nil)
	tr.events(998)
	tr.end()
	chained(t, c.got)
	if n := len(c.got); n < 1001 || n > 1003 { // and what the trail says of the outage
		t.Errorf("%d records", n)
	}
	if slices.Max(c.counts) > otlpRecords {
		t.Errorf("posts of %d", slices.Max(c.counts))
	}
	wantText(t, "log", tr.said.String(), "answered 503", "are written again")
}

// TestOTLPRefuses: what a collector refuses for good is not sent again, and is missing by the trail's own account.
func TestOTLPRefuses(t *testing.T) {
	c := &collector{}
	first := true
	c.answer = func(count int) (int, string) {
		if first {
			first = false
			return http.StatusOK, `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}`
		}
		return http.StatusOK, `{}`
	}
	s := httptest.NewServer(c)
	defer s.Close()
	tr := at(t, "otlp+"+s.URL, nil)
	eventually(t, "the first post", func() bool { return tr.counter("httpowerd_audit_unsendable_total") == 1 })
	tr.end()
	want(t, "records", summary(t, c.got), "audit_started records_missing:1 audit_stopped")
}

// TestCopies: each place gets every record; one that is down holds nobody up, and is tried until it is back.
func TestCopies(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	good, late := &receiver{t: t}, &receiver{t: t}
	goodURL := "syslog+tcp://" + good.listen("127.0.0.1:0")
	lateAt := late.listen(takenAgain)
	late.stop()
	alarms := make(chan error, 10)
	tr := at(t, path, func(c *Config) { c.Also = []string{goodURL, "syslog+tcp://" + lateAt} })
	tr.OnFailure(func(err error) { alarms <- err })
	for range 100 {
		tr.Exchange(typical(), nil)
	}
	eventually(t, "the output and the copy that is up have all", func() bool {
		return len(good.messages()) == 101 && len(splitLines(read(t, path))) == 101
	})
	wantText(t, "alarm", (<-alarms).Error(), "the copy to syslog+tcp://"+lateAt)
	want(t, "the gate", tr.Admit(), true)
	late.listen(lateAt)
	tr.end()
	good.stopGently()
	late.stopGently()
	for _, r := range []*receiver{good, late} {
		want(t, "the copy is the trail", join(recordsOf(t, r.messages())), read(t, path))
	}
	want(t, "alarms", len(alarms), 0)
	if tr.counter("httpowerd_audit_copy_failures_total") == 0 || tr.counter("httpowerd_audit_copy_records_total") != 204 {
		t.Error("the metrics do not tell")
	}
}

// TestCopyFallsBehind: with drop the copy loses records and the trail says how many; with block the trail waits.
func TestCopyFallsBehind(t *testing.T) {
	for _, how := range []string{Drop, Block} {
		t.Run(how, func(t *testing.T) {
			r := &receiver{t: t}
			address := r.listen(takenAgain)
			r.stop()
			f := &fake{}
			tr := with(t, f, Config{Output: "test", Chain: true, Also: []string{"syslog+tcp://" + address}, AlsoOnFull: how}, limits{records: 8, bytes: 1 << 20})
			written := make(chan struct{})
			go func() {
				defer close(written)
				for range 100 {
					tr.Exchange(typical(), nil)
				}
			}()
			if how == Drop {
				<-written
				eventually(t, "the output has all", func() bool { return len(f.lines()) == 101 })
			} else {
				time.Sleep(100 * time.Millisecond)
				if n := len(f.lines()); n > 20 {
					t.Errorf("%d records went on without the copy", n)
				}
			}
			want(t, "told while it goes on", strings.Contains(strings.Join(f.lines(), ""), copyMissingEvent), false)
			r.listen(address)
			<-written
			eventually(t, "the copy has its backlog", func() bool { return len(r.messages()) >= 8 })
			time.Sleep(20 * time.Millisecond)
			tr.events(1)
			tr.end()
			r.stopGently()
			dropped := tr.counter("httpowerd_audit_copy_dropped_total")
			if how == Block {
				want(t, "dropped", dropped, 0)
				want(t, "the copy", join(recordsOf(t, r.messages())), join(f.lines()))
				return
			}
			want(t, "records of the copy", float64(len(r.messages())), float64(len(f.lines()))-dropped)
			wantText(t, "trail", strings.Join(f.lines(), "\n"), fmt.Sprintf(`"event":"copy_records_missing","count":%d,"to":"syslog+tcp://%s"`, int(dropped), address))
		})
	}
}

// TestCopyIsDownAtTheEnd: the end says what did not get there, and does not wait for ever.
func TestCopyIsDownAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := at(t, path, func(c *Config) { c.Also = []string{"syslog+tcp://127.0.0.1:1"} })
	tr.events(3)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := tr.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "5 audit records did not get to syslog+tcp://127.0.0.1:1") {
		t.Error(err)
	}
	want(t, "the output has all", len(splitLines(read(t, path))), 5)
}
