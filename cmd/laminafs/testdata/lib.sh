# Functions for the scripts. The working directory is the script's own.
set -eu

fail() { echo "FAIL: $*" >&2; exit 1; }

# want WANT GOT [WHAT]
want() { [ "$1" = "$2" ] || fail "${3-}: want '$1', got '$2'"; }

# mounted DIR: the line of mountinfo of the topmost mount on DIR; fails where there is none.
mounted() { awk -v d="$PWD/$1" '$5 == d { l = $0 } END { if (l == "") exit 1; print l }' /proc/self/mountinfo; }
unmounted() { if mounted "$1" >/dev/null; then fail "$1 is mounted"; fi; }

# mnt [OPTION...]: the usual mount, on m.
mnt() {
	_o="lowerdir=$PWD/l1:$PWD/l2,upperdir=$PWD/u,workdir=$PWD/w"
	for _i; do _o="$_o,$_i"; done
	laminafs -o "$_o" "$PWD/m" || return
	lowers >lowers.before
}

# lowers: all there is to know of the layers l1 and l2, but for access times, and for the number of blocks, which the disk
# counts anew when it writes a file back.
lowers() {
	find l1 l2 -printf '%p %y %i %n %m %U:%G %s %T@ %C@ %l\n' | LC_ALL=C sort
	find l1 l2 -type f -readable -exec sha256sum {} + | LC_ALL=C sort
}

# server DIR: the pid of the server of the mount on DIR.
server() { laminafs list | awk -v d="$PWD/$1" '$1 == d { print $4 }'; }
# told DIR: the directory that tells of the mount on DIR.
told() {
	_id=$(laminafs list | awk -v d="$PWD/$1" '$1 == d { print $2 }')
	for _d in /run/laminafs "$XDG_RUNTIME_DIR/laminafs"; do
		if [ -d "$_d/$_id" ] && [ -n "$_id" ]; then echo "$_d/$_id"; return; fi
	done
	fail "nothing tells of $1"
}

# until_ok COMMAND...: tries until the command succeeds.
until_ok() {
	_end=$(($(date +%s) + 300))
	until "$@" 2>/dev/null; do
		[ $(date +%s) -lt $_end ] || fail "after five minutes still not: $*"
		sleep 0.05
	done
}
# A leader may have ended before its threads: dead is who has no thread but zombies.
dead() { ! kill -0 "$1" || ! grep -h '^State:' "/proc/$1"/task/*/status | grep -qv Z; }
ended() { until_ok dead "$1"; }
# stop PID: stops a server, and returns when all its threads have stopped. Until then they go on answering.
stopped() { ! grep '^State:' "/proc/$1"/task/*/status | grep -qv 'T (stopped)'; }
stop() { kill -STOP "$1"; until_ok stopped "$1"; }

# requests DIR OPCODE: how many requests of the kind the mount on DIR has had.
requests() {
	_told=$(told "$1")
	rm -f "$_told/requests"
	kill -USR1 "$(server "$1")"
	until_ok test -e "$_told/requests"
	awk -v op="$2" '$1 == op { n = $2 } END { print n + 0 }' "$_told/requests"
}

# unmount DIR: by whatever this identity may use, and again for some seconds, since something may look at the mount. The layers
# must be what they were after mnt.
unmount() {
	_n=0
	until umount "$1" 2>/dev/null || _said=$(fusermount3 -u "$1" 2>&1); do
		_n=$((_n + 1))
		if [ $_n = 50 ]; then echo "$_said" >&2; return 1; fi
		sleep 0.1
	done
	[ -e lowers.before ] || return 0
	lowers >lowers.after
	mv lowers.before lowers.was
	cmp -s lowers.was lowers.after || fail "a lower was written to: $(diff lowers.was lowers.after)"
}
