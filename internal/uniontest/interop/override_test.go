package interop

import (
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// An override is an extended attribute in which a layer keeps owners and modes.
type override struct {
	attr   string
	option string
	as     []uniontest.Identity
}

// fuse-overlayfs 1.10 reads the attribute that the root of a lower has, and then wants it on everything in that layer,
// as containers/storage writes it. In its upper it reads and writes one of its own, which later versions do not.
var overrides = []override{
	{"user.containers.override_stat", "xattr_permissions=2", []uniontest.Identity{uniontest.Root, uniontest.UserNS}},
	{"user.fuseoverlayfs.override_stat", "xattr_permissions=2", []uniontest.Identity{uniontest.Root, uniontest.UserNS}},
	{"security.fuseoverlayfs.override_stat", "xattr_permissions=1", []uniontest.Identity{uniontest.Root}},
}

// overridden is a lower whose objects have the attribute $1.
const overridden = `
mkdir dir
for f in file dir/file dir/suid; do echo "$f" >"$f"; done
setfattr -n "$1" -v 1:2:0755 .
setfattr -n "$1" -v 7:8:0640 file
setfattr -n "$1" -v 1000:1001:0710 dir
setfattr -n "$1" -v 0:12:04755 dir/suid
setfattr -n "$1" -v 13:14:0644 dir/file
ln -s file link
`

var overriddenOwners = []string{
	"file\tf 640 7:8 1 5 \n", "dir\td 710 1000:1001\n", "dir/suid\tf 4755 0:12 1 9 \n", "dir/file\tf 644 13:14 1 9 \n",
}

func eachOverride(t *testing.T, test func(t *testing.T, o override, l *uniontest.Layers)) {
	for _, o := range overrides {
		for _, who := range o.as {
			t.Run(o.attr+" as "+string(who), func(t *testing.T) {
				l := uniontest.NewLayers(t, 1, uniontest.As(t, who))
				shell.Run(t, l.Helper(), l.Lowers[0], overridden, o.attr)
				keepTimes(t, l)
				test(t, o, l)
			})
		}
	}
}

func TestOverrideInLower(t *testing.T) {
	systems := []format{fuseOvl, wh}
	if *peers {
		systems = systems[:1]
	}
	eachOverride(t, func(t *testing.T, o override, l *uniontest.Layers) {
		for _, f := range systems {
			m := f.mount(t, l, o.option)
			shows(t, f, owners(t, l, m), overriddenOwners)
			m.Unmount()
		}
	})
}

// fuse-overlayfs 1.10 loses owners and modes when it copies up, and owners on chmod: it makes objects only.
func TestOverrideFromFuseOverlayfs(t *testing.T) {
	reader := wh
	if *peers {
		reader = fuseOvl
	}
	eachOverride(t, func(t *testing.T, o override, l *uniontest.Layers) {
		h := l.Helper()
		m := fuseOvl.mount(t, l, o.option)
		shell.Run(t, h, m.Dir(), `
			mkdir new
			echo f >new/f
			chmod 711 new/f
			chown 9:10 new/f
			mkdir new/dir
			chmod 1770 new/dir`)
		made := []string{"new/f\tf 711 9:10 1 2 \n", "new/dir\td 1770 0:0\n"}
		shows(t, fuseOvl, owners(t, l, m), made)
		m.Unmount()

		m = reader.mount(t, l, o.option)
		shows(t, reader, owners(t, l, m), append(made, overriddenOwners...))
		shell.Run(t, h, m.Dir(), `
			echo f >new/f2
			chmod 640 new/f2
			chown 11:12 new/f2
			mkdir new/dir2`)
		made = append(made, "new/f2\tf 640 11:12 1 2 \n", "new/dir2\td 755 0:0\n")
		shows(t, reader, owners(t, l, m), made)
		m.Unmount()

		m = fuseOvl.mount(t, l, o.option)
		shows(t, fuseOvl, owners(t, l, m), append(made, overriddenOwners...))
	})
}

func TestOverrideToFuseOverlayfs(t *testing.T) {
	if *peers {
		t.Skip("needs laminafs, is tried without")
	}
	eachOverride(t, func(t *testing.T, o override, l *uniontest.Layers) {
		h := l.Helper()
		m := wh.mount(t, l, o.option)
		shell.Run(t, h, m.Dir(), `
			echo more >>file
			chown 5:6 dir/file
			chmod 2711 dir/suid
			mkdir new
			chown 9:10 new
			chmod 1770 new
			echo n >new/f
			chmod 600 new/f
			mv dir/file dir/moved
			mknod pipe p
			chown 3:4 pipe
			chmod 700 .`)
		want := []string{
			"\td 700 1:2\n",
			"file\tf 640 7:8 1 10 \n", "dir\td 710 1000:1001\n", "dir/moved\tf 644 5:6 1 9 \n", "dir/suid\tf 2711 0:12 1 9 \n",
			"new\td 1770 9:10\n", "new/f\tf 600 0:0 1 2 \n",
		}
		shows(t, wh, owners(t, l, m), want)
		m.Remount()
		shows(t, wh, owners(t, l, m), want)
		shows(t, wh, owners(t, l, m), []string{"pipe\tp 644 3:4 1 0 \n"})
		m.Unmount()

		// On disk everything is the server's own.
		if got := shell.Run(t, h, l.Upper, `find . ! -user 0 -o ! -group 0`); got != "" {
			t.Errorf("not the owner's on disk: %s", got)
		}

		l2 := uniontest.NewLayers(t, 0, h)
		l2.Lowers = append([]string{l.Upper}, l.Lowers...)
		m = fuseOvl.mount(t, l2)
		shows(t, fuseOvl, owners(t, l2, m), want[1:]) // the root is its upper's
	})
}
