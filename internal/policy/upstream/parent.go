package upstream

import (
	"encoding/base64"

	"httpowerd/internal/exchange"
)

// Parent is a parent proxy's URL, taken apart.
type Parent struct {
	Scheme    string // http, https, socks5, socks5h
	Authority exchange.Authority
	HasUser   bool
	User      string
	password  string
}

// Socks tells whether the parent speaks SOCKS5 (RFC 1928).
func (p *Parent) Socks() bool { return p.Scheme == "socks5" || p.Scheme == "socks5h" }

// Password is what the parent is told beside User (RFC 1929).
func (p *Parent) Password() string { return p.password }

// Authorization is the value of Proxy-Authorization (RFC 7617), "" where the URL has no user.
func (p *Parent) Authorization() string {
	if !p.HasUser {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.password))
}
