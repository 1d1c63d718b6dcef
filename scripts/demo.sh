#!/bin/bash
# Shows a merge, a copy-up and a whiteout on a real mount, as an ordinary user, and checks each: scripts/demo.sh LAMINAFS
#
# Root gives itself up first: the whole of it then runs as the user that scripts/setup-debian.sh makes.
set -euo pipefail

user=lamina-test

if [ "$(id -u)" = 0 ]; then
	# The clone may lie where only root can read.
	dir=$(mktemp -d /tmp/lamina-demo.XXXXXX)
	trap 'rm -rf "$dir"' EXIT
	cp "$0" "$dir/demo.sh"
	cp "$1" "$dir/laminafs"
	chown -R "$user:" "$dir"
	cd /
	runuser -u "$user" -- env -u XDG_RUNTIME_DIR HOME="$dir" bash "$dir/demo.sh" "$dir/laminafs"
	exit
fi

laminafs=$(realpath "$1")
dir=$(mktemp -d /tmp/lamina-demo.XXXXXX)
cd "$dir"
trap 'cd /; fusermount3 -uz "$dir/merged" 2>/dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
PATH="$(dirname "$laminafs"):$PATH"

bold='' plain=''
if [ -t 1 ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# run shows a command and then runs it.
run() {
	printf '  $ %s\n' "$1"
	eval "$1" 2>&1 | sed 's/^/    /'
}

# show prints the files below a directory with their content.
show() { # DIR
	(cd "$1" && find . -mindepth 1 \( -type d -printf '%P/\n' -o -printf '%P\n' \) | LC_ALL=C sort | while read -r p; do
		if [ -d "$p" ]; then
			printf '    %-28s\n' "$1/$p"
		elif [ -s "$p" ]; then
			printf '    %-28s "%s"\n' "$1/$p" "$(head -n 1 "$p")"
		else
			printf '    %-28s (empty)\n' "$1/$p"
		fi
	done)
}

# expect ends the demonstration where what it shows is not so.
expect() { # WHAT GOT WANT
	if [ "$2" != "$3" ]; then
		printf '\ndemo: %s: got "%s", want "%s"\n' "$1" "$2" "$3" >&2
		exit 1
	fi
}

contents() { (cd "$1" && find . -type f -printf '%P ' -exec cat {} \; | LC_ALL=C sort); }

mkdir -p base/etc app/etc upper work merged
echo 'a shell'            >base/sh
echo 'hello from base'    >base/etc/motd
echo 'the base system'    >base/etc/release
echo 'hello from the app' >app/etc/motd
echo 'an application'     >app/app
before=$(contents base; contents app)

title "Two read-only layers, base below app"
show base
show app

title "Mounted as one tree, by $(id -un), with no privilege"
run 'laminafs -o lowerdir=app:base,upperdir=upper,workdir=work merged'
run 'grep merged /proc/self/mounts'
expect 'the mount' "$(stat -f -c %T merged)" fuseblk

title "A merge: both layers in one directory, the upper one's motd hides the lower one's"
run 'ls merged merged/etc'
run 'cat merged/etc/motd'
expect 'names in merged' "$(ls merged | xargs)" 'app etc sh'
expect 'names in merged/etc' "$(ls merged/etc | xargs)" 'motd release'
expect 'merged/etc/motd' "$(cat merged/etc/motd)" 'hello from the app'

title "A copy-up: the first write puts a copy in upper; the layer keeps what it has"
inode=$(stat -c %i merged/etc/release)
run 'echo "and a local change" >>merged/etc/release'
run 'cat merged/etc/release'
run 'cat upper/etc/release'
run 'cat base/etc/release'
expect 'merged/etc/release' "$(cat merged/etc/release | xargs)" 'the base system and a local change'
expect 'upper/etc/release' "$(cat upper/etc/release | xargs)" 'the base system and a local change'
expect 'base/etc/release' "$(cat base/etc/release)" 'the base system'
expect 'the inode number after the copy-up' "$(stat -c %i merged/etc/release)" "$inode"

title "A whiteout: a delete leaves a mark in upper"
run 'rm merged/sh'
run 'ls merged'
run 'ls -A upper'
expect 'names in merged' "$(ls merged | xargs)" 'app etc'
expect 'names in upper' "$(ls -A upper | xargs)" '.wh.sh etc'

title "The layers are as they were"
expect 'the layers' "$(contents base; contents app)" "$before"
show base
show app

title "Unmounted and mounted again, the tree is the same"
run 'fusermount3 -u merged'
# The server ends by itself once unmounted, and until then holds the lock on upper.
for _ in $(seq 100); do
	error=$(laminafs -o lowerdir=app:base,upperdir=upper,workdir=work merged 2>&1) && break
	sleep 0.1
done
expect 'the second mount' "$(stat -f -c %T merged)" fuseblk
run 'ls merged merged/etc'
expect 'names in merged' "$(ls merged | xargs)" 'app etc'
expect 'merged/etc/release' "$(cat merged/etc/release | xargs)" 'the base system and a local change'
fusermount3 -u merged
printf '\ndemo: all of it was checked\n'
