#!/usr/bin/env bash
# Renews cmd/httpowerd/default.pgo, by which the compiler decides what to inline and which call of an interface to guess: from the ways that most requests take,
# and of those our own functions alone. What it inlined of the libraries cost more in the instruction cache than the calls did.
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
