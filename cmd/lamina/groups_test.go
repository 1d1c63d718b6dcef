package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
)

// lentGroup is a supplementary group of the user's, and nobody else's.
const lentGroup = 60123

// TestSupplementaryGroups: an ordinary user has them, and is without them in a user namespace, where a container's monitor is. What
// run does without entering one comes to the same. The directory lent is root's and the group's.
func TestSupplementaryGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a user a group")
	}
	f := needFixture(t)
	ids := identities(t, f)
	i := slices.IndexFunc(ids, func(id identity) bool { return id.name == asUser })
	if i < 0 {
		t.Skip("needs an ordinary user with a range of IDs")
	}
	id := ids[i]
	id.needs(t)
	id.argv = slices.Clone(id.argv)
	id.argv[slices.Index(id.argv, "--clear-groups")] = fmt.Sprintf("--groups=%d", lentGroup)
	dir, err := os.MkdirTemp("", "lamina-groups-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	p := id.place(dir)
	if err := p.make(f); err != nil {
		t.Fatal(err)
	}
	defer p.clean(t.Fatal)
	run := func(t *testing.T, argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = dir, append(p.env, "IMAGES="+f.path("images.tar"), fmt.Sprint("GROUP=", lentGroup))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	run(t, "sh", "-ec", "mkdir lent lent/dir; chown -R 0:$GROUP lent; chmod 2770 lent; chmod 2775 lent/dir")
	run(t, id.argvOf(dir, "sh", []string{"lamina load -q -i $IMAGES"})...)

	const refused = `refused() {
		local n=0
		lamina "$@" >out 2>err || n=$?
		want 125 $n "$*: $(cat out err)"
		want 1 "$(grep -c 'permission denied' err)" "$(cat err)"
		want '' "$(lamina ps -aq)"
	}
	`
	for _, c := range []struct{ name, script string }{
		{"bind", refused + `refused run --network none -v $PWD/lent/dir:/x base true`},
		{"bind that is made", refused + `refused run --network none -v $PWD/lent/dir/made:/x base true; want '' "$(ls lent/dir)"`},
		{"bind by a link", refused + `ln -s lent link; refused run --network none -v $PWD/link/dir:/x base true`},
		{"root", refused + `refused --root $PWD/lent/root run --network none base true; want dir "$(ls lent)"`},
		{"sockets", refused + `refused --runroot $PWD/lent/run run --network none base true; want dir "$(ls lent)"`},
		{"owner of a root", `
			mkdir tree
			cp $(command -v busybox) tree
			chgrp $GROUP tree
			chmod 2755 tree
			run --rm --rootfs $PWD/tree /busybox chown 5:5 /`},
		{"what is his own", `
			lamina -D run --network none --rm -v $PWD/own/made:/x base true 2>err
			if grep 'enter a user namespace' err; then fail "$(cat err)"; fi`},
	} {
		t.Run(c.name, func(t *testing.T) { run(t, id.argvOf(dir, "sh", []string{c.script})...) })
	}
	t.Run("tun", func(t *testing.T) {
		if _, err := exec.LookPath("slirp4netns"); err != nil {
			t.Skipf("needs slirp4netns: %v", err)
		}
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			t.Skip(err)
		}
		const device = `mknod tun c 10 200; chown 0:$GROUP tun; chmod 660 tun; mount --bind tun /dev/net/tun; exec "$@"`
		run(t, append([]string{"unshare", "-m", "--propagation", "private", "sh", "-ec", device, "sh"}, id.argvOf(dir, "sh", []string{`
			lamina run --rm base true 2>err
			want 1 "$(grep -c 'WARNING: the container has no network: /dev/net/tun may not be opened' err)" "$(cat err)"`})...)...)
	})
}
