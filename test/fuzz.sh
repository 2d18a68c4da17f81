#!/usr/bin/env bash
# Runs every fuzz target of the tree for the given time, two at a time with one worker each.
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME=${1:-5s}
one() { # without a bound on minimizing, some targets would do little else
  out=$(go test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 10x -parallel 1 "$1" 2>&1) || {
    # Go's fuzzer may take the end of its time for a failure; a real one has an input.
    if ! grep -q '^    context deadline exceeded$' <<<"$out" || grep -qE 'Failing input|panic|fuzzing process' <<<"$out"; then
      echo "$out"
      echo "fuzz $1 $2: failed"
      exit 255
    fi
  }
  echo "fuzz $1 $2: $(grep -oE 'execs: [0-9]+' <<<"$out" | tail -1)"
}
export -f one
grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
  grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | cut -c6- | sed "s|^|$dir |"
done | xargs -P 2 -L 1 bash -c 'one "$@"' fuzz
