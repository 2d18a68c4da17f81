#!/usr/bin/env bash
# Looks for known vulnerabilities in what the binary uses. One that is found fails; a database that cannot be reached is said, and fails where VULN=require.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(timeout 300 go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./... 2>&1)
code=$?
echo "$out" | tail -40
if ((code != 0)) && [[ ${VULN:-} != require ]] && grep -qE 'fetching vulnerabilities|dial tcp|no such host|proxyconnect' <<<"$out" && ! grep -q '^Vulnerability #' <<<"$out"; then
  echo 'NOT CHECKED: the database of vulnerabilities cannot be reached from here'
  exit 0
fi
exit "$code"
