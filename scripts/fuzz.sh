#!/bin/bash
# Runs every fuzz target of the module for a time: scripts/fuzz.sh [TIME]
#
# go test takes one target of one package at a time. A failing input is saved below testdata/fuzz of its package.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-1m}
failed=0
for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "fuzz: $pkg $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg" || failed=1
	done
done
exit $failed
