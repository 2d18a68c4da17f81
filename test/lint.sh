#!/usr/bin/env bash
# Runs golangci-lint in the version that this project is kept clean with.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
bin=${GOLANGCI_LINT:-$(go env GOPATH)/bin/golangci-lint-$version}
if [ ! -x "$bin" ]; then
  echo "building golangci-lint $version (once, a minute or two)"
  dir=$(mktemp -d)
  GOBIN=$dir go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
  mkdir -p "$(dirname "$bin")"
  mv "$dir/golangci-lint" "$bin"
  rmdir "$dir"
fi
exec "$bin" run ./...
