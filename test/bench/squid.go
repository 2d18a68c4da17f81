package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// certgen makes squid's certificates, where Debian's squid-openssl has it.
const certgen = "/usr/lib/squid/security_file_certgen"

const squidConfig = `http_access allow all
access_log none
cache_store_log none
cache_log %[1]s/cache.log
pid_filename none
coredump_dir %[1]s
icon_directory /usr/share/squid/icons
netdb_filename none
hosts_file %[4]s
shutdown_lifetime 0 seconds
via off
forwarded_for delete
client_db off
cache deny all
tls_outgoing_options cafile=%[2]s
http_port %[3]s`

const squidBump = ` ssl-bump tls-cert=%[2]s tls-key=%[3]s generate-host-certificates=on dynamic_cert_mem_cache_size=16MB
sslcrtd_program ` + certgen + ` -s %[1]s/certs -M 16MB
sslcrtd_children 2 startup=1 idle=1
acl hello at_step SslBump1
ssl_bump peek hello
ssl_bump bump all
`

// squid is squid without cache and access log.
func squid(l *lab, dir, address string, intercept bool) (*exec.Cmd, error) {
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 "+originName+"\n"), 0o644); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(squidConfig, dir, l.originPEM(), address, hosts)
	if intercept {
		config += fmt.Sprintf(squidBump, dir, l.caPEM(), l.caKey())
		if out, err := exec.Command(certgen, "-c", "-s", filepath.Join(dir, "certs"), "-M", "16MB").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
	}
	file := filepath.Join(dir, "squid.conf")
	if err := os.WriteFile(file, []byte(config+"\n"), 0o644); err != nil {
		return nil, err
	}
	// Started by root it works as a user of its own, who must be able to write here.
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o777)
	})
	return exec.Command("squid", "-N", "-f", file), err
}
