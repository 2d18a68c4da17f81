#!/usr/bin/env bash
# Makes cmd/httpowerd/default.pgo, by which the compiler then decides what to inline: from the ways that most requests take, and of those our own functions alone.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go test -trimpath -c -o "$dir/daemon.test" ./internal/daemon
for way in Plain Post Intercepted; do
  (cd internal/daemon && "$dir/daemon.test" -test.run '^$' -test.bench "^Benchmark$way\$" -test.benchtime 5s -test.cpuprofile "$dir/$way.prof") |
    grep "^Benchmark$way"
done
go tool pprof -proto -show '^httpowerd/internal/' -output "$dir/default.pgo" "$dir"/*.prof >/dev/null
mv "$dir/default.pgo" cmd/httpowerd/default.pgo
ls -l cmd/httpowerd/default.pgo
