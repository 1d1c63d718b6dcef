#!/bin/bash
# Runs a Go test binary in a virtual machine with Debian's kernel and systemd, so on cgroup v2: first as root, then as an
# ordinary user who has logged in. It needs no KVM, and root to unpack Debian with its owners.
#
#	scripts/vm-test.sh [-k RELEASE] [-a PARAMETER]... [-f FILE]... [-r] BINARY [ARGUMENT...]
#
#	-k RELEASE    the kernel is that of this release of Debian: bullseye 5.10, bookworm 6.1, trixie 6.12; without it, that of ours
#	-a PARAMETER  for the kernel: module_blacklist=overlay
#	-f FILE       a file or folder that lies in the binary's working directory
#	-r            as root only
#
# The arguments are the binary's. Everything lies in a folder below TMPDIR that is removed at the end; VM_CACHE=DIR keeps
# what does not change between runs (kernel and root filesystem, 450 MB) and takes it from there the next time.
set -euo pipefail

user=lamina-test
boot_limit=${VM_TIMEOUT:-600} # seconds until the machine is given up
ours=$(. /etc/os-release && echo "$VERSION_CODENAME")

say() { printf 'vm-test: %s\n' "$*" >&2; }
usage() { say "usage: vm-test.sh [-k RELEASE] [-a PARAMETER]... [-f FILE]... [-r] BINARY [ARGUMENT...]"; exit 2; }

release=$ours parameters='' files=() identities=(root user)
while getopts k:a:f:r option; do
	case $option in
	k) release=$OPTARG ;;
	a) parameters+=" $OPTARG" ;;
	f) files+=("$(realpath "$OPTARG")") ;;
	r) identities=(root) ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] && [ -x "$1" ] || usage
[ "$(id -u)" = 0 ] || { say "be root"; exit 2; }
for tool in qemu-system-x86_64 mmdebstrap mke2fs; do
	command -v "$tool" >/dev/null || { say "missing: $tool (apt-get install qemu-system-x86 mmdebstrap e2fsprogs)"; exit 2; }
done
binary=$(realpath "$1")
shift

work=$(mktemp -d "${TMPDIR:-/tmp}/vm-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
cache=${VM_CACHE:-$work/cache}
mkdir -p "$cache"

# apt as it would be in the other release, with lists of its own, from where ours come.
apt_of_release() {
	local command=$1
	shift
	if [ "$release" = "$ours" ]; then
		"apt-$command" -o APT::Sandbox::User=root "$@"
		return
	fi
	"apt-$command" -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$work/apt/list.sources" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" "$@"
}

prepare_apt() {
	mkdir -p "$work"/apt/{lists,cache}/partial
	cat /etc/apt/sources.list.d/*.sources | sed "s/\b$ours\b/$release/g" >"$work/apt/list.sources"
	apt_of_release get -qq update || true # a suite that the release lacks is no loss
}

# The cloud kernel has NVMe and ext4 built in, and so needs no initramfs.
fetch_kernel() {
	local name
	mkdir "$work/kernel"
	[ "$release" = "$ours" ] || prepare_apt
	name=$(apt_of_release cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	say "fetching $name"
	(cd "$work/kernel" && apt_of_release get download "$name" >/dev/null && dpkg-deb -x ./*.deb .)
}

make_root() {
	say "making a root filesystem with systemd"
	mmdebstrap --quiet --variant=minbase --skip=cleanup/apt \
		--include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,kmod,procps,iproute2,fuse3,attr,acl \
		"$ours" "$work/root" >"$work/mmdebstrap.log" 2>&1 ||
		{ tail -n 20 "$work/mmdebstrap.log" >&2; exit 1; }
	rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,locale,man}
	local version modules
	version=$(basename "$work"/kernel/lib/modules/*)
	modules=lib/modules/$version
	mkdir -p "$work/root/usr/$modules"
	for m in kernel/fs/fuse/fuse.ko kernel/drivers/net/tun.ko kernel/fs/overlayfs/overlay.ko kernel/block/bfq.ko; do
		(cd "$work/kernel" && cp --parents "$modules/$m"* "$work/root/usr/") # compressed in some releases
	done
	cp "$work/kernel/$modules"/modules.{builtin,builtin.modinfo,order} "$work/root/usr/$modules/"
	chroot "$work/root" depmod "$version"
	printf 'fuse\ntun\n' >"$work/root/etc/modules-load.d/lamina.conf"
	sed -i 's/^#user_allow_other/user_allow_other/' "$work/root/etc/fuse.conf"
	chroot "$work/root" useradd --create-home --shell /bin/sh "$user"
	grep -q "^$user:" "$work/root/etc/subuid" || echo "$user:100000:65536" | tee "$work/root/etc/subuid" >"$work/root/etc/subgid"
	echo lamina-vm >"$work/root/etc/hostname"
	install_runner
	# Nothing that a test does not need: each unit costs a second here.
	chroot "$work/root" systemctl -q mask systemd-update-utmp.service systemd-timesyncd.service systemd-firstboot.service \
		systemd-sysctl.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
		e2scrub_reap.service fstrim.timer getty.target serial-getty@ttyS0.service >/dev/null 2>&1
	chroot "$work/root" systemctl -q enable vm-test.service >/dev/null 2>&1
	truncate -s 2G "$work/root.ext4"
	mke2fs -q -t ext4 -N 500000 -d "$work/root" "$work/root.ext4"
}

# What runs in the machine. The second disk is a tar file with the binary and its arguments.
install_runner() {
	cat >"$work/root/usr/local/sbin/vm-test" <<-'RUNNER'
		#!/bin/bash
		mkdir -p /t && tar -xf /dev/nvme1n1 -C /t
		chmod 0755 /t /t/binary
		chmod 0666 /dev/fuse
		user=$(cat /t/user)
		mapfile -d '' args </t/args
		cd /t/files
		[ ! -x laminafs ] || export LAMINAFS=/t/files/laminafs
		uname -r
		echo "VM: root"
		env HOME=/root LAMINA_VM=root /t/binary "${args[@]}"
		echo "VM: root exit=$?"
		grep -qx user /t/identities || systemctl poweroff --force --force
		echo "VM: user"
		# As a login does it: PAM opens a session and systemd starts the user's manager.
		quoted=$(printf '%q ' "${args[@]}")
		runuser -l "$user" -c "export XDG_RUNTIME_DIR=/run/user/\$(id -u) LAMINA_VM=user; cd /t/files; /t/binary $quoted"
		echo "VM: user exit=$?"
		sync
		systemctl poweroff --force --force
	RUNNER
	chmod 0755 "$work/root/usr/local/sbin/vm-test"
	cat >"$work/root/etc/systemd/system/vm-test.service" <<-'UNIT'
		[Unit]
		Description=The tests that this machine was started for
		After=dbus.service systemd-logind.service systemd-user-sessions.service
		[Service]
		Type=oneshot
		ExecStart=/usr/local/sbin/vm-test
		StandardOutput=tty
		StandardError=tty
		TTYPath=/dev/ttyS0
		TimeoutStartSec=infinity
		[Install]
		WantedBy=multi-user.target
	UNIT
}

if [ ! -e "$cache/root.ext4" ]; then
	fetch_kernel
	make_root
	mv "$work"/kernel/boot/vmlinuz-* "$cache/vmlinuz"
	mv "$work/root.ext4" "$cache/root.ext4"
	rm -rf "$work/root" "$work/kernel"
fi
cp --sparse=always "$cache/root.ext4" "$work/disk"

mkdir -p "$work/t/files"
cp "$binary" "$work/t/binary"
[ ${#files[@]} = 0 ] || cp -r "${files[@]}" "$work/t/files/"
printf '%s\n' "${identities[@]}" >"$work/t/identities"
echo "$user" >"$work/t/user"
[ $# = 0 ] && : >"$work/t/args" || printf '%s\0' "$@" >"$work/t/args"
tar -C "$work/t" -cf "$work/tests" binary user args identities files
truncate -s %512 "$work/tests"

say "starting the machine"
timeout --kill-after=5 "$boot_limit" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max,-cx16 -smp 2 -m 1536 \
	-nodefaults -display none -no-reboot -serial "file:$work/console" \
	-kernel "$cache/vmlinuz" \
	-append "console=ttyS0 quiet root=/dev/nvme0n1 rw systemd.show_status=0 panic=-1 random.trust_cpu=1 tsc=reliable mitigations=off$parameters" \
	-drive "if=none,id=root,format=raw,file=$work/disk,cache=unsafe" -device nvme,drive=root,serial=root \
	-drive "if=none,id=tests,format=raw,readonly=on,file=$work/tests" -device nvme,drive=tests,serial=tests \
	</dev/null || say "the machine was given up after $boot_limit s"

tr -d '\r' <"$work/console"
for who in "${identities[@]}"; do
	grep -q "^VM: $who exit=0" <(tr -d '\r' <"$work/console") || { say "failed as $who"; exit 1; }
done
say "passed as ${identities[*]}"
