package policy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"httpowerd/internal/governor"
	"httpowerd/internal/notify"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/tenant"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Settings is what is not per host.
type Settings struct {
	Proxy        ProxySettings      `yaml:"proxy"`
	Admin        AdminSettings      `yaml:"admin"`
	Drain        DrainSettings      `yaml:"drain"`
	Log          LogSettings        `yaml:"log"`
	Audit        AuditSettings      `yaml:"audit"`
	CA           CASettings         `yaml:"ca"`
	State        StateSettings      `yaml:"state"`
	Metrics      MetricsSettings    `yaml:"metrics"`
	Tracing      TracingSettings    `yaml:"tracing"`
	Notify       notify.Config      `yaml:"notify"`
	Destinations destination.Config `yaml:"destinations"`
	Tenants      tenant.Config      `yaml:"tenants"`
}

// ProxySettings is where and for whom the proxy listens.
type ProxySettings struct {
	// Listen is one address or several. A non-loopback one needs Open.
	Listen Addresses `yaml:"listen"`
	// TLS makes the listeners speak HTTPS to clients.
	TLS TLSSettings `yaml:"tls"`
	// Open admits clients of a non-loopback listener: false refuses to start, private admits RFC 1918, ULA and loopback ones, true everybody.
	Open Open `yaml:"open"`
	// Limits bound what clients can make the proxy hold.
	Limits LimitSettings `yaml:"limits"`
	// Wire says whose HTTP/1.1 is spoken with clients and upstreams: own, or standard for net/http's, which costs more.
	Wire string `yaml:"wire"`
}

// Whose HTTP/1.1 is spoken.
const (
	WireOwn      = "own"
	WireStandard = "standard"
)

// TLSSettings are the proxy listeners' own certificate and key (PEM files). ClientCA asks clients for a certificate of that CA.
type TLSSettings struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`
	// HTTP2 offers it to clients. Some take it and cannot speak it to a proxy, Go's among them.
	HTTP2 bool `yaml:"http2"`
}

// LimitSettings bound connections; what is past them is refused with overloaded or too_large.
type LimitSettings struct {
	Connections   int              `yaml:"connections"`
	Tunnels       int              `yaml:"tunnels"`
	HeaderBytes   setting.Size     `yaml:"header_bytes"`
	HeaderTimeout setting.Duration `yaml:"header_timeout"`
	Idle          setting.Duration `yaml:"idle"`
	TunnelIdle    setting.Duration `yaml:"tunnel_idle"`
	// Memory is what the process may use: as it runs short, what is kept is given up, and then new requests are refused.
	Memory governor.Limit `yaml:"memory"`
}

// AdminSettings are the admin listener's. Listen "" switches it off.
type AdminSettings struct {
	Listen string `yaml:"listen"`
	// Token opens everything but health, metrics and the CA certificate. Without it, a non-loopback listener serves only those.
	Token redact.Secret `yaml:"token"`
	// MetricsAuth asks for the token on /metrics too.
	MetricsAuth bool `yaml:"metrics_auth"`
}

// DrainSettings say how the daemon stops: Delay before listeners close, then Timeout for what is in flight.
type DrainSettings struct {
	Delay   setting.Duration `yaml:"delay"`
	Timeout setting.Duration `yaml:"timeout"`
}

// LogSettings are the daemon's own log's, on standard error.
type LogSettings struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // json, text
}

// AuditSettings say where audit records go.
type AuditSettings struct {
	Output     string           `yaml:"output"`       // stdout, stderr, off, a path or a target's URL
	Also       []string         `yaml:"also"`         // targets' URLs, stdout or stderr, each of which gets every record too
	AlsoOnFull string           `yaml:"also_on_full"` // drop or block, when one of them is too far behind
	TLS        AuditTLS         `yaml:"tls"`          // for connections to targets
	Chain      bool             `yaml:"chain"`
	MaxSize    setting.Size     `yaml:"max_size"`  // rotates a file that would grow beyond it; 0: never
	MaxAge     setting.Duration `yaml:"max_age"`   // rotates an older file; 0: never
	MaxFiles   int              `yaml:"max_files"` // rotated files that are kept; 0: all
	Keep       setting.Duration `yaml:"keep"`      // deletes rotated files whose last record is older; 0: none by age
	Sync       AuditSync        `yaml:"sync"`      // always, off, or the longest time until what was written is on the disk

	Checkpoint CheckpointSettings `yaml:"checkpoint"`
}

// AuditTLS are the files for connections to targets. They are read at each connection.
type AuditTLS struct {
	CA   string `yaml:"ca"` // empty: the system's roots
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// isFile tells whether an output is a file's path.
func isFile(output string) bool {
	return !slices.Contains(noFiles, output) && !setting.IsTarget(output)
}

// CheckpointSettings say when the audit trail's place is signed, with what, and where that is written besides the trail.
type CheckpointSettings struct {
	Every   setting.Duration `yaml:"every"`   // 0: no checkpoints
	Records int              `yaml:"records"` // new records that make one due before Every has passed; 0: none
	Key     string           `yaml:"key"`     // empty: audit.key in the state directory
	Output  string           `yaml:"output"`  // empty: the output's path with .checkpoints behind it
}

// AuditSync is always, off or a duration.
type AuditSync struct {
	Always bool
	Every  time.Duration // 0 without Always: off
}

// DecodeSetting takes the words, false and a duration.
func (s *AuditSync) DecodeSetting(v any) error {
	switch v := v.(type) {
	case bool:
		if !v {
			*s = AuditSync{}
			return nil
		}
	case string:
		switch v {
		case "off":
			*s = AuditSync{}
			return nil
		case "always":
			*s = AuditSync{Always: true}
			return nil
		}
		d, err := setting.ParseDuration(v)
		if err == nil && (d < 10*time.Millisecond || d > time.Hour) {
			return errSyncSpan
		}
		*s = AuditSync{Every: d}
		return err
	}
	return errSync
}

var (
	errSync     = errors.New("must be always, off or a duration such as 1s")
	errSyncSpan = errors.New("must be from 10ms to 1h, always or off")
)

// SettingKind describes what may be written.
func (AuditSync) SettingKind() string { return "always, off or a duration" }

// MarshalText writes what was written.
func (s AuditSync) MarshalText() ([]byte, error) {
	switch {
	case s.Always:
		return []byte("always"), nil
	case s.Every == 0:
		return []byte("off"), nil
	}
	return setting.Duration(s.Every).MarshalText()
}

// noFiles are the outputs that are no paths.
var noFiles = []string{"stdout", "stderr", "off"}

// CASettings are the interception CA's: a directory for our own, or files of yours.
type CASettings struct {
	Dir     string           `yaml:"dir"`
	LeafTTL setting.Duration `yaml:"leaf_ttl"`
	Cert    string           `yaml:"cert"`
	Key     string           `yaml:"key"`
}

// MetricsSettings bound labels: Hosts is how many names that match no host block get a label of their own.
type MetricsSettings struct {
	Hosts int `yaml:"hosts"`
}

// Addresses is one listen address or a list of them.
type Addresses []string

// DecodeSetting takes a text or a list of texts.
func (a *Addresses) DecodeSetting(v any) error {
	switch v := v.(type) {
	case string:
		*a = Addresses{v}
		return nil
	case []any:
		out := make(Addresses, 0, len(v))
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return errAddresses
			}
			out = append(out, s)
		}
		*a = out
		return nil
	}
	return errAddresses
}

var errAddresses = errors.New("must be an address such as 127.0.0.1:3128, or a list of them")

// SettingKind describes what may be written.
func (Addresses) SettingKind() string { return "an address such as 127.0.0.1:3128, or a list of them" }

// Open says who may use a non-loopback listener.
type Open string

// The values of Open.
const (
	OpenNo      Open = "false"
	OpenPrivate Open = "private"
	OpenYes     Open = "true"
)

// DecodeSetting takes false, private and true.
func (o *Open) DecodeSetting(v any) error {
	switch v {
	case false, "false", "off":
		*o = OpenNo
	case true, "true", "on":
		*o = OpenYes
	case "private":
		*o = OpenPrivate
	default:
		return errors.New("must be false, private or true")
	}
	return nil
}

// SettingKind describes what may be written.
func (Open) SettingKind() string { return "false, private or true" }

// defaultSettings hold with no configuration at all.
func defaultSettings() Settings {
	return Settings{
		Proxy: ProxySettings{
			Listen: Addresses{"127.0.0.1:3128"}, Open: OpenNo,
			Wire: WireOwn,
			Limits: LimitSettings{
				Connections: 10_000, Tunnels: 5000, HeaderBytes: 64 << 10,
				HeaderTimeout: setting.Duration(10 * time.Second), Idle: setting.Duration(2 * time.Minute), TunnelIdle: setting.Duration(time.Hour), Memory: governor.Limit{Auto: true},
			},
		},
		Admin: AdminSettings{Listen: "127.0.0.1:9128"},
		Drain: DrainSettings{Timeout: setting.Duration(30 * time.Second)},
		Log:   LogSettings{Level: "info", Format: "json"},
		Audit: AuditSettings{Output: "stdout", Chain: true, MaxSize: 100 << 20, MaxFiles: 10, Sync: AuditSync{Every: time.Second}, AlsoOnFull: OnFullDrop,
			Checkpoint: CheckpointSettings{Every: setting.Duration(time.Minute), Records: 10_000}},
		CA:           CASettings{LeafTTL: setting.Duration(24 * time.Hour)},
		State:        defaultState(),
		Metrics:      MetricsSettings{Hosts: 100},
		Tracing:      defaultTracing(),
		Notify:       notify.Config{},
		Destinations: destination.Default(),
	}
}

// stateDir is where state lives when nobody says: systemd's directory, root's, or the user's.
func stateDir(env func(string) (string, bool)) string {
	get := func(name string) string { v, _ := env(name); return v }
	if dir, _, _ := strings.Cut(get("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/httpowerd"
	}
	if dir := get("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "httpowerd")
	}
	if home := get("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "httpowerd")
	}
	return filepath.Join(os.TempDir(), "httpowerd-"+strconv.Itoa(os.Geteuid()))
}

// checks collects the faults of one block.
type checks []setting.Fault

func (c *checks) count(key string, v, least, most int) {
	if v < least || v > most {
		*c = append(*c, setting.Faultf(key, "must be from %d to %d, is %d", least, most, v))
	}
}

func (c *checks) span(key string, v setting.Duration, least, most time.Duration) {
	if v.D() < least || v.D() > most {
		*c = append(*c, setting.Faultf(key, "must be from %s to %s, is %s", setting.Duration(least), setting.Duration(most), v))
	}
}

func (c *checks) size(key string, v setting.Size, least, most setting.Size) {
	if v < least || v > most {
		*c = append(*c, setting.Faultf(key, "must be from %s to %s, is %s", least, most, v))
	}
}

func (c *checks) oneOf(key, v string, known ...string) {
	if !slices.Contains(known, v) {
		*c = append(*c, setting.Faultf(key, "must be one of %s, is %q%s", setting.Words(known), v, didYouMean(v, known)))
	}
}

// address checks host:port of a listener. Port 0 asks the system for a free one.
func (c *checks) address(key, v string) {
	host, port, err := net.SplitHostPort(v)
	if err == nil {
		if n, e := strconv.Atoi(port); e != nil || n < 0 || n > 65535 {
			err = errAddresses
		}
		if _, e := netip.ParseAddr(host); e != nil && host != "" && host != "localhost" {
			err = errAddresses
		}
	}
	if err != nil {
		*c = append(*c, setting.Faultf(key, "%q is not an address to listen on: write an IP address and a port, such as 127.0.0.1:3128", v))
	}
}

// pair checks a certificate and its key. It returns the certificate where that is one.
func (c *checks) pair(certKey, cert, keyKey, key string) *x509.Certificate {
	switch {
	case cert == "" && key == "":
	case cert == "":
		*c = append(*c, setting.Faultf(keyKey, "needs a certificate beside it"))
	case key == "":
		*c = append(*c, setting.Faultf(certKey, "needs its key beside it"))
	default:
		certPEM, ok := c.read(certKey, cert)
		keyPEM, keyOK := c.read(keyKey, key)
		if !ok || !keyOK {
			return nil
		}
		p, err := tls.X509KeyPair(certPEM, keyPEM)
		if err == nil {
			return p.Leaf
		}
		*c = append(*c, setting.Faultf(certKey, "%s and its key do not make a certificate: %s", cert, strings.TrimPrefix(err.Error(), "tls: ")))
	}
	return nil
}

// roots checks a file of CA certificates.
func (c *checks) roots(key, path string) {
	if path == "" {
		return
	}
	if data, ok := c.read(key, path); ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		*c = append(*c, setting.Faultf(key, "%s holds no certificate in PEM", path))
	}
}

func (c *checks) read(key, path string) ([]byte, bool) {
	data, _, err := readFile(path, maxFilledFile)
	if err != nil {
		*c = append(*c, setting.Faultf(key, "cannot read %s: %v", path, err))
	}
	return data, err == nil
}

// Validate returns every fault of the block.
func (p ProxySettings) Validate() []setting.Fault {
	var c checks
	if len(p.Listen) == 0 {
		c = append(c, setting.Faultf("listen", "is empty: write an address such as 127.0.0.1:3128"))
	}
	for i, a := range p.Listen {
		c.address("listen", a)
		if slices.Contains(p.Listen[:i], a) && !strings.HasSuffix(a, ":0") {
			c = append(c, setting.Faultf("listen", "names %s twice", a))
		}
	}
	if p.TLS.HTTP2 && p.TLS.Cert == "" {
		c = append(c, setting.Faultf("tls.http2", "needs cert and key beside it"))
	}
	if p.TLS.ClientCA != "" && p.TLS.Cert == "" {
		c = append(c, setting.Faultf("tls.client_ca", "needs cert and key beside it"))
	}
	c.pair("tls.cert", p.TLS.Cert, "tls.key", p.TLS.Key)
	c.roots("tls.client_ca", p.TLS.ClientCA)
	if p.Wire != WireOwn && p.Wire != WireStandard {
		c = append(c, setting.Faultf("wire", "must be own or standard, is %q", p.Wire))
	}
	c.count("limits.connections", p.Limits.Connections, 1, 10_000_000)
	c.count("limits.tunnels", p.Limits.Tunnels, 0, 10_000_000)
	c.size("limits.header_bytes", p.Limits.HeaderBytes, 1<<10, 16<<20)
	c.span("limits.header_timeout", p.Limits.HeaderTimeout, 100*time.Millisecond, time.Hour)
	c.span("limits.idle", p.Limits.Idle, time.Second, 24*time.Hour)
	c.span("limits.tunnel_idle", p.Limits.TunnelIdle, time.Second, 7*24*time.Hour)
	return c
}

// loopback tells whether nobody outside this machine can reach the listen address.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// LoopbackOnly tells whether every proxy listener is reachable from this machine alone.
func (p ProxySettings) LoopbackOnly() bool {
	return !slices.ContainsFunc(p.Listen, func(a string) bool { return !loopback(a) })
}

// Validate returns every fault of the block.
func (a AdminSettings) Validate() []setting.Fault {
	var c checks
	if a.Listen != "" && a.Listen != "off" {
		c.address("listen", a.Listen)
	}
	if a.MetricsAuth && a.Token.IsZero() {
		c = append(c, setting.Faultf("metrics_auth", "must have a token beside it: nobody could read the metrics"))
	}
	return c
}

// Validate returns every fault of the block.
func (d DrainSettings) Validate() []setting.Fault {
	var c checks
	c.span("delay", d.Delay, 0, time.Hour)
	c.span("timeout", d.Timeout, 0, 24*time.Hour)
	return c
}

// Validate returns every fault of the block.
func (l LogSettings) Validate() []setting.Fault {
	var c checks
	c.oneOf("level", l.Level, "debug", "info", "warn", "error")
	c.oneOf("format", l.Format, "json", "text")
	return c
}

// Validate returns every fault of the block.
func (a AuditSettings) Validate() []setting.Fault {
	var c checks
	switch {
	case a.Output == "":
		c = append(c, setting.Faultf("output", "is empty: write stdout, stderr, off or the path of a file"))
	case strings.ContainsAny(a.Output, "\x00\r\n"):
		c = append(c, setting.Faultf("output", "has a control character"))
	case setting.IsTarget(a.Output):
		if _, err := setting.ParseTarget(a.Output); err != nil {
			c = append(c, setting.Faultf("output", "%v", err))
		}
	case strings.HasSuffix(a.Output, string(filepath.Separator)):
		c = append(c, setting.Faultf("output", "%s is a directory: write the path of a file in it", a.Output))
	}
	if a.MaxSize != 0 {
		c.size("max_size", a.MaxSize, 64<<10, 1<<50)
	}
	if a.MaxAge != 0 {
		c.span("max_age", a.MaxAge, time.Minute, 3650*24*time.Hour)
	}
	c.count("max_files", a.MaxFiles, 0, 100_000)
	c.copies(a)
	c.roots("tls.ca", a.TLS.CA)
	c.pair("tls.cert", a.TLS.Cert, "tls.key", a.TLS.Key)
	if a.Keep != 0 {
		c.span("keep", a.Keep, time.Minute, 3650*24*time.Hour)
	}
	if a.Checkpoint.Every != 0 {
		c.span("checkpoint.every", a.Checkpoint.Every, time.Second, 24*time.Hour)
	}
	c.count("checkpoint.records", a.Checkpoint.Records, 0, 1_000_000_000)
	if a.Checkpoint.Output != "" && a.Checkpoint.Output == a.Output {
		c = append(c, setting.Faultf("checkpoint.output", "is the trail's own file: whoever cuts that off would cut these off too"))
	}
	return c
}

// copies checks the places that get every record too.
func (c *checks) copies(a AuditSettings) {
	c.oneOf("also_on_full", a.AlsoOnFull, OnFullDrop, OnFullBlock)
	if len(a.Also) > 8 {
		*c = append(*c, setting.Faultf("also", "has %d places, of at most 8", len(a.Also)))
	}
	if len(a.Also) > 0 && a.Output == "off" {
		*c = append(*c, setting.Faultf("also", "has nothing to copy while output is off"))
	}
	for i, to := range a.Also {
		key := fmt.Sprintf("also[%d]", i)
		switch _, err := setting.ParseTarget(to); {
		case to == a.Output || slices.Contains(a.Also[:i], to):
			*c = append(*c, setting.Faultf(key, "is named twice"))
		case to == "stdout" || to == "stderr":
		case !setting.IsTarget(to):
			*c = append(*c, setting.Faultf(key, "must be stdout, stderr or a URL of %s; a file belongs into output", setting.Words(setting.TargetSchemes())))
		case err != nil:
			*c = append(*c, setting.Faultf(key, "%v", err))
		}
	}
}

// Validate returns every fault of the block.
func (a CASettings) Validate() []setting.Fault {
	var c checks
	if cert := c.pair("cert", a.Cert, "key", a.Key); cert != nil && !(cert.BasicConstraintsValid && cert.IsCA) {
		c = append(c, setting.Faultf("cert", "%s is no certificate of a CA (basic constraints CA:TRUE): it cannot sign others", a.Cert))
	}
	c.span("leaf_ttl", a.LeafTTL, 10*time.Minute, 397*24*time.Hour) // clients of the large platforms refuse longer-lived ones
	return c
}

// Validate returns every fault of the block.
func (m MetricsSettings) Validate() []setting.Fault {
	var c checks
	c.count("hosts", m.Hosts, 0, 10_000)
	return c
}
