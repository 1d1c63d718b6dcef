#!/bin/bash
# The union on the transports that are not the default: what follows is the command that runs tests. As root FUSE over
# io_uring is allowed meanwhile; where it cannot be, that transport is named and left out. With LAMINA_LONG all suites are
# run on all, else those that ask the most of a transport.
set -euo pipefail

allowed=/sys/module/fuse/parameters/enable_uring
others=(gofuse)
before=
restore() { [ -z "$before" ] || echo "$before" >"$allowed"; }
trap restore EXIT
if [ -e "$allowed" ] && before=$(cat "$allowed") && { echo Y >"$allowed"; } 2>/dev/null; then
	others+=(uring)
else
	before=
	echo "no FUSE over io_uring: $allowed is not there or not ours to set" >&2
fi

for transport in "${others[@]}"; do
	export LAMINA_TRANSPORT=$transport
	if [ -n "${LAMINA_LONG:-}" ]; then
		"$@" -p 1 ./internal/uniontest/... ./cmd/laminafs
		continue
	fi
	echo "transport=$transport"
	"$@" -run 'TestRandom|TestFsx' ./internal/uniontest/model
	"$@" -run 'TestScripts/laminafs-wh-root' ./internal/uniontest
done
