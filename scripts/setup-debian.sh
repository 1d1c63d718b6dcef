#!/bin/bash
# Prepares a Debian machine to build lamina, run its demonstration and its tests. It changes only what is missing and
# may run any number of times.
#
# It needs root, or sudo, and only where something is missing. CI, and anyone who wants to see what would be done
# first: scripts/setup-debian.sh --check tells what is missing and changes nothing.
set -euo pipefail

# What is run: by the build (make, gcc for the race detector only), by the mount (fuse3, uidmap), by tests as the
# filesystems below a layer (e2fsprogs, xfsprogs, btrfs-progs), as peers (fuse-overlayfs, unionfs-fuse, bubblewrap), as
# programs on a mount, and as those who call laminafs (podman, buildah, with runc, and busybox to make an image of). prometheus scrapes its metrics; the
# service that comes with the package is not needed.
packages=(
	ca-certificates make gcc libc6-dev
	fuse3 uidmap util-linux mount procps libcap2-bin acl attr strace
	e2fsprogs xfsprogs btrfs-progs
	fuse-overlayfs unionfs-fuse bubblewrap
	slirp4netns passt iproute2
	git sqlite3 rsync tar bzip2 xz-utils zstd jq curl python3 python3-venv mmdebstrap
	podman buildah runc busybox-static skopeo umoci docker-registry
	prometheus
)

# The oldest Go that fetches by itself the version which go.mod names.
oldest_go=1.21

test_user=lamina-test

missing=()   # packages
say() { printf 'setup: %s\n' "$*" >&2; }

find_go() {
	PATH="$PATH:/usr/local/go/bin" command -v go || true
}

go_is_new_enough() {
	local go version
	go=$(find_go)
	[ -n "$go" ] || return 1
	version=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null) || return 1
	version=${version#go}
	[ "$(printf '%s\n%s\n' "$oldest_go" "$version" | sort -V | head -n 1)" = "$oldest_go" ]
}

find_missing_packages() {
	local p
	for p in "${packages[@]}"; do
		if [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" != installed ]; then
			missing+=("$p")
		fi
	done
}

fuse_device_is_open() {
	[ -c /dev/fuse ] && [ "$(stat -c %a /dev/fuse)" = 666 ]
}

# udev opens it to everybody; small virtual machines have none.
tun_device_is_open() {
	[ ! -c /dev/net/tun ] || [ "$(stat -c %a /dev/net/tun)" = 666 ]
}

has_range() { # FILE
	grep -qs "^$test_user:" "$1"
}

test_user_is_ready() {
	id "$test_user" >/dev/null 2>&1 && has_range /etc/subuid && has_range /etc/subgid
}

everything_is_there() {
	[ ${#missing[@]} = 0 ] && go_is_new_enough && fuse_device_is_open && tun_device_is_open && test_user_is_ready
}

report() {
	[ ${#missing[@]} = 0 ] || say "missing packages: ${missing[*]}"
	go_is_new_enough || say "missing: Go $oldest_go or newer"
	fuse_device_is_open || say "missing: /dev/fuse with mode 0666"
	tun_device_is_open || say "missing: /dev/net/tun with mode 0666"
	test_user_is_ready || say "missing: user $test_user with ranges in /etc/subuid and /etc/subgid"
}

install_packages() { # NAME...
	local log
	log=$(mktemp)
	say "installing $*"
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
		>"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		say "apt-get could not install: $*"
		exit 1
	fi
	rm -f "$log"
}

# install_go takes Debian's. Where that is too old to fetch a newer one by itself, it is made to fetch it as the module
# that it is, golang.org/toolchain, checked against the checksum database like every module.
install_go() {
	local version arch old module dir
	install_packages golang-go
	go_is_new_enough && return

	old=$(find_go)
	version=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")
	arch=$("$old" env GOARCH)
	module="golang.org/toolchain@v0.0.1-go$version.linux-$arch"
	say "Debian's Go is older than $oldest_go: fetching Go $version with it"
	# An empty module of its own: the one here asks for a newer Go than the one at hand.
	dir=$(mktemp -d)
	(cd "$dir" && printf 'module fetch\n' >go.mod && "$old" mod download "$module")
	rm -rf "$dir"
	if [ -e /usr/local/go ]; then
		say "/usr/local/go is there and is older than $oldest_go: please remove or renew it"
		exit 1
	fi
	cp -r "$("$old" env GOMODCACHE)/$module" /usr/local/go
	chmod -R u+w /usr/local/go
	# A module's files bear no execute bits.
	chmod -R a+rX /usr/local/go
	chmod a+x /usr/local/go/bin/* /usr/local/go/pkg/tool/*/*
	ln -sf /usr/local/go/bin/go /usr/local/go/bin/gofmt /usr/local/bin/
	hash -r
	go_is_new_enough || { say "Go in /usr/local/go does not run"; exit 1; }
}

open_fuse_device() {
	if [ ! -c /dev/fuse ]; then
		modprobe fuse 2>/dev/null || true
	fi
	if [ ! -c /dev/fuse ] && grep -qw fuse /proc/filesystems; then
		mknod /dev/fuse c 10 229 # no udev here: a container, or a small virtual machine
	fi
	if [ ! -c /dev/fuse ]; then
		say "this kernel has no FUSE: /dev/fuse is missing, and so is fuse in /proc/filesystems"
		exit 1
	fi
	chmod 0666 /dev/fuse
}

# free_range prints the first id above all ranges of FILE.
free_range() { # FILE
	awk -F: 'BEGIN { end = 100000 } NF == 3 && $2 + $3 > end { end = $2 + $3 } END { print end }' "$1" 2>/dev/null ||
		echo 100000
}

make_test_user() {
	local first
	id "$test_user" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh "$test_user"
	touch /etc/subuid /etc/subgid
	if ! has_range /etc/subuid; then
		first=$(free_range /etc/subuid)
		usermod --add-subuids "$first-$((first + 65535))" "$test_user"
	fi
	if ! has_range /etc/subgid; then
		first=$(free_range /etc/subgid)
		usermod --add-subgids "$first-$((first + 65535))" "$test_user"
	fi
}

find_missing_packages
if everything_is_there; then
	exit 0
fi
if [ "${1:-}" = --check ]; then
	report
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	report
	if command -v sudo >/dev/null; then
		say "asking for root to add it"
		exec sudo -- bash "$0" "$@"
	fi
	say "run scripts/setup-debian.sh as root to add it"
	exit 1
fi

[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
go_is_new_enough || install_go
fuse_device_is_open || open_fuse_device
tun_device_is_open || chmod 0666 /dev/net/tun
test_user_is_ready || make_test_user

missing=()
find_missing_packages
if ! everything_is_there; then
	report
	exit 1
fi
say "ready"
