package interop

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// peers tries the tests themselves, between two filesystems that have nothing to do with us.
var peers = flag.Bool("peers", false, "test kernel overlayfs against fuse-overlayfs only")

// long asks for all pairs under all identities.
var long = os.Getenv("LAMINA_LONG") != ""

// A format is a system with the options that decide how it marks layers.
type format struct {
	name string
	sys  uniontest.System
	opts []string
}

var (
	wh       = format{"wh", uniontest.Laminafs, []string{"whiteout=wh"}}
	overlay  = format{"overlay", uniontest.Laminafs, []string{"whiteout=overlay"}}
	redirect = format{"redirect", uniontest.Laminafs, []string{"whiteout=overlay", "redirect_dir=on"}}
	fuseOvl  = format{"fuse-overlayfs", uniontest.FuseOverlayfs, nil}
	kernel   = format{"kernel", uniontest.Overlay, nil} // in a user namespace with userxattr
)

func (f format) String() string { return f.name }

// mount mounts the layers. Everyone gets the workdir as the one before left it, but the kernel, whose index would
// have to be its own.
func (f format) mount(t *testing.T, l *uniontest.Layers, opts ...string) *uniontest.Mount {
	t.Helper()
	if f.sys == uniontest.Overlay {
		was := l.Work
		l.Work = l.Dir + "/work-of-kernel"
		defer func() { l.Work = was }()
		shell.Run(t, nil, "/", `rm -rf "$2"; cp -a "$1" "$2"`, was+"-empty", l.Work)
	}
	return uniontest.Start(t, f.sys, l, append(append([]string{}, f.opts...), opts...)...)
}

// lowers fills two layers: $1 is below $2. Between them they have every way in which a name can be in one, in both,
// or in both as different things.
const lowers = `
cd "$1"
mkdir -p both/sub both/deep/er below gone replaced/inner opaque/x/y move/in/side type links swap1 swap2 many
for f in file keep both/file both/low both/sub/low both/deep/er/low below/f gone/f replaced/f replaced/inner/g opaque/low \
	opaque/x/y/low move/low move/in/low move/in/side/low swap1/one swap2/two type/becomes-dir type/becomes-link; do
	echo "below $f" >"$f"
done
mkdir type/becomes-file
echo f >type/becomes-file/f
echo linked >links/a
ln links/a links/b
ln links/a both/c
ln -s ../file links/sym
ln -s nowhere type/link-becomes-dir
mkfifo type/fifo
for i in $(seq 50); do echo "$i" >"many/$i"; done
chmod 750 both/deep
setfattr -n user.mine -v 'of below' keep
cd "$2"
mkdir -p both/sub both/deep move/in opaque/x above
for f in both/file both/high both/sub/high both/deep/high opaque/high opaque/x/high move/high move/in/high above/f; do
	echo "above $f" >"$f"
done
echo 'hidden by a file' >type-hides
setfattr -n user.mine -v 'of above' both
`

// changes is what a writer does to the merged tree.
const changes = `
rm file
rm -r gone
rm both/file both/low both/high
rm -r replaced
mkdir replaced
echo new >replaced/g
rm -r opaque
mkdir opaque
mkdir opaque/x
echo new >opaque/new
rm -r type/becomes-file type/becomes-dir type/becomes-link type/link-becomes-dir
echo file >type/becomes-file
mkdir type/becomes-dir type/link-becomes-dir
echo f >type/becomes-dir/f
ln -s ../keep type/becomes-link
rm type/fifo
mkfifo type/fifo2
mv keep kept
mv below below-moved
echo more >>below-moved/f
mv move moved
mv moved/in moved/inside
rm moved/inside/low
echo new >moved/inside/new
mkdir move
echo 'in the old place' >move/low
mv swap1 swap3
mv swap2 swap1
mv swap3 swap2
mv both/sub above/sub
ln replaced/g links/new
ln links/new above/hard
echo more >>above/hard
for i in $(seq 1 2 50); do rm "many/$i"; done
for i in $(seq 51 60); do echo "$i" >"many/$i"; done
mv many/2 many/1
chmod 700 both
setfattr -n user.new -v 1 both/deep
setfattr -x user.mine kept
truncate -s 1M kept
mkdir -p very/deep/new/tree
mv very/deep below-moved/deep
rmdir very
`

// linkChanges writes through one name of a lower file that has three. Only ours and the kernel's know the others, and
// each keeps them in its own index.
const linkChanges = `
echo more >>links/a
rm both/c
ln links/b links/d
chmod 600 links/d
`

// moreLinkChanges goes on with hard links. The kernel knows how many are left only where it has an index.
const moreLinkChanges = `
rm links/new
echo more >>links/b
rm links/a
`

// moreMoves goes on with renamed directories. fuse-overlayfs 1.10 shows the lower directory again, or says EEXIST for a
// name that is not there, once a directory that hides a lower one is renamed: also where it wrote everything itself.
const moreMoves = `
mv moved move/moved
mv move moved-again
mv swap2 swap1
mkdir swap2
mv above/sub both/sub
mv type type2
`

// moreChanges goes on with the tree that changes leaves.
const moreChanges = `
echo back >file
mkdir gone
echo back >gone/f2
rm -r opaque/x
echo again >opaque/low
echo back >both/low
rm -r type/becomes-dir
echo f >type/becomes-dir
rm -r swap1
rm -r many
mkdir many
echo 7 >many/7
rm -r below-moved
`

// manifest looks at the attributes that the tests set. A foreign system shows those that ours keeps for itself.
var manifest = strings.Replace(shell.Manifest, `^(user|security\.capability)`, `^user\.(mine|new)$`, 1)

// look prints the tree below dir. Times are left out: they are those of the run.
func look(t *testing.T, l *uniontest.Layers, dir string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(shell.Run(t, l.Helper(), dir, manifest)) {
		// NAME \t TYPE MODE OWNER TIME REST
		if name, rest, ok := strings.Cut(line, "\t"); ok {
			f := strings.SplitN(rest, " ", 5)
			f[3] = "-"
			line = name + "\t" + strings.Join(f, " ")
			if !strings.HasSuffix(line, "\n") {
				line += "\n"
			}
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// keepTimes moves the access times in the lowers ahead of all others, where relatime leaves them alone: fuse-overlayfs
// reads without O_NOATIME, and the proof that nobody writes to a lower would see that.
func keepTimes(t *testing.T, l *uniontest.Layers) {
	t.Helper()
	for _, dir := range l.Lowers {
		shell.Run(t, l.Helper(), dir, `find . -exec touch -a -h -d '+1 hour' {} +`)
	}
}

// newLayers makes the layers, and beside them the plain directory with what they show.
func newLayers(t *testing.T, who uniontest.Identity) (l *uniontest.Layers, plain string) {
	t.Helper()
	l = uniontest.NewLayers(t, 2, uniontest.As(t, who))
	shell.Run(t, l.Helper(), "/", lowers, l.Lowers[1], l.Lowers[0])
	keepTimes(t, l)
	plain = filepath.Join(l.Dir, "outside", "plain")
	shell.Run(t, nil, "/", `
		mkdir "$4"
		cp -a "$1" "$4/plain"
		cp -a "$2/." "$4/plain"
		cp -a "$3" "$3-empty"
		chown --reference="$1" "$4"`, l.Lowers[1], l.Lowers[0], l.Work, filepath.Dir(plain))
	return l, plain
}
