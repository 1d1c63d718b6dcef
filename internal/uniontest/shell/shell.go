// Package shell runs bash scripts on a mount and compares what they print.
package shell

import (
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// Env is what programs are told besides what the test process was told: nothing of the user who runs the tests.
var Env = []string{
	"LC_ALL=C.UTF-8", "TZ=UTC",
	"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
	"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=2001-02-03T04:05:06Z",
	"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=2001-02-03T04:05:06Z",
	"GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOTOOLCHAIN=local", "GO111MODULE=on", "GOENV=off",
	"PIP_DISABLE_PIP_VERSION_CHECK=1",
}

// tellFailure makes a script name the command that ends it.
const tellFailure = `trap 'echo "failed: $BASH_COMMAND" >&2' ERR
`

// Run runs a bash script in dir as h and returns its standard output. Every command of it has to succeed.
func Run(t testing.TB, h *uniontest.Helper, dir, script string, args ...string) string {
	t.Helper()
	argv := append([]string{"timeout", "-k", "10", "300", "bash", "-eEuo", "pipefail", "-c", tellFailure + script, "sh"}, args...)
	r, err := h.Exec(uniontest.Command{Argv: argv, Dir: dir, Env: Env})
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != 0 {
		t.Fatalf("script ended with status %d\n--- stdout\n%s--- stderr\n%s", r.Code, Tail(r.Stdout), Tail(r.Stderr))
	}
	return r.Stdout
}

// Tail keeps the end of a long output.
func Tail(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return "...\n" + s[len(s)-most:]
}

// Same fails the test where two texts differ, and shows the lines that do.
func Same(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	count := map[string]int{}
	for _, line := range strings.Split(want, "\n") {
		count[line]--
	}
	for _, line := range strings.Split(got, "\n") {
		count[line]++
	}
	var diff []string
	for line, n := range count {
		switch {
		case n < 0:
			diff = append(diff, line+"\n  - is missing")
		case n > 0:
			diff = append(diff, line+"\n  + is too much")
		}
	}
	slices.Sort(diff)
	if len(diff) > 20 {
		diff = append(diff[:20], "...")
	}
	t.Errorf("%s differs:\n%s", what, strings.Join(diff, "\n"))
}

// Manifest prints everything about the tree in the working directory that a copy has to keep. Hard links are told
// by the first of their names.
const Manifest = `
find . -mindepth 1 \( -type d -o -type s \) -printf '%P\t%y %m %U:%G %T@\n' -o -printf '%P\t%y %m %U:%G %T@ %n %s %l\n' |
	sed 's/\(T[0-9.]*[0-9]\)0*$/\1/' | LC_ALL=C sort
find . -type f -links +1 -printf '%i %p\n' | LC_ALL=C sort -k 2 |
	awk '{ if (!($1 in first)) first[$1] = $2; print "link", $2, first[$1] }'
find . -type f -perm /a+r -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
find . \( -type c -o -type b \) -print0 | LC_ALL=C sort -z | xargs -r -0 stat -c '%n %t:%T'
find . -mindepth 1 ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d -m '^(user|security\.capability)' -e hex 2>&1
find . -mindepth 1 ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n -p
`
