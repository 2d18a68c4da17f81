package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"httpowerd/internal/setting"
)

// Source says where a configuration comes from.
type Source struct {
	Path      string // "": nothing but the defaults
	Overrides Overrides
	Env       func(string) (string, bool) // for ${NAME}; nil is os.LookupEnv
}

// Overrides are settings of the command line. They win over the file, as if they were written last. Nil (and empty) ones are not given.
type Overrides struct {
	Listen      []string // --listen
	Admin       *string  // --admin
	Open        *string  // --open
	Wire        *string  // --wire
	LogLevel    *string  // --log-level
	LogFormat   *string  // --log-format
	Intercept   *bool    // --intercept: the defaults' tls; a host that says otherwise keeps its word
	AuditOutput *string  // --audit
	NoAudit     bool     // no audit record at all
	CADir       *string
	StateDir    *string
	Warn        bool // of each value of the file that one of these wins over
	Misspelt    []Misspelt
	Tenant      *string // --tenant: everybody is the one of that name, none is told apart where it is empty
}

// Misspelt is a variable of the environment that is none of a flag's, and the one that was probably meant.
type Misspelt struct{ Name, Known string }

// File is a configuration that was read and found valid. It is immutable.
type File struct {
	path     string
	settings Settings
	tops     []topBlock // the settings with their origins, for output
	base     *plan      // the defaults alone
	hosts    []hostPlan
	tenants  []tenantPlan
	warnings []Fault
	files    []string
	folders  []string // of globs: a file that appears there is part of the configuration
	looks    looks    // at the file system
	digest   string   // over all that was read
	filled   []string // secret texts that came from elsewhere

	hashing sync.Once
	hash    string // once it was asked for
}

type hostPlan struct {
	pattern string // canonical
	base    *plan
	routes  []routePlan
}

// Warnings lists what is valid but hardly meant.
func (f *File) Warnings() []Fault { return slices.Clone(f.warnings) }

// Files lists every file that the configuration is made of, includes and ${file:…} among them.
func (f *File) Files() []string { return slices.Clone(f.files) }

// Settings is what is not per host.
func (f *File) Settings() Settings { return f.settings }

// Load reads, merges and checks a configuration. It reports every fault at once and touches neither the network nor a file that it only reads.
func Load(src Source) (*File, Faults) {
	f, faults := load(src)
	if len(faults) > 0 {
		return nil, faults
	}
	return f, nil
}

// Check is Load for who wants to know what is wrong, and what is hardly meant, and no more.
func Check(src Source) (warnings []Fault, faults Faults) {
	f, faults := load(src)
	return f.warnings, faults
}

// load returns a File in any case, so that a watcher knows which files to look at while they are broken.
func load(src Source) (*File, Faults) {
	r := newReader(src)
	root := r.root(src.Path)
	f := &File{path: src.Path}
	if root != nil && r.nodes <= maxNodes { // what is left of too much is still a lot of work, and says nothing more
		r.overrides(root, src.Overrides)
		r.adminToken(root)
		for _, m := range src.Overrides.Misspelt {
			r.warnings.add(position{file: m.Name}, "", "this variable has no effect: did you mean %s?", setting.Own(m.Known))
		}
		if src.Overrides.Tenant != nil {
			r.onlyTenant(root, *src.Overrides.Tenant)
		}
		(&assembly{reader: r, file: f}).assemble(root)
	}
	f.files, f.folders, f.looks, f.filled = r.files, r.folders, r.looks, r.hidden.secrets
	f.digest = hex.EncodeToString(r.sum.Sum(nil))
	f.warnings = r.warnings.sorted()
	return f, r.faults.sorted()
}

// reader turns files into one tree.
type reader struct {
	env      func(string) (string, bool)
	dir      string // of the main file
	faults   *collector
	warnings *collector
	hidden   *hidden
	files    []string
	watched  map[string]bool // the same files
	folders  []string
	looks    looks
	sum      hash.Hash
	nodes    int
	exceeded bool
}

func newReader(src Source) *reader {
	order := map[string]int{}
	hidden := &hidden{}
	r := &reader{env: src.Env, faults: &collector{order: order, hidden: hidden}, warnings: &collector{order: order, hidden: hidden}, hidden: hidden, sum: sha256.New(), dir: filepath.Dir(src.Path)}
	if r.env == nil {
		r.env = os.LookupEnv
	}
	return r
}

// watch notes a file whose change changes the configuration.
func (r *reader) watch(path string) {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if r.watched == nil {
		r.watched = map[string]bool{}
	}
	if !r.watched[path] {
		r.watched[path] = true
		r.files = append(r.files, path)
	}
}

// read reads a file whose change changes the configuration, and adds what it holds to the digest of the whole.
func (r *reader) read(path string, limit int64) ([]byte, fs.FileMode, error) {
	r.watch(path)
	data, mode, err := readFile(path, limit)
	look := lookAt(path, limit, data, err)
	r.looks.add(look)
	if err == nil {
		r.sum.Write([]byte(path + "\x00"))
		r.sum.Write(look.sum[:])
	}
	return data, mode, err
}

// file reads and parses one file of YAML, which a value names.
func (r *reader) file(path string, named *node) *node {
	data, mode, err := r.read(path, maxFileSize)
	if err != nil {
		r.faults.of(named, named.at, "", "cannot read %s: %v", []any{path, setting.Own(err.Error())})
		return nil
	}
	if mode&0o002 != 0 {
		r.warnings.add(position{path, 1, 1}, "", "can be written by everybody (mode %04o), who could send requests and secrets wherever they want: chmod o-w it", mode)
	}
	r.faults.order[path] = len(r.faults.order)
	return r.parse(path, data)
}

// root is the main file with the hosts of the included ones.
func (r *reader) root(path string) *node {
	if path == "" {
		return &node{kind: mapping}
	}
	root := r.file(path, &node{at: position{file: path}})
	if root == nil {
		return nil
	}
	switch v := root.get("version"); {
	case v == nil:
		r.faults.add(position{path, 1, 1}, "version", "is missing: write version: 1")
	case v.kind != broken && v.value != int64(1):
		r.faults.at(v, "must be 1, is %s", v)
	}
	if include := root.get("include"); include != nil {
		r.include(root, include)
	}
	return root
}

// include adds the hosts of other files.
func (r *reader) include(root, include *node) {
	patterns := include.items
	switch {
	case include.kind == broken:
		return
	case include.kind == scalar:
		patterns = []*node{include}
	case include.kind != list:
		r.faults.at(include, "must be a list of files, is %s", include)
		return
	}
	for _, p := range patterns {
		if p.kind != scalar || p.text == "" {
			r.faults.at(p, "must be the path of a file, such as conf.d/*.yaml")
			continue
		}
		for _, path := range r.glob(p) {
			if _, twice := r.faults.order[path]; twice {
				r.faults.at(p, "%s is included twice, or includes itself", path)
				continue
			}
			if n := r.file(path, p); n != nil {
				r.adopt(root, n)
			}
		}
	}
}

// glob lists the files of one pattern in the order of their names.
func (r *reader) glob(p *node) []string {
	pattern := p.text
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(r.dir, pattern)
	}
	if !strings.ContainsAny(p.text, "*?[") {
		return []string{pattern}
	}
	folder := filepath.Dir(pattern)
	if abs, err := filepath.Abs(folder); err == nil {
		folder = abs
	}
	r.folders = append(r.folders, folder)
	found, err := matching(pattern)
	if err != nil {
		r.faults.at(p, "is not a pattern of files: %v", err)
		return nil
	}
	r.looks.globs = append(r.looks.globs, glob{pattern, found})
	if len(found) == 0 {
		r.warnings.at(p, "matches no file")
	}
	return found
}

// matching lists what a pattern matches, but folders.
func matching(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	return slices.DeleteFunc(found, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Mode().Type()&fs.ModeDir != 0
	}), err
}

// adopt moves the hosts of an included file under the main one's.
func (r *reader) adopt(root, included *node) {
	for _, f := range included.fields {
		switch {
		case f.value.kind == broken:
		case f.key == "version":
			if f.value.value != int64(1) {
				r.faults.at(f.value, "must be 1, is %s", f.value)
			}
		case f.key != "hosts":
			r.faults.at(f.value, "cannot stand in an included file, which may hold nothing but hosts:")
		case f.value.kind != mapping:
			r.faults.at(f.value, "must be a mapping of host patterns, is %s", f.value)
		default:
			hosts := root.get("hosts")
			if hosts == nil {
				hosts = &node{kind: mapping, at: f.value.at, path: "hosts"}
				root.fields = append(root.fields, field{"hosts", hosts})
			}
			if hosts.kind == mapping {
				hosts.fields = append(hosts.fields, f.value.fields...) // duplicates are found when patterns are read
			}
		}
	}
}

// overrides writes the flags over the file's tree.
func (r *reader) overrides(root *node, o Overrides) {
	put := func(flag, block, key string, v any) {
		at := position{file: "--" + flag}
		value := plainNode(v, at, join(block, key))
		parent := root.get(block)
		old := parent
		if parent != nil && parent.kind == mapping {
			old = parent.get(key)
		} else {
			parent = &node{kind: mapping, at: at, path: block, origin: originFlag}
			root.set(block, parent)
		}
		if o.Warn && old != nil && !slices.Equal(old.words(), value.words()) {
			r.warnings.at(old, "has no effect: --%s, or the variable HTTPOWERD_%s, says otherwise", flag, strings.ToUpper(strings.ReplaceAll(flag, "-", "_")))
		}
		parent.set(key, value)
	}
	text := func(flag, block, key string, v *string) {
		if v != nil {
			put(flag, block, key, *v)
		}
	}
	if len(o.Listen) > 0 {
		put("listen", "proxy", "listen", o.Listen)
	}
	text("open", "proxy", "open", o.Open)
	text("wire", "proxy", "wire", o.Wire)
	text("admin", "admin", "listen", o.Admin)
	text("log-level", "log", "level", o.LogLevel)
	text("log-format", "log", "format", o.LogFormat)
	text("ca-dir", "ca", "dir", o.CADir)
	text("state-dir", "state", "dir", o.StateDir)
	text("audit", "audit", "output", o.AuditOutput)
	if o.NoAudit {
		put("audit", "audit", "output", "off")
	}
	if o.Intercept != nil {
		word := "tunnel"
		if *o.Intercept {
			word = "intercept"
		}
		put("intercept", "defaults", "tls", word)
	}
}

// adminToken fills the default of admin.token in.
func (r *reader) adminToken(root *node) {
	const from = "HTTPOWERD_ADMIN_TOKEN"
	value, _ := r.env(from)
	admin := root.get("admin")
	if value == "" || admin != nil && (admin.kind != mapping || admin.get("token") != nil) {
		return
	}
	at := position{file: from}
	if admin == nil {
		admin = &node{kind: mapping, at: at, path: "admin", origin: originDefault}
		root.set("admin", admin)
	}
	token := plainNode(value, at, "admin.token")
	token.secret, token.origin = true, originDefault
	admin.set("token", token)
	r.hidden.add(value, true)
}

// onlyTenant leaves the tenant of that name alone, whom an address on loopback shows, or none where the name is empty.
func (r *reader) onlyTenant(root *node, name string) {
	at := position{file: "--tenant"}
	all := root.get("tenants")
	root.fields = slices.DeleteFunc(root.fields, func(f field) bool { return f.key == "tenants" })
	if name == "" {
		return
	}
	one := all.get(name)
	if one == nil || one.kind != mapping {
		r.faults.add(at, "", "the configuration has no tenant %q", name)
		return
	}
	path := join(one.path, "auth")
	shown := plainNode(map[string]any{"source": []string{"127.0.0.0/8", "::1/128"}}, at, path)
	one.set("auth", &node{kind: list, at: at, path: path, origin: originFlag, items: []*node{shown}})
	root.set("tenants", &node{kind: mapping, at: all.at, path: all.path, origin: all.origin, fields: []field{{name, one}}})
}
