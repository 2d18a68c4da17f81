package policy

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"httpowerd/configs"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/match"
	"httpowerd/internal/setting"
)

// assembly builds a File from its tree.
type assembly struct {
	*reader
	file    *File
	sets    map[string]*node   // profiles and providers that were read
	checked map[[3]string]bool // certificates that were read

	unrecorded bool // the file says that there shall be no records
}

// plan is the merged policy of one level: what Compile makes a Policy of, and what explain prints.
type plan struct {
	name    string // of the policy: pattern#route
	level   string // path of the level: hosts["x"].routes[0]; defaults
	at      position
	layers  []layer
	words   map[string]*node // choices that somebody wrote
	blocks  map[string]*merged
	matches match.RouteConfig
	deaf    []string // blocks and fields that cannot act on a tunnel
}

// word is the value of a choice.
func (p *plan) word(c choice) string {
	if n := p.words[c.name]; n != nil {
		return n.text
	}
	return c.words[0]
}

func (p *plan) wordOf(name string) string {
	i := slices.IndexFunc(choices(), func(c choice) bool { return c.name == name })
	return p.word(choices()[i])
}

// config is a block's settings, and whether it is on.
func config[T any](p *plan, name string) (T, bool) {
	m := p.blocks[name]
	c, _ := m.config.(*T)
	if c == nil {
		var zero T
		return zero, false
	}
	return *c, m.on
}

// topBlock is one of the settings with the node that wrote it.
type topBlock struct {
	name   string
	body   *node
	config any // a pointer into Settings
}

func (a *assembly) assemble(root *node) {
	a.file.settings = defaultSettings()
	a.tops(root)
	var layers []layer
	defaults := root.get("defaults")
	if defaults == nil {
		defaults = &node{kind: mapping, path: "defaults", at: position{file: a.file.path}}
	}
	if a.level(defaults, originDefaults) {
		layers = a.stack(nil, defaults, originDefaults)
	}
	a.file.base = a.plan("", defaults, layers)
	if hosts := root.get("hosts"); hosts != nil && hosts.kind == mapping {
		a.hosts(hosts, layers)
	} else if hosts != nil && hosts.kind != broken {
		a.faults.at(hosts, "must be a mapping of host patterns, is %s", hosts)
	}
	a.tenants(root)
}

func (a *assembly) topBlocks() []topBlock {
	s := reflect.ValueOf(&a.file.settings).Elem()
	var out []topBlock
	for _, f := range fieldsOf(s.Type()) {
		out = append(out, topBlock{name: f.key, config: s.FieldByIndex(f.index).Addr().Interface()})
	}
	return out
}

// tops reads everything but policies.
func (a *assembly) tops(root *node) {
	blocks := a.topBlocks()
	known := []string{"version", "include"}
	for _, b := range blocks {
		known = append(known, b.name)
	}
	known = append(known, "defaults", "hosts")
	known = append(known, laterTops...)
	for _, f := range root.fields {
		switch {
		case slices.Contains(laterTops, f.key):
			a.later(f.value, f.key)
		case slices.Contains(known, f.key):
		case slices.Contains(policyKeys(originHost), f.key):
			a.faults.at(f.value, "belongs under defaults:, or under a host in hosts:")
		default:
			decoder{a.faults}.unknown(f.value, f.key, known)
		}
	}
	settings := &a.file.settings
	for i := range blocks {
		blocks[i].body = a.top(&blocks[i], root.get(blocks[i].name))
	}
	if settings.State.Dir == "" {
		settings.State.Dir = stateDir(a.env)
	}
	if settings.CA.Dir == "" && settings.CA.Cert == "" {
		settings.CA.Dir = filepath.Join(settings.State.Dir, "ca")
	}
	a.file.tops = blocks
	a.checkSettings()
}

// top decodes one block of the settings into its place.
func (a *assembly) top(b *topBlock, n *node) *node {
	if n == nil || n.kind == broken {
		return nil
	}
	if n.origin == "" {
		for _, f := range n.fields {
			if f.value.origin == "" {
				f.value.mark("file")
			}
		}
	}
	switch {
	case n.isOff() && b.name == "admin":
		a.file.settings.Admin.Listen = ""
		return n
	case n.isOff() && b.name == "audit":
		a.file.settings.Audit.Output = "off"
		return n
	case n.isOff() && b.name == "tracing":
		return n
	case (b.name == "notify" || b.name == "tenants") && (n.isOff() || n.kind == list && len(n.items) == 0):
		return n
	case n.kind != mapping:
		a.faults.at(n, "must be a mapping, is %s", n.instead(reflect.TypeOf(b.config).Elem()))
		return nil
	}
	switch b.name {
	case "tenants":
		a.keySets(n)
	case "proxy":
		a.named(n.get("tls"), "cert", "key", "client_ca")
	case "admin":
		if listen := n.get("listen"); listen.isOff() {
			listen.value, listen.text = "", ""
		}
	case "ca":
		a.absolute(n, "dir")
		a.named(n, "cert", "key")
	case "state":
		a.absolute(n, "dir")
		a.named(n, "ca")
	case "audit":
		if out := n.get("output"); out.isOff() {
			out.value, out.text = "off", "off"
		} else if out != nil && isFile(out.text) {
			a.absolute(n, "output")
		}
		if c := n.get("tls"); c != nil && c.kind == mapping {
			a.named(c, "ca", "cert", "key")
		}
		if c := n.get("checkpoint"); c != nil && c.kind == mapping {
			a.absolute(c, "key", "output")
		}
	}
	decoder{a.faults}.into(n, reflect.ValueOf(b.config).Elem())
	if v, ok := b.config.(interface{ Validate() []setting.Fault }); ok {
		a.report(n, n, v.Validate())
	}
	return n
}

// absolute makes relative paths of files relative to the file that names them, whatever directory the daemon was started in.
func (a *assembly) absolute(n *node, keys ...string) {
	for _, key := range keys {
		v := n.get(key)
		if v == nil || v.kind != scalar || v.text == "" || v.origin == originFlag || filepath.IsAbs(v.text) {
			continue
		}
		if _, isBool := v.value.(bool); isBool {
			continue // no path: the decoder says so
		}
		path, err := filepath.Abs(filepath.Join(filepath.Dir(v.at.file), v.text))
		if err == nil {
			v.text, v.value = path, path
		}
	}
}

// named is absolute for files that are read when the configuration is compiled: their content is a part of it.
func (a *assembly) named(n *node, keys ...string) {
	a.absolute(n, keys...)
	for _, key := range keys {
		v := n.get(key)
		if v == nil || v.kind != scalar || v.text == "" {
			continue
		}
		_, _, _ = a.read(v.text, maxFilledFile) // who needs it says what is wrong with it
	}
}

// later refuses what is not in this release, unless it is switched off, or written as what it is by default.
func (a *assembly) later(n *node, key string) {
	switch {
	case n.kind == broken || n.isOff() || n.kind == list && len(n.items) == 0:
		return
	case n.kind == mapping && len(n.fields) == 0:
		if slices.Contains(laterSwitches, key) {
			a.warnings.at(n, "has no effect: it is not available in this release")
		}
		return
	}
	a.faults.at(n, "is not available in this release")
	n.kind = broken
}

// report turns a room's faults into ours. body is the merged block, wrote the node to blame where the field was not written.
func (a *assembly) report(body, wrote *node, faults []setting.Fault) {
	for _, f := range faults {
		key := splitKey(f.Key)
		n, rest := find(body, key)
		if n == nil || (len(rest) == len(key) && wrote != nil) {
			n, rest = wrote, key
		}
		if n == nil {
			a.faults.room(nil, position{file: a.file.path}, f.Key, f)
			continue
		}
		if n.kind == broken || (len(key) == 0 && n.hasBroken()) {
			continue // what is said about a value that could not be read is no news
		}
		path := n.path
		for _, k := range rest {
			path = join(path, k)
		}
		a.faults.room(n, n.at, path, f)
	}
}

var keyPart = regexp.MustCompile(`\["((?:[^"\\]|\\.)*)"\]|[^.\[\]]+`)

// splitKey takes a room's key apart: backoff.base, resolve["a.example.com"].
func splitKey(key string) []string {
	var out []string
	for _, m := range keyPart.FindAllString(key, -1) {
		if unquoted, err := strconv.Unquote(trimBrackets(m)); err == nil && m[0] == '[' {
			m = unquoted
		}
		out = append(out, m)
	}
	return out
}

func trimBrackets(s string) string {
	if len(s) > 2 && s[0] == '[' {
		return s[1 : len(s)-1]
	}
	return s
}

// level checks one mapping of policy blocks. It returns false where there is nothing to merge.
func (a *assembly) level(n *node, origin string) bool {
	if n.kind == broken {
		return false
	}
	if n.kind != mapping {
		var hint setting.Own
		if n.isOff() {
			hint = ": to refuse a host, write {access: deny}"
		} else if n.kind == scalar && strings.Contains(n.text, ":") {
			hint = ": write a blank behind the colon"
		}
		a.faults.at(n, "must be a mapping of policy blocks, is %s%s", n, hint)
		return false
	}
	n.origin = origin
	known := append(policyKeys(origin), laterBlocks...)
	for _, f := range n.fields {
		if f.value.origin == "" && f.key != "routes" {
			f.value.mark(origin)
		}
		switch {
		case f.value.kind == broken:
		case slices.Contains(laterBlocks, f.key):
			a.later(f.value, f.key)
		case f.key == "routes" && (origin == originDefaults || origin == originRoute):
			a.faults.at(f.value, "belongs under a host in hosts:")
			f.value.kind = broken
		case !slices.Contains(known, f.key):
			decoder{a.faults}.unknown(f.value, f.key, known)
		case f.key == "routes" || f.key == "match" || f.key == "name":
		default:
			a.levelKey(f.key, f.value)
		}
	}
	return true
}

func (a *assembly) levelKey(key string, n *node) {
	if i := slices.IndexFunc(choices(), func(c choice) bool { return c.name == key }); i >= 0 {
		words := choices()[i].words
		if n.isOff() && words[0] == "off" {
			n.text, n.value = "off", "off"
		}
		if n.kind != scalar || !slices.Contains(words, n.text) {
			a.faults.at(n, "must be %s, is %s%s", alternatives(words), n, didYouMean(n.text, words))
			n.kind = broken
		}
		return
	}
	if key == "profile" || key == "provider" {
		a.setName(key, n)
		return
	}
	if n.kind != mapping && !n.isOff() && !n.isOn() {
		a.faults.at(n, "must be a mapping or off, is %s", n)
		n.kind = broken
		return
	}
	if key == "upstream" {
		a.named(n, "ca", "client_cert", "client_key")
	}
}

func alternatives(words []string) setting.Own {
	out := setting.Own(words[0])
	for i, w := range words[1:] {
		if i == len(words)-2 {
			out += " or " + setting.Own(w)
		} else {
			out += ", " + setting.Own(w)
		}
	}
	return out
}

// setName checks the name of a profile or provider.
func (a *assembly) setName(key string, n *node) {
	names := configs.ProfileNames()
	if key == "provider" {
		names = configs.ProviderNames()
	}
	if n.isOff() || (n.kind == scalar && n.text == "none") {
		n.text, n.value = "none", "none"
		return
	}
	if n.kind != scalar || !slices.Contains(names, n.text) {
		hint := didYouMean(n.text, names)
		if hint == "" && len(names) > 0 {
			hint = ": write " + alternatives(append(slices.Clone(names), "none"))
		}
		a.faults.at(n, "there is no %s %s%s", key, n, hint)
		n.kind = broken
	}
}

// set is the policy of a profile or provider, nil where it cannot be read.
func (a *assembly) set(key, name string) *node {
	id := key + " " + name
	if n, ok := a.sets[id]; ok {
		return n
	}
	if a.sets == nil {
		a.sets = map[string]*node{}
	}
	read, origin := configs.Profile, originProfile
	if key == "provider" {
		read, origin = configs.Provider, originProvider
	}
	data, _ := read(name)
	inner := &reader{env: func(string) (string, bool) { return "", false }, faults: a.faults, warnings: a.warnings, hidden: a.hidden, sum: a.sum}
	n := inner.parse(id, data).get("policy")
	if n == nil || !a.level(n, origin) {
		n = nil
	}
	a.sets[id] = n
	return n
}

// stack lays a level, and the profile and provider that it names, on the layers below.
func (a *assembly) stack(below []layer, n *node, origin string) []layer {
	layers := slices.Clone(below)
	for _, key := range []string{"profile", "provider"} {
		v := n.get(key)
		if v == nil || v.kind == broken {
			continue
		}
		kind := originProfile
		if key == "provider" {
			kind = originProvider
		}
		if v.text == "none" || key == "provider" { // facts about two vendors do not mix
			layers = slices.DeleteFunc(layers, func(l layer) bool { return l.origin == kind })
		}
		if v.text == "none" {
			continue
		}
		if body := a.set(key, v.text); body != nil {
			layers = append(layers, layer{level: n.path, origin: kind, body: body})
		}
	}
	return append(layers, layer{level: n.path, origin: origin, body: n})
}

// hosts reads the host blocks.
func (a *assembly) hosts(hosts *node, below []layer) {
	first := map[string]*node{}
	for _, f := range hosts.fields {
		p, err := match.ParsePattern(f.key)
		if err != nil {
			a.faults.at(f.value, "%v", err)
			continue
		}
		pattern := p.String()
		if other := first[pattern]; other != nil {
			a.faults.at(f.value, "is written twice, first at %s:%d:%d", setting.Own(other.at.file), other.at.line, other.at.column)
			continue
		}
		first[pattern] = f.value
		a.publicSuffix(f.value, pattern)
		if !a.level(f.value, originHost) {
			continue
		}
		layers := a.stack(below, f.value, originHost)
		h := hostPlan{pattern: pattern, base: a.plan(pattern, f.value, layers)}
		h.routes = a.routes(f.value, pattern, layers)
		a.file.hosts = append(a.file.hosts, h)
		a.checkTunnel(&h)
	}
	slices.SortStableFunc(a.file.hosts, func(x, y hostPlan) int { return cmp.Compare(x.pattern, y.pattern) })
}

type routePlan struct {
	label string // its name or number
	plan  *plan
}

var routeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

func (a *assembly) routes(host *node, pattern string, below []layer) []routePlan {
	routes := host.get("routes")
	if routes == nil || routes.kind == broken {
		return nil
	}
	if routes.kind != list {
		a.faults.at(routes, "must be a list of routes, is %s", routes)
		return nil
	}
	var out []routePlan
	for i, n := range routes.items {
		if !a.level(n, originRoute) {
			continue
		}
		label := strconv.Itoa(i)
		if name := n.get("name"); name != nil && name.kind != broken {
			switch {
			case name.kind != scalar || !routeName.MatchString(name.text):
				a.faults.at(name, "must be a letter followed by letters, digits, _, - and .")
			case slices.ContainsFunc(out, func(r routePlan) bool { return r.label == name.text }):
				a.faults.at(name, "another route of this host has the name %s", name.text)
			default:
				label = name.text
			}
		}
		p := a.plan(pattern+"#"+label, n, a.stack(below, n, originRoute))
		a.routeMatch(p, n)
		out = append(out, routePlan{label, p})
	}
	return out
}

func (a *assembly) routeMatch(p *plan, n *node) {
	m := n.get("match")
	if m == nil {
		a.faults.add(n.at, n.path, "has no match: write match: {path: /v1/**}, say, or match: {} to take every request")
		return
	}
	if m.kind == broken {
		return
	}
	decoder{a.faults}.into(m, reflect.ValueOf(&p.matches).Elem())
	if v := m.get("path"); v != nil && v.kind == scalar && v.text == "" {
		a.faults.at(v, "is empty: write /** for every path")
		v.kind = broken
	}
	if faults := p.matches.Validate(); len(faults) > 0 {
		a.report(m, m, faults)
	} else if m.hasBroken() {
		return
	} else if _, err := match.Compile(p.matches); err != nil {
		a.faults.at(m, "%v", err)
	}
}

// plan merges and decodes the layers of one level.
func (a *assembly) plan(name string, n *node, layers []layer) *plan {
	p := &plan{name: name, level: n.path, at: n.at, layers: layers, words: map[string]*node{}, blocks: map[string]*merged{}}
	for _, c := range choices() {
		for _, l := range layers {
			if v := l.body.get(c.name); v != nil && v.kind == scalar {
				p.words[c.name] = v
			}
		}
	}
	for _, b := range blocks() {
		m := b.merge(layers)
		if m.wrote == nil {
			m.wrote = &node{kind: mapping, at: n.at, path: join(n.path, b.name)}
		}
		p.blocks[b.name] = m
		m.config = a.decode(b, m.body)
		for i := range m.levels {
			m.levels[i].config = a.decode(b, m.levels[i].body)
		}
	}
	a.derive(p)
	for _, b := range blocks() {
		a.validate(b, p.blocks[b.name])
	}
	a.checkFiles(p)
	return p
}

func (a *assembly) decode(b block, body *node) any {
	c := b.config()
	if body != nil {
		decoder{a.faults}.into(body, reflect.ValueOf(c).Elem())
	}
	return c
}

func (a *assembly) validate(b block, m *merged) {
	check := func(body *node, c any) {
		if v, ok := c.(interface{ Validate() []setting.Fault }); ok {
			a.report(body, m.wrote, append(v.Validate(), a.untold(c)...))
		}
	}
	switch {
	case !m.on:
	case b.adds == levels:
		for i := range m.levels {
			m.wrote = m.levels[i].body
			check(m.levels[i].body, m.levels[i].config)
		}
	default:
		check(m.body, m.config)
	}
}

// untold returns a fault for each target that a block names and notify: does not.
func (a *assembly) untold(config any) []setting.Fault {
	c, ok := config.(*breaker.Config)
	if !ok {
		return nil
	}
	known := slices.Sorted(maps.Keys(a.file.settings.Notify))
	var faults []setting.Fault
	for i, name := range c.Notify {
		switch {
		case slices.Index(c.Notify, name) < i:
			faults = append(faults, setting.Faultf(fmt.Sprintf("notify[%d]", i), "names %s twice", harmless(name)))
		case !slices.Contains(known, name):
			faults = append(faults, setting.Faultf(fmt.Sprintf("notify[%d]", i), "there is no target %q under notify%s", harmless(name), didYouMean(name, known)))
		}
	}
	return faults
}
