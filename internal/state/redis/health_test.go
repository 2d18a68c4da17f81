package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/redact"
	"httpowerd/internal/state/memory"
)

var plenty = memory.Rate{Requests: 1e6, Per: time.Second, Burst: 1e6}

func (c *Client) take(ctx context.Context) error {
	_, _, err := c.Limits.Take(ctx, "k", plenty, 1, 1)
	return err
}

// A server that dies under load makes calls fail at once, and is used again when it is back.
func TestKilledAndRestarted(t *testing.T) {
	s := startServer(t)
	c := s.open(func(c *Config) { c.Timeout = 250 * time.Millisecond })
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	ctx, stop := context.WithCancel(t.Context())
	var fine, away atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				switch err := c.take(ctx); {
				case err == nil:
					fine.Add(1)
				case class(err) == Away:
					away.Add(1)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for range 2 {
		before := fine.Load()
		eventually(t, "calls succeed", func() bool { return fine.Load() > before+100 })
		s.kill()
		eventually(t, "the server is known to be away", func() bool { return !c.Up() })
		before = away.Load()
		eventually(t, "calls fail without being made", func() bool { return away.Load() > before+100 })
		s.start()
		eventually(t, "the server is known to be back", c.Up)
	}
	stop()
	wg.Wait()
	if st := c.Status(); !st.Up || st.LastError == "" || st.Since.IsZero() || c.errorsOf(opTake) < 200 {
		t.Errorf("%+v, %d errors", st, c.errorsOf(opTake))
	}
}

// A server that was never there does not keep anybody from starting, and is used once it comes.
func TestServerThatComesLater(t *testing.T) {
	s := startServer(t)
	s.kill()
	c := s.open(func(c *Config) { c.Timeout = 250 * time.Millisecond })
	if err := c.take(t.Context()); class(err) != Connect && class(err) != Away {
		t.Errorf("without a server: %v", err)
	}
	eventually(t, "it is known to be away", func() bool { return class(c.take(t.Context())) == Away })
	s.start()
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
}

// A server that is silent or slow costs a call its timeout and no more, and after three nothing.
func TestSlowServer(t *testing.T) {
	s := startServer(t)
	r := startRelay(t, s.address())
	c := openAt(t, r.url(), func(c *Config) { c.Timeout = 100 * time.Millisecond })
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	r.held.Store(true)
	var classes []string
	started := time.Now()
	eventually(t, "nothing is asked any more", func() bool {
		classes = append(classes, class(c.take(t.Context())))
		return classes[len(classes)-1] == Away
	})
	if classes[0] != Timeout || time.Since(started) > ample {
		t.Errorf("%v in %v", classes, time.Since(started))
	}
	r.held.Store(false)
	r.delay.Store(int64(300 * time.Millisecond)) // it answers, but never in time: that is not well
	time.Sleep(2 * pause)
	if class(c.take(t.Context())) != Away || c.Up() {
		t.Error("a server that is slower than the timeout is used")
	}
	r.delay.Store(0)
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	r.cut()
	eventually(t, "it answers by new connections", func() bool { return c.take(t.Context()) == nil })
}

// Whoever leaves while the server is slow is told so, and it is nobody's fault.
func TestWhoeverLeaves(t *testing.T) {
	s := startServer(t)
	r := startRelay(t, s.address())
	c := openAt(t, r.url())
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	r.held.Store(true)
	before := c.errorsOf(opTake)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(context.DeadlineExceeded) })
	if err := c.take(ctx); err != context.DeadlineExceeded || c.errorsOf(opTake) != before {
		t.Errorf("%v, %d errors", err, c.errorsOf(opTake)-before)
	}
	r.held.Store(false)
}

// A server that sends what is no reply makes calls fail; it takes neither the process nor its memory.
func TestServerThatLies(t *testing.T) {
	for name, says := range map[string]string{
		"a huge string":     "$999999999999\r\n",
		"a large string":    "$2000000000\r\n",
		"a huge list":       "*999999999999\r\n",
		"a large list":      "*2000000000\r\n",
		"lists in lists":    strings.Repeat("*1\r\n", 10_000),
		"a line for ever":   strings.Repeat("a", 64<<10),
		"a newer protocol":  "%1\r\n+a\r\n+b\r\n",
		"a push":            ">2\r\n+a\r\n+b\r\n",
		"another protocol":  "HTTP/1.1 400 Bad Request\r\n\r\n",
		"nothing but lines": "\r\n\r\n\r\n",
		"numbers":           ":1\r\n",
		"a huge number":     ":99999999999999999999999\r\n",
		"nothing":           "$-1\r\n",
		"errors":            "-ERR no\r\n",
		"no scripts":        "-NOSCRIPT no\r\n",
		"negative lists":    "*-1\r\n",
		"wrong lists":       "*3\r\n:99\r\n:-5\r\n+x\r\n",
		"bytes":             "\x00\x01\xff\xfe\r\n",
		"moved":             "-MOVED 1 192.0.2.1:6379\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := openAt(t, liar(t, says), func(c *Config) { c.Timeout = 50 * time.Millisecond })
			ctx := t.Context()
			for range 5 {
				if n, _, err := c.Limits.Take(ctx, "k", plenty, 1, 1); err == nil {
					t.Errorf("%d were granted", n)
				}
				if v, _, err := c.Gates.Fetch(ctx, "k"); err == nil && v != nil {
					t.Errorf("%q was fetched", v)
				}
				if s, err := c.Writes.Begin(ctx, Claim{"k", "f", "o"}, time.Minute); err == nil {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

func TestScriptsAreSentAgain(t *testing.T) {
	s := startServer(t)
	c := s.open()
	for range 3 {
		if err := c.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.raw.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if c.errorsOf(opTake) != 0 {
		t.Errorf("%d errors", c.errorsOf(opTake))
	}
}

func TestPasswords(t *testing.T) {
	s := startServer(t, "--requirepass", "right-"+"password", "--user", "some", "on", ">user-"+"password", "~test:*", "&test:*",
		"+@scripting", "+@read", "+@write", "+@connection", "+@pubsub", "+time") // as docs/shared-state.md has it
	for name, k := range map[string]struct{ user, prefix, class string }{
		"right":             {":right-" + "password@", "test", ""},
		"of a user":         {"some:user-" + "password@", "test", ""},
		"wrong":             {":wrong-" + "password@", "test", Auth},
		"none":              {"", "test", Auth},
		"of another prefix": {"some:user-" + "password@", "other", Auth},
	} {
		t.Run(name, func(t *testing.T) {
			c := openAt(t, "redis://"+k.user+s.address(), func(c *Config) { c.Prefix = k.prefix })
			err := c.take(t.Context())
			if k.class == "" {
				if errs := c.all(t.Context()); errs != nil || c.errorsOf(opSubscribe) > 0 {
					t.Errorf("%v", errs)
				}
			}
			if k.class == "" && err != nil || k.class != "" && class(err) != k.class && class(err) != Away {
				t.Errorf("%v; want %q", err, k.class)
			}
			if err != nil && (strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), strconv.Itoa(s.port))) {
				t.Errorf("the error tells too much: %v", err)
			}
			if k.class != "" {
				eventually(t, "the status says why", func() bool { return c.Status().LastError == k.class })
			}
		})
	}
}

// all calls every script once.
func (c *Client) all(ctx context.Context) (errs []error) {
	claim := Claim{"k", "f", "o"}
	_, _, fetched := c.Gates.Fetch(ctx, "other")
	_, begun := c.Writes.Begin(ctx, claim, time.Minute)
	for _, err := range []error{c.take(ctx), c.Gates.Publish(ctx, "k", []byte("v"), time.Minute), fetched, begun,
		c.Writes.Finish(ctx, claim, []byte("r"), time.Minute), c.Writes.Release(ctx, claim, time.Minute)} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	startServer(t, "--unixsocket", socketPath(dir))
	if errs := openAt(t, "unix://"+socketPath(dir)+"?db=3").all(t.Context()); errs != nil {
		t.Error(errs)
	}
}

func TestSentinel(t *testing.T) {
	s := startServer(t)
	config := filepath.Join(s.dir, "sentinel.conf")
	text := "sentinel monitor main 127.0.0.1 " + strconv.Itoa(s.port) + " 1\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startServer(t)
	sentinel.kill()
	sentinel.config = config
	sentinel.start()
	c := openAt(t, sentinel.url()+"?master_name=main")
	eventually(t, "the sentinel tells where the server is", func() bool { return c.take(t.Context()) == nil })
	if errs := c.all(t.Context()); errs != nil {
		t.Error(errs)
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := makeCertificate(t, dir)
	s := startServer(t)
	port := strconv.Itoa(freePort(t))
	s.kill()
	s.args = []string{"--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no"}
	s.start()
	trusting := func(c *Config) { c.CA = cert }
	c := openAt(t, "rediss://127.0.0.1:"+port, trusting)
	if errs := c.all(t.Context()); errs != nil {
		t.Error(errs)
	}
	s.kill()
	eventually(t, "it is known to be away", func() bool { return class(c.take(t.Context())) == Away })
	s.start()
	eventually(t, "it answers again", func() bool { return c.take(t.Context()) == nil })
	s.kill()
	eventually(t, "it is known to be away", func() bool { return class(c.take(t.Context())) == Away })
	makeCertificate(t, dir) // renewed under their names, as its maker does, and read at the next connection
	s.start()
	eventually(t, "it answers with a certificate of another CA", func() bool { return c.take(t.Context()) == nil })
	if err := openAt(t, "rediss://127.0.0.1:"+port).take(t.Context()); class(err) != TLS && class(err) != Away {
		t.Errorf("a certificate of nobody: %v", err)
	}
	s.kill()
	s.args[len(s.args)-1] = "yes"
	s.args = append(s.args, "--tls-ca-cert-file", cert)
	s.start()
	eventually(t, "it is known that the server wants a certificate", func() bool {
		_ = c.take(t.Context())
		return c.Status().LastError == TLS
	})
	if _, err := Open(Config{URL: secretURL("rediss://127.0.0.1:" + port), CA: key, Prefix: "test", Timeout: ample}, nil, nil); err == nil {
		t.Error("a key was taken for a CA")
	}
}

func secretURL(s string) redact.Secret { return redact.NewSecret(s) }

func makeCertificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// Many calls at once go together: the server reads less often than it is asked.
func TestCallsGoTogether(t *testing.T) {
	s := startServer(t)
	r := startRelay(t, s.address())
	c := openAt(t, r.url())
	eventually(t, "it answers", func() bool { return c.take(t.Context()) == nil })
	r.delay.Store(int64(5 * time.Millisecond))
	before := r.reads.Load()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 10 {
				if err := c.take(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if reads := r.reads.Load() - before; reads > 320 {
		t.Errorf("640 calls went in %d parts", reads)
	}
}

func TestClosed(t *testing.T) {
	s := startServer(t)
	c := s.open()
	if err := c.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.take(t.Context()); class(err) != Away {
		t.Errorf("after Close: %v", err)
	}
}
