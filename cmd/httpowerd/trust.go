package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"httpowerd/internal/daemon"
	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/trust"
)

// proxyURL is how a program on this machine reaches a listener.
func proxyURL(listen string, tls bool) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port), nil
}

// openCA opens the CA that the configuration names, and makes it where there is none.
func openCA(s policy.Settings) (*intercept.Authority, string, error) {
	config := daemon.CAConfig(s)
	ca, err := intercept.Open(config)
	if err != nil {
		return nil, "", err
	}
	return ca, config.Dir, ca.Ready()
}

// renewCA puts a new CA in the place of the one that the configuration names, whatever became of that.
func renewCA(s policy.Settings) (*intercept.Authority, string, error) {
	if err := intercept.Renew(daemon.CAConfig(s)); err != nil {
		return nil, "", err
	}
	return openCA(s)
}

// trustFiles writes what programs need in order to trust the CA into dir.
func trustFiles(ca []byte, dir string) (trust.Settings, error) {
	var s trust.Settings
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, err
	}
	s.CAFile = filepath.Join(dir, "ca.pem")
	s.BundleFile = filepath.Join(dir, "bundle.pem")
	s.JavaTrustStore = filepath.Join(dir, "truststore.jks")
	if err := trust.WriteFile(s.CAFile, ca); err != nil {
		return s, err
	}
	bundle, err := trust.Bundle(ca)
	if err != nil {
		return s, err
	}
	if err := trust.WriteFile(s.BundleFile, bundle); err != nil {
		return s, err
	}
	store, err := trust.JavaStore(bundle, trust.DefaultStorePassword)
	if err != nil {
		return s, fmt.Errorf("the Java trust store: %w", err)
	}
	return s, trust.WriteFile(s.JavaTrustStore, store)
}
