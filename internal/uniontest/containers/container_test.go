package containers

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// changes is what a container does to its files, and change what podman diff says of it.
const changes = `
set -e
rm -r /gone/dir; rm /type/link-file
rm /type/file-dir; mkdir /type/file-dir; echo in >/type/file-dir/in
rm -r /again; mkdir /again; echo new >/again/new
mv /move /moved
echo more >>/hard/a
[ "$(stat -c %h /hard/a)" = 3 ]; [ "$(cat /hard/dir/c)" = "$(cat /hard/a)" ]
echo more >>/hard/left; ln /hard/left /hard/middle
chown 9:10 /own/five; chmod 4711 /own/five
chmod 2750 /set/uid
mkdir -p /new/dir; mkfifo /new/fifo; ln -s ../own /new/link; echo kept >/new/dir/file
! touch /.wh.name
`

var change = []string{
	"A /again/new", "A /hard/middle", "A /moved", "A /moved/dir", "A /moved/dir/file", "A /moved/file", "A /new", "A /new/dir",
	"A /new/dir/file", "A /new/fifo", "A /new/link", "A /type/file-dir/in",
	"C /again", "C /gone", "C /hard", "C /hard/a", "C /hard/b", "C /hard/dir", "C /hard/dir/c", "C /hard/left", "C /hard/right", "C /own", "C /own/five", "C /set",
	"C /set/uid", "C /type", "C /type/file-dir",
	"D /again/old", "D /again/old-dir", "D /gone/dir", "D /move", "D /type/link-file",
}

// diff is what podman says a container has changed, without what podman itself puts into /etc and /run.
func (s *store) diff(name string) []string {
	s.t.Helper()
	lines := strings.Split(strings.TrimSpace(s.podman("container", "diff", name)), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, " /etc") || strings.Contains(line, " /run")
	})
	slices.Sort(lines)
	return lines
}

// wantDiff compares the changes of a container with what they must be.
func (s *store) wantDiff(name string, want []string) {
	s.t.Helper()
	shell.Same(s.t, "podman diff "+name, strings.Join(s.diff(name), "\n"), strings.Join(want, "\n"))
}

// TestContainer takes a container through its life, and its changes into an image.
func TestContainer(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, who uniontest.Identity, sys system) {
		s := newStore(t, who, sys)
		s.importBase()

		// What a container sees without having changed anything, its set-id programs and another user's rights.
		root := s.podman("run", "--rm", "localhost/base", "sh", "-ec", `
			grep ' / ' /proc/mounts; id
			[ "$(stat -c '%a %u:%g' /set/gid)" = "2750 3:4" ]; [ "$(cat /own/nobody)" = nobody ]`)
		if !strings.HasPrefix(root, "laminafs / fuse.laminafs rw,") || !strings.Contains(root, "\nuid=0 gid=0(root)") || strings.Contains(root, "nosuid") {
			t.Errorf("the root of a container: %s", root)
		}
		if got := s.podman("run", "--rm", "--user=5:6", "localhost/base", "sh", "-ec", `
			echo >>/grow; if echo >>/own/nobody || cat /own/root; then exit 1; fi; cat /own/dir/file; touch /tmp/x; stat -c %u:%g /tmp/x
			/set/su -c 'id -u; cat /own/root' root`); got != "file\n5:6\n0\nroot\n" {
			t.Errorf("uid 5 in a container prints %q", got)
		}
		s.calm(0)

		s.podman("create", "--name=c", "localhost/base", "sh", "-c", changes)
		s.podman("start", "--attach", "c")
		s.wantDiff("c", change)
		changed := s.container("c", sys)
		shows(t, changed, "again/new\tf", "!again/old", "moved/dir/file\tf", "!move/", "hard/dir/c\tf 644 0:0 3 10", "hard/middle\tf 644 0:0 3 10",
			"own/five\tf 4711 9:10", "set/uid\tf 2750 0:0", "new/fifo\tp", "type/file-dir/in\tf", "link ./hard/right ./hard/left")

		// Into a container and out of it.
		s.write("files/in", "copied in\n")
		s.as(`cd files; mkdir -p tree/sub; echo x >tree/sub/x; ln -s x tree/sub/l; chmod 4750 tree/sub/x`)
		s.podman("cp", "files/in", "c:/own/in")
		s.podman("cp", "files/tree", "c:/own/dir")
		s.podman("cp", "files/in", "c:/grow")
		s.podman("cp", "c:/own/in", "files/out")
		s.podman("cp", "c:/moved", "files/moved")
		if got := s.as(`cd files; cmp in out; cat moved/dir/file moved/file`); got != "moved too\nmoved\n" {
			t.Errorf("copied out of the container: %q", got)
		}
		after := slices.Concat(change, []string{"A /own/in", "A /own/dir/tree", "A /own/dir/tree/sub", "A /own/dir/tree/sub/l",
			"A /own/dir/tree/sub/x", "C /own/dir", "C /grow"})
		slices.Sort(after)
		s.wantDiff("c", after)

		s.podman("commit", "--quiet", "c", "localhost/committed")
		container, image := s.container("c", sys), s.image("localhost/committed", sys)
		// A layer has its times in seconds, and the mount points of a container are no part of it.
		shell.Same(t, "the image made of a container", withoutMountPoints(timeless(image)), withoutMountPoints(timeless(container)))
		if got := s.podman("run", "--rm", "localhost/committed", "sh", "-ec", `
			[ ! -e /move ]; [ ! -e /again/old ]; [ ! -e /gone/dir ]; [ "$(stat -c %a /own/five)" = 4711 ]
			echo last >>/hard/a; cat /hard/dir/c; cat /own/in`); got != "hard\nmore\nlast\ncopied in\n" {
			t.Errorf("a container of the committed image prints %q", got)
		}
		s.podman("rm", "c")
		s.calm(0)
	})
}

// withoutMountPoints leaves out of a listing what podman mounts something over, and its directories' marks.
func withoutMountPoints(list string) string {
	var keep []string
	for line := range strings.Lines(list) {
		name := strings.TrimPrefix(line[strings.IndexByte(line, '.')+1:], "/")
		if fields := strings.Split(line, "\t"); len(fields) > 1 {
			name = fields[0]
		}
		if !slices.ContainsFunc([]string{"etc/host", "etc/resolv.conf", "etc/mtab", "run", "dev", "proc", "sys"}, func(p string) bool {
			return strings.HasPrefix(name, p)
		}) {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

// TestTwoContainers runs two containers of one image at once: they share the lowers and nothing else.
func TestTwoContainers(t *testing.T) {
	t.Parallel()
	const busy = `set -e; for i in $(seq 200); do echo "$0 $i" >>/grow; mkdir "/move/$0$i"; echo "$i" >"/move/$0$i/f"; rm -f /again/old; done
		[ "$(grep -c "^$0 " /grow)" = 200 ]; [ "$(wc -l </grow)" = 201 ]; [ "$(ls /move | wc -l)" = 202 ]`
	each(t, func(t *testing.T, who uniontest.Identity, sys system) {
		s := newStore(t, who, sys)
		s.importBase()
		for _, name := range []string{"a", "b"} {
			s.podman("run", "--detach", "--name="+name, "localhost/base", "sleep", "1000")
		}
		s.calm(2)
		s.as(`podman exec a sh -c "$1" a & podman exec b sh -c "$1" b; wait $!`, busy)
		s.podman("exec", "a", "rm", "-r", "/own")
		if got := s.podman("exec", "b", "cat", "/own/dir/file"); got != "file\n" {
			t.Errorf("a file that the other container has deleted is %q", got)
		}
		s.podman("cp", "a:/grow", "b:/tmp/grow")
		if got := s.podman("exec", "b", "sh", "-c", "grep -c '^a ' /tmp/grow; grep -c '^a ' /grow || :"); got != "200\n0\n" {
			t.Errorf("lines of the other container, copied and not: %q", got)
		}

		s.podman("stop", "--time=0", "a")
		s.calm(1)
		if got := s.podman("exec", "b", "cat", "/own/root"); got != "root\n" {
			t.Errorf("after the end of the other container a file is %q", got)
		}
		s.podman("start", "a")
		s.podman("exec", "a", "sh", "-c", "[ ! -e /own ] && [ -e /move/a200/f ]")
		s.calm(2)
		s.podman("rm", "--force", "--time=0", "a", "b")
		s.calm(0)
		if got := s.podman("run", "--rm", "localhost/base", "cat", "/grow"); got != "one\n" {
			t.Errorf("the image has changed: %q", got)
		}
	})
}

// TestReset removes a store in which containers run, one of them without its server.
func TestReset(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, who uniontest.Identity, sys system) {
		s := newStore(t, who, sys)
		s.importBase()
		s.podman("run", "--detach", "--stop-timeout=0", "--name=a", "localhost/base", "sleep", "1000")
		s.calm(1)
		for _, pid := range s.servers() {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		s.podman("rm", "--force", "--time=0", "a")
		s.calm(0)
		s.podman("run", "--detach", "--stop-timeout=0", "--name=a", "localhost/base", "sleep", "1000")
		s.podman("run", "--detach", "--stop-timeout=0", "--name=b", "localhost/base", "sleep", "1000")
		s.podman("create", "--name=c", "localhost/base", "true")
		s.as("podman image mount localhost/base")
		s.calm(3)
		s.reset()
		s.calm(0)
		if left := s.podman("ps", "--all", "--quiet") + s.podman("images", "--quiet"); left != "" {
			t.Errorf("left in the store: %q", left)
		}
	})
}
