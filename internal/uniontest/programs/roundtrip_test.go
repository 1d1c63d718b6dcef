package programs

import (
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// everyKind fills the working directory with every kind of object that whoever runs it can make, and sets what an
// archive has to keep: owners, modes, times, links, holes, extended attributes, ACLs, capabilities. $1 tells whether
// devices and capabilities can be had.
const everyKind = `
mkdir -p a/b/c empty 'with space' many sgid
printf 'text\n' >a/file
: >a/nothing
head -c 300000 /dev/urandom >a/b/data
truncate -s 5M a/b/sparse
printf x | dd of=a/b/sparse bs=1 seek=3000000 conv=notrunc status=none
printf 'odd\n' >"$(printf 'with space/new\nline')"
printf 'bytes\n' >"$(printf 'with space/\351\377')"
printf 'long\n' >"$(printf 'n%.0s' $(seq 250))"
for i in $(seq 300); do echo "$i" >"many/$i"; done
ln a/file a/b/c/hard
ln a/file many/hard
ln -s ../a/file empty/link
ln -s nowhere a/dangling
ln -s "$(printf 'x%.0s' $(seq 1000))" a/longlink
mkfifo a/fifo
chmod 4755 a/nothing
if [ "$1" = user ]; then chmod 600 a/b/data; else chmod 0 a/b/data; fi
chmod 1777 empty
chmod 2775 sgid
mkdir sgid/sub
setfattr -n user.one -v 'a value' a/file
setfattr -n user.two -v 0x00ff00 a
setfacl -m u:1:r,g:2:rwx a/b/sparse
setfacl -d -m u:1:rwx,g:2:- a/b/c
if [ "$1" != user ]; then
	chown 1000:1001 a/b a/file many/7
	chown -h 12:34 a/dangling
fi
if [ "$1" = root ]; then
	mknod a/null c 1 3
	mknod a/loop b 7 0
	cp a/file capable
	setcap cap_net_raw=ep capable
fi
find . -mindepth 1 -depth -newermt 2010-01-01 -exec touch -h -d '2003-04-05 06:07:08.123456789' {} +
touch -h -d '1999-12-31 23:59:59.5' a/file a/dangling a
touch -d '2200-01-01 00:00:00.000000001' many/5
`

// roundTrips copies the tree at $1, which is outside the mount, or the one in the lower, in and out by each program.
// Each runs in the mount, and must end in a tree "new" like the first.
var roundTrips = []struct{ name, script string }{
	{"tar out and in", `
		tar --xattrs --xattrs-include='*' --acls -S --numeric-owner -C tree -cf archive .
		mkdir new
		tar --xattrs --xattrs-include='*' --acls -S --numeric-owner -C new -xpf archive`},
	{"tar over a lower tree", `
		tar --xattrs --xattrs-include='*' --acls -S --numeric-owner -C tree -cf archive .
		cp -a stale new
		tar --xattrs --xattrs-include='*' --acls -S --numeric-owner --overwrite -C new -xpf archive
		rm new/only-stale`},
	{"rsync in", `rsync -aHAXS --numeric-ids "$1/" new`},
	{"rsync within", `rsync -aHAXS --numeric-ids tree/ new`},
	{"rsync over a lower tree", `
		mv stale new
		rsync -aHAXS --numeric-ids --delete tree/ new
		rsync -aHAXSni --numeric-ids --delete tree/ new
		test -z "$(rsync -aHAXSni --numeric-ids --delete tree/ new)"`},
	{"rsync in place", `
		mv stale new
		rsync -aHAX --inplace --no-whole-file --numeric-ids --delete --ignore-times tree/ new`},
	{"cp within", `cp -a --sparse=always tree new`},
	{"cp out and in", `
		cp -a tree "$1.copy"
		rm -rf tree
		cp -a "$1.copy" new`},
	{"mv", `mv tree new`},
	{"mv out and in", `
		mv tree "$1.copy"
		mv "$1.copy" new`},
	{"links", `
		mkdir new
		cp -al tree/. new
		rm -rf tree`},
}

// stale makes a second tree, of which some is the same, some is older, some is of another type and one is too much.
const stale = `
cd ..
mkdir stale
cp -a tree/a stale/a
rm stale/a/file stale/a/fifo stale/a/nothing
mkdir stale/empty
echo old >stale/a/fifo
echo old >stale/a/file
echo old >stale/a/b/c/hard
chmod 700 stale/a/b/c/hard
touch stale/only-stale
`

// settled has the disk write everything back: until then a file may have no block for a moment, and tar -S take it for a hole.
const settled = "sync --file-system .\n"

func TestRoundTrips(t *testing.T) {
	need(t, "tar", "rsync", "setfattr", "setfacl", "setcap")
	everywhere(t, anyone, []uniontest.System{uniontest.FuseOverlayfs}, func(t *testing.T, p place) {
		base := p.layers(t, `mkdir tree; cd tree`+everyKind+stale+settled, string(p.who))
		h := base.Helper()
		ref := outside(t, base, "tree")
		want := shell.Run(t, h, ref, shell.Manifest)
		for _, trip := range roundTrips {
			t.Run(trip.name, func(t *testing.T) {
				l := uniontest.NewLayers(t, 0, h)
				l.Lowers = base.Lowers // all have it: nobody writes to it
				m := p.mount(t, l)
				shell.Same(t, "the lower tree as the mount shows it", shell.Run(t, h, m.Dir()+"/tree", shell.Manifest), want)
				shell.Run(t, h, m.Dir(), trip.script, ref)
				shell.Same(t, "the copy", shell.Run(t, h, m.Dir()+"/new", shell.Manifest), want)
				m.Remount()
				shell.Same(t, "the copy after a remount", shell.Run(t, h, m.Dir()+"/new", shell.Manifest), want)
				shell.Run(t, h, "/", `rm -rf "$1.copy"`, ref)
			})
		}
	})
}
