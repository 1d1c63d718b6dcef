package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// A store is a way to show other owners than those on disk, as containers/storage asks for it.
type store struct {
	name    string
	options []string
	as      []uniontest.Identity

	// prepare makes, in a lower, objects as such a store has them.
	prepare string

	// change works in the merged tree.
	change string

	// disk prints, in the upper, what says that the marks are those of the format; want is what it prints.
	disk, want string

	// seen are lines that owners has to print.
	seen []string
}

const makeTree = `
mkdir dir
for f in file dir/file dir/suid; do echo "$f" >"$f"; done
ln -s file link
`

var stores = []store{
	{
		// The first id of a range is the one on disk, the second the one that is seen: layers are kept with the ids
		// of the container.
		name:    "id maps",
		options: []string{"uidmapping=:0:100000:1000:1000:7:1", "gidmapping=0:200000:1000"},
		as:      []uniontest.Identity{uniontest.Root},
		prepare: makeTree + `
			chown 5:6 file
			chown 1000:0 dir/file`,
		change: `
			echo more >>file
			chown 100008:200009 dir/suid
			mkdir new
			chown 100000:200000 new
			echo f >new/f
			chown 7:200001 new/f`,
		disk: `stat -c '%u:%g' file dir/suid new new/f`,
		want: "5:6\n8:9\n0:0\n1000:1\n",
		seen: []string{
			"file\tf 644 100005:200006 1 10 ", "dir\td 755 100000:200000", "dir/file\tf 644 7:200000 1 9 ",
			"dir/suid\tf 644 100008:200009 1 9 ", "new/f\tf 644 7:200001 1 2 ",
		},
	},
	{
		name:    "squash to ids",
		options: []string{"squash_to_uid=21", "squash_to_gid=22"},
		as:      []uniontest.Identity{uniontest.Root},
		prepare: makeTree + `chown 5:6 file; chmod -R a+rwX .`,
		change: `
			echo more >>file
			mkdir new`,
		disk: `stat -c %n file new`,
		want: "file\nnew\n",
		seen: []string{"file\tf 666 21:22 1 10 ", "dir\td 777 21:22", "new\td 755 21:22"},
	},
	{
		name:    "squash to root",
		options: []string{"squash_to_root"},
		as:      []uniontest.Identity{uniontest.Root, uniontest.UserNS},
		prepare: makeTree + `chown 5:6 file`,
		change: `
			echo more >>file
			mkdir new`,
		disk: `stat -c %n file new`,
		want: "file\nnew\n",
		seen: []string{"file\tf 644 0:0 1 10 ", "new\td 755 0:0"},
	},
	{
		name:    "static_nlink",
		options: []string{"static_nlink"},
		as:      []uniontest.Identity{uniontest.Root, uniontest.UserNS, uniontest.User},
		prepare: makeTree,
		change:  `mkdir -p dir/a/b dir/c; [ "$(stat -c %h dir)" = 1 ]; [ "$(stat -c %h .)" = 1 ]`,
		disk:    `true`,
		seen:    []string{"dir/a/b\td 755"},
	},
}

// owners prints types, modes, owners, links and sizes of the merged tree.
func owners(t *testing.T, l *uniontest.Layers, m *uniontest.Mount) string {
	t.Helper()
	return shell.Run(t, l.Helper(), m.Dir(), `
		find . \( -type d -printf '%P\t%y %m %U:%G\n' -o -printf '%P\t%y %m %U:%G %n %s %l\n' \) | LC_ALL=C sort`)
}

// shows wants lines of what owners printed: two systems may be wrong in the same way.
func shows(t *testing.T, sys fmt.Stringer, tree string, lines []string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+tree, "\n"+line) {
			t.Errorf("%s shows no line %q in\n%s", sys, line, tree)
		}
	}
}

// TestStore changes a store over from fuse-overlayfs to ours, and back.
func TestStore(t *testing.T) {
	for _, s := range stores {
		for _, who := range s.as {
			for _, p := range []pair{{fuseOvl, wh, true}, {wh, fuseOvl, true}} {
				if *peers {
					p = pair{fuseOvl, fuseOvl, true}
				}
				t.Run(fmt.Sprintf("%s, %s to %s as %s", s.name, p.writer, p.reader, who), func(t *testing.T) {
					s.changeOver(t, p, who)
				})
			}
		}
	}
}

func (s store) changeOver(t *testing.T, p pair, who uniontest.Identity) {
	l := uniontest.NewLayers(t, 1, uniontest.As(t, who))
	h := l.Helper()
	shell.Run(t, h, l.Lowers[0], s.prepare)
	keepTimes(t, l)
	// The upper is the root of the tree: it has to have the lower's owner.
	shell.Run(t, h, "/", `chown --reference="$1" "$2"`, l.Lowers[0], l.Upper)

	m := p.writer.mount(t, l, s.options...)
	shell.Run(t, h, m.Dir(), s.change)
	written := owners(t, l, m)
	shows(t, p.writer, written, s.seen)
	m.Unmount()
	if got := shell.Run(t, h, l.Upper, s.disk); got != s.want {
		t.Errorf("%s wrote to the upper %q, want %q", p.writer, got, s.want)
	}

	m = p.reader.mount(t, l, s.options...)
	shell.Same(t, "what the reader sees", owners(t, l, m), written)
	shell.Run(t, h, m.Dir(), `
		mkdir again
		mv link dir/link
		rm dir/suid`)
	again := owners(t, l, m)
	m.Unmount()

	m = p.writer.mount(t, l, s.options...)
	shell.Same(t, "what the writer sees of the reader's changes", owners(t, l, m), again)
}
