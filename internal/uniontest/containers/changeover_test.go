package containers

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// steps are what one container does in the course of its life, each shown by another system.
//
// They leave out what fuse-overlayfs 1.10 cannot do, or cannot see. It does not know that the names of a lower file are
// one file for laminafs. And where a directory that was removed and made again is renamed, it leaves no whiteout, and
// the lower directory is back.
var steps = []string{
	`rm -r /gone/dir /type/dir-file; rm -r /again; mkdir -m 750 /again; echo first >/again/first; mv /move /first
	rm /type/file-dir; mkdir /type/file-dir; echo d >/type/file-dir/in; echo first >>/grow; chown 9:10 /own/five; chmod 4755 /own/five
	mkfifo /own/fifo2; ln -s x /own/link2; mkdir -p /deep/a/b; echo f >/deep/a/b/f`,
	`[ ! -e /gone/dir ]; [ ! -e /again/old ]; [ "$(ls /again)" = first ]; [ -e /first/dir/file ]; [ "$(stat -c %a:%u:%g /own/five)" = 4755:9:10 ]
	rm -r /first/dir; rm /gone/file; mkdir /gone/dir; echo second >/gone/dir/new; rm -r /again; echo file >/again; mv /deep/a /own/a
	rm -r /type/dir-link; ln -s /own /type/dir-link; echo second >>/grow; chmod 600 /set/both; chown 5:6 /set/gid; mv /own/dir /own/moved
	rmdir /deep; mkdir -m 1777 /deep; ln /own/a/b/f /deep/f; rm -r /type/file-dir; echo file >/type/file-dir`,
	`[ "$(ls /gone/dir)" = new ]; [ -f /again ]; [ ! -e /first/dir ]; [ -e /own/a/b/f ]; [ -e /own/moved/file ]; [ ! -e /own/dir ]
	rm /again; mkdir /again; echo third >/again/third; rm -r /gone; mv /own/moved /own/third; rm /deep/f; echo third >>/grow; rm -r /type
	mkdir /type; cp /bin/busybox /type/busybox; truncate -s 100000 /type/sparse; chmod 4711 /type/busybox; rm -r /first; mkdir -p /first/dir; echo in >/deep/in`,
	`[ "$(ls /again)" = third ]; [ ! -e /gone ]; [ "$(ls /type)" = "busybox
sparse" ]; [ -z "$(ls -A /first/dir)" ]; [ "$(cat /own/third/file)" = file ]
	echo fourth >>/grow; mkdir /gone; rm -r /own/a /hard; mkdir /hard; rm /type/sparse; mv /deep /hard/deep; mv /first /hard/first`,
}

// foreign are the marks that laminafs leaves in an upper, of files that it has copied up: for others they are xattrs like
// any. A file that has no more than these is not in the list of those that have some.
var foreign = regexp.MustCompile(`(?m)^user\.overlay\.(lamina\.|opaque=).*\n`)
var noMarks = regexp.MustCompile(`(?m)^# file: .*\n\n`)

// comparable leaves out of a listing in what systems differ without being wrong about the tree.
func comparable(list string) string {
	return noMarks.ReplaceAllString(foreign.ReplaceAllString(countless(list), ""), "")
}

// comparableDiff lists the changes of a container, without what is deleted in directories that were removed and made
// again: podman looks for each old name in the new tree, and fuse-overlayfs still finds it. On the kernel's overlay
// podman 4.3 does not look at the tree and fails where a directory is in a file's place ("not a directory").
func (s *store) comparableDiff(name string, sys system) string {
	s.t.Helper()
	if sys == kernel {
		return ""
	}
	return strings.Join(slices.DeleteFunc(s.diff(name), func(line string) bool {
		return slices.ContainsFunc([]string{"D /again/", "D /gone/", "D /type/", "D /hard/"}, func(p string) bool {
			return strings.HasPrefix(line, p)
		})
	}), "\n")
}

// orders are the systems that show a store one after the other.
var orders = []struct {
	systems []system
	who     []uniontest.Identity
	long    bool
}{
	{[]system{fuseOvl, laminafs, fuseOvl, laminafs}, identities, false},
	{[]system{laminafs, fuseOvl, laminafs, fuseOvl}, identities, true},
	// The kernel's reads no .wh. files, and needs whiteout=overlay of who writes for it.
	{[]system{kernel, laminaOv, kernel, laminaOv}, []uniontest.Identity{uniontest.Root}, false},
}

// TestChangeOver moves a store with an image and its containers from one system to another and back. Each sees what
// the one before has shown, and goes on with it.
func TestChangeOver(t *testing.T) {
	t.Parallel()
	for _, o := range orders {
		if o.long && !long {
			continue
		}
		for _, who := range o.who {
			t.Run(fmt.Sprintf("%s and %s as %s", o.systems[0], o.systems[1], who), func(t *testing.T) {
				t.Parallel()
				if slices.Contains(o.systems, kernel) {
					uniontest.NeedOverlay(t)
				}
				changeOver(t, who, o.systems)
			})
		}
	}
}

func changeOver(t *testing.T, who uniontest.Identity, systems []system) {
	s := newStore(t, who, systems[0])
	s.importBase()
	s.write("files/Containerfile", "FROM localhost/base\nRUN rm -r /own/fifo /hard/b && echo layer >>/grow\n")
	s.podman("build", "--tag=localhost/built", "files")
	s.podman("create", "--name=c", "localhost/built", "sh", "-e", "/step")
	s.podman("create", "--name=untouched", "localhost/built", "true")

	for i, sys := range systems {
		s.use(sys)
		s.write("files/step", steps[i])
		s.podman("cp", "files/step", "c:/step")
		s.podman("start", "--attach", "c")
		list, diff := s.container("c", sys), s.comparableDiff("c", sys)
		image, untouched := s.image("localhost/built", sys), s.container("untouched", sys)
		s.calm(0)

		other := systems[(i+1)%len(systems)]
		s.use(other)
		what := fmt.Sprintf("after step %d: what %s shows of the work of %s, ", i+1, other, sys)
		shell.Same(t, what+"a container,", comparable(s.container("c", other)), comparable(list))
		if sys != kernel && other != kernel {
			shell.Same(t, what+"podman diff,", s.comparableDiff("c", other), diff)
		}
		shell.Same(t, what+"the image,", comparable(s.image("localhost/built", other)), comparable(image))
		shell.Same(t, what+"another container,", comparable(s.container("untouched", other)), comparable(untouched))
	}
	shows(t, s.container("c", systems[0]), "again/third\tf", "!again/old", "!again/first", "gone\td", "!gone/", "hard/deep/in\tf",
		"!deep", "!first", "hard/first/dir\td", "!hard/first/dir/", "type/busybox\tf 4711", "!type/file", "!type/dir", "!type/sparse",
		"own/third/file\tf", "!own/dir", "!own/moved", "!own/a", "!hard/a")
	if got := s.as(`cat "$(podman mount c)/grow"; podman umount c >/dev/null`); got != "one\nlayer\nfirst\nsecond\nthird\nfourth\n" {
		t.Errorf("a file that each has written to is %q", got)
	}
	s.podman("commit", "--quiet", "c", "localhost/committed")
	if got := s.podman("run", "--rm", "localhost/committed", "cat", "/grow"); !strings.HasSuffix(got, "\nfourth\n") {
		t.Errorf("in the image of the container it is %q", got)
	}
	s.podman("rm", "c", "untouched")
	s.calm(0)
}
