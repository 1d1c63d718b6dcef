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

# figure FORMAT NAME: of a container, which a busy machine may not have at the first try.
figure() {
	local f n=0
	while f=$(lamina stats --no-stream --format "$1" $2); [ -z "${f##*--*}" ]; do
		n=$((n + 1))
		[ $n -lt 20 ] || fail "no $1 of $2"
	done
	echo "$f"
}

# has FILE PATTERN: for until_ok.
has() { grep -q -- "$2" "$1"; }

# terminal COMMAND: in a terminal on which nobody types. At the end of its own input script(1) would type a NUL, which is echoed as ^@ at
# any place of the output.
terminal() {
	[ -p silent ] || mkfifo silent
	script -qec "$1" /dev/null 0<>silent
}

gone() { ! kill -0 "$1"; }

run() { lamina run --network none "$@"; }

# registry: Debian's registry on loopback, for user "u" with the password "secret". Its address is in the file addr, its pid in pid.
registry() {
	local port
	python3 -c 'import crypt; print("u:" + crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))' >htpasswd
	for _ in 1 2 3 4 5; do # somebody else may take the port before it does
		port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
		cat >registry.yml <<-Y
			version: 0.1
			log: {level: error}
			storage: {filesystem: {rootdirectory: $PWD/registry}}
			http: {addr: 127.0.0.1:$port}
			auth: {htpasswd: {realm: test, path: $PWD/htpasswd}}
		Y
		docker-registry serve registry.yml >registry.log 2>&1 </dev/null &
		echo $! >pid
		until_ok begun $port
		if ! gone $(cat pid) 2>/dev/null; then
			echo 127.0.0.1:$port >addr
			return
		fi
	done
	fail "no registry: $(cat registry.log)"
}

# begun PORT: the registry answers, and not whoever has its port, or it has ended.
begun() { gone $(cat pid) || curl -si http://127.0.0.1:$1/v2/ | grep -i docker-distribution-api-version; }
