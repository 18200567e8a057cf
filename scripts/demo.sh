#!/bin/sh
# What `make eval` runs: three prompt versions over the golden sets, two gates, one report.
# Usage: demo.sh [STORE]; EVALKIT names the command where it is not on the PATH.
set -eu
evalkit=${EVALKIT:-evalkit}
store=${1:-.evalkit}
report=report.html

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }
show() { printf '\n$ evalkit %s\n' "$*"; "$evalkit" "$@"; }
run() {
  show run --store "$store" \
    --prompt "classify-ticket@$1" --prompt "extract-order@$1" --prompt "answer-from-docs@$1"
}
if [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ]; then say() { printf '\n== %s\n' "$1"; }; fi

say "Three golden sets, prompts v1, answered by the embedded model"
run v1
say "The same with prompts v2: somebody improved them. Did quality drop?"
run v2
show gate --store "$store" --baseline latest~1 --candidate latest
say "Prompts v3: somebody shortened v2 in a hurry. Did quality drop?"
run v3
status=0
show gate --store "$store" --baseline latest~1 --candidate latest --html "$report" || status=$?
if [ "$status" -ne 1 ]; then
  echo "the gate ended with status $status; it should have stopped v3 with status 1" >&2
  exit 1
fi
say "The gate passed v2 and stopped v3 (exit status 1), as it should."
echo "Report: $report    Scores: evalkit query \"SELECT * FROM scores LIMIT 5\" --store $store"
