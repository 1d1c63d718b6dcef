#!/bin/bash
# Loads an image of several layers and runs it as an ordinary user, under limits; shows what the container changed, and
# checks all of it: scripts/demo-lamina.sh BIN, the directory with our programs.
#
# The image is a Debian system (mmdebstrap) with two layers on top (buildah). Root prepares a cgroup for the user that
# scripts/setup-debian.sh makes, and gives itself up: all the rest is the user's.
set -euo pipefail

user=lamina-test
controllers='memory cpu cpuacct cpuset pids blkio freezer'
made=() # cgroups that go at the end

# as_user runs the demonstration as the user, in a cgroup that is his.
as_user() { # PROGRAM...
	local c d base=/sys/fs/cgroup
	if [ "$(stat -f -c %T $base)" = cgroup2fs ] && [ -d /run/systemd/system ]; then
		systemd-run --quiet --pipe --wait --collect --property=Delegate=yes --uid="$user" --gid="$user" "$@"
		return
	elif [ "$(stat -f -c %T $base)" = cgroup2fs ]; then
		d=$base/lamina-demo.$$
		mkdir "$d"
		made+=("$d")
		mkdir "$d/main"
		made=("$d/main" "${made[@]}")
		chown "$user:" "$d" "$d/main" "$d"/cgroup.{procs,subtree_control} "$d/main/cgroup.procs"
		(echo "$BASHPID" >"$d/main/cgroup.procs" && exec runuser -u "$user" -- "$@")
		return
	fi
	for c in $controllers; do
		d=$base/$c/lamina/$user
		[ -d "$base/$c" ] && [ ! -d "$d" ] || continue
		[ -d "${d%/*}" ] || { mkdir "${d%/*}" && made=("${d%/*}" "${made[@]}"); }
		mkdir "$d" && made=("$d" "${made[@]}")
		# A group of the cpuset controller is of no use before it is told what its parent has.
		if [ "$c" = cpuset ]; then
			for f in cpus mems; do
				cat "$base/$c/cpuset.$f" >"${d%/*}/cpuset.$f"
				cat "$base/$c/cpuset.$f" >"$d/cpuset.$f"
			done
		fi
		chown "$user:" "$d" "$d/cgroup.procs" "$d/tasks"
	done
	runuser -u "$user" -- "$@"
}

if [ "$(id -u)" = 0 ]; then
	# The clone may lie where only root can read.
	dir=$(mktemp -d /tmp/lamina-demo.XXXXXX)
	trap 'for c in "${made[@]}"; do rmdir "$c" 2>/dev/null || true; done; rm -rf "$dir"' EXIT
	cp "$0" "$dir/demo.sh"
	cp "$1/lamina" "$1/lamina-monitor" "$1/lamina-init" "$1/laminafs" "$dir/"
	mkdir "$dir/home"
	chown -R "$user:" "$dir"
	cd /
	as_user env -u XDG_RUNTIME_DIR -u XDG_DATA_HOME HOME="$dir/home" PATH="$PATH" bash "$dir/demo.sh" "$dir"
	exit
fi

bin=$(realpath "$1")
dir=$(mktemp -d /tmp/lamina-demo.XXXXXX)
cd "$dir"
export PATH="$bin:$PATH" XDG_DATA_HOME="$dir/data" XDG_RUNTIME_DIR="$dir/run"
mkdir -m 700 run

finish() {
	lamina ps -aq 2>/dev/null | xargs -r lamina rm -f >/dev/null 2>&1 || true
	lamina system prune -a -f --volumes >/dev/null 2>&1 || true
	# What is left belongs to ids of the range.
	cd /
	chmod -R u+w "$dir" 2>/dev/null || true
	rm -rf "$dir" 2>/dev/null || buildah unshare rm -rf "$dir"
}
trap finish EXIT

bold='' plain=''
if [ -t 1 ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# run shows a command and then runs it. Its output is in $output too, its status in $status.
run() {
	printf '  $ %s\n' "$1"
	status=0
	eval "$1" >"$dir/out" 2>&1 || status=$?
	sed 's/^/    /' "$dir/out"
	output=$(cat "$dir/out")
}

# expect ends the demonstration where what it shows is not so.
expect() { # WHAT GOT WANT
	if [ "$2" != "$3" ]; then
		printf '\ndemo: %s: got "%s", want "%s"\n' "$1" "$2" "$3" >&2
		exit 1
	fi
}

title "A Debian system, and two layers on it: made with mmdebstrap and buildah, by $(id -un)"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
mmdebstrap --quiet --mode=unshare --variant=essential "$codename" debian.tar
storage="--root=$dir/buildah --runroot=$dir/buildah-run --storage-driver=vfs"
base=$(buildah $storage from scratch)
buildah $storage add --quiet "$base" debian.tar / >/dev/null
buildah $storage config --cmd bash --env LC_ALL=C "$base"
buildah $storage commit --quiet --rm "$base" base >/dev/null
for change in 'rm -r /usr/share/locale /usr/share/zoneinfo; mkdir /usr/share/locale' 'echo "Welcome to a layered Debian" >/etc/motd'; do
	next=$(buildah $storage from base)
	buildah $storage run --isolation=chroot --network=host "$next" sh -c "$change"
	buildah $storage commit --quiet --rm "$next" base >/dev/null
done
buildah $storage push --quiet "$(buildah $storage images --quiet base)" docker-archive:debian-layers.tar:debian:layers
rm debian.tar
buildah $storage rmi --all --force >/dev/null

title "It is loaded"
run 'lamina load -i debian-layers.tar'
expect 'loading' "$status" 0
run 'lamina images'
run 'lamina history debian:layers'
expect 'the layers' "$(lamina inspect -f '{{len .RootFS.Layers}}' debian:layers)" 3

title "A command runs in it: no privilege, its own namespaces"
run 'lamina run --rm debian:layers sh -c "cat /etc/motd; id; hostname; ls /usr/share/locale; echo PID \$\$"'
expect 'the command' "$status" 0
case $output in
*'Welcome to a layered Debian'*'uid=0(root)'*) ;;
*) expect 'what it prints' "$output" 'Welcome to a layered Debian ... uid=0(root)' ;;
esac

title "Under limits: 64 MB of memory, half a CPU, 50 processes"
limits='--memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50'
run "lamina run --name greedy $limits debian:layers perl -e '\$x = \"x\" x (200 << 20); print \"got it all\"'"
expect 'the status of what takes too much memory' "$status" 137
run "lamina inspect -f 'OOMKilled: {{.State.OOMKilled}}' greedy"
expect 'inspect' "$output" 'OOMKilled: true'
run "lamina run --rm $limits debian:layers perl -e 'while (\$n < 100 && defined(\$p = fork)) { \$p or (sleep 60, exit); \$n++ } print \"started \$n processes, then: \$!\\n\"'"
case $output in
'started '*) [ "$(echo "$output" | tr -dc 0-9 | head -c 2)" -lt 51 ] || expect 'processes' "$output" 'fewer than 50' ;;
*) expect 'the processes' "$output" 'started ... processes' ;;
esac

title "What a container changes is its own layer"
run "lamina run --name changed $limits debian:layers sh -c 'rm -r /usr/share/doc/bash; echo changed >>/etc/motd; mkdir -p /srv/site; echo a page >/srv/site/index.html; mv /opt /moved'"
expect 'the changes' "$status" 0
run 'lamina diff changed'
for line in 'C /etc/motd' 'D /usr/share/doc/bash' 'A /srv/site/index.html' 'D /opt' 'A /moved'; do
	grep -qxF "$line" out || expect 'lamina diff' "$output" "... $line ..."
done

title "It becomes an image, with all old layers shared"
run 'lamina commit -m "with a page" changed debian:changed'
run 'lamina run --rm debian:changed cat /srv/site/index.html'
expect 'the new image' "$output" 'a page'
run 'lamina images --format "table {{.Repository}}\t{{.Tag}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}"'
run 'lamina rm greedy changed'
printf '\ndemo: all of it was checked\n'
