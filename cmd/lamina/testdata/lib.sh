# Functions for the scripts. The working directory is the script's own.

fail() { echo "FAIL: $*" >&2; exit 1; }

# want WANT GOT [WHAT]
want() { [ "$1" = "$2" ] || fail "${3-}: want '$1', got '$2'"; }

# until_ok COMMAND...: tries until the command succeeds.
until_ok() {
	local n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 600 ] || fail "after half a minute still not: $*"
		sleep 0.05
	done
}

# in_state NAME STATE: for until_ok.
in_state() { [ "$(lamina inspect -f '{{.State.Status}}' "$1")" = "$2" ]; }

# has FILE PATTERN: for until_ok.
has() { grep -q -- "$2" "$1"; }

gone() { ! kill -0 "$1"; }

run() { lamina run --network none "$@"; }
