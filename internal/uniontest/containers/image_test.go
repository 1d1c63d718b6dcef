package containers

import (
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// TestImage imports, builds, saves and loads an image, and compares it with what the driver vfs makes of the same.
func TestImage(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, who uniontest.Identity, sys system) {
		s := newStore(t, who, sys)
		s.importBase()
		s.build()
		built := s.image("localhost/built", sys)
		shows(t, built, builtHas...)
		s.podman("save", "--quiet", "--output=files/built.tar", "localhost/built")
		s.calm(0)

		ref := newStore(t, who, vfs)
		ref.importBase()
		ref.build()
		want := ref.image("localhost/built", vfs)
		shell.Same(t, "an image built with laminafs and with vfs", timeless(built), timeless(want))
		ref.podman("rmi", "--all", "--force")
		ref.write("files/built.tar", s.read("files/built.tar"))
		ref.podman("load", "--quiet", "--input=files/built.tar")
		shell.Same(t, "an image saved with laminafs, loaded with vfs", ref.image("localhost/built", vfs), built)

		s.podman("rmi", "--all", "--force")
		s.podman("load", "--quiet", "--input=files/built.tar")
		shell.Same(t, "an image loaded again", s.image("localhost/built", sys), built)
		s.use(fuseOvl)
		shell.Same(t, "an image loaded with laminafs, seen by fuse-overlayfs", countless(s.image("localhost/built", fuseOvl)), countless(built))
		s.calm(0)
	})
}

// TestBuildah does by hand what a build does, in a container that stays mounted.
func TestBuildah(t *testing.T) {
	t.Parallel()
	work := func(s *store) string {
		s.importBase()
		s.write("files/copied", "copied\n")
		name := strings.TrimSpace(s.run("buildah", "from", "--pull-never", "localhost/base"))
		s.run("buildah", "run", "--network=host", name, "sh", "-ec", "rm -r /move; mkdir /move; echo x >/move/new; rm /gone/file; chown 7:8 /grow")
		s.run("buildah", "copy", "--chown=10:11", name, "files/copied", "/own/dir/")
		s.run("buildah", "config", "--env=A=b", "--cmd=id", name)
		s.as(`
			dir=$(buildah mount "$1")
			cd "$dir"
			mv again elsewhere            # a lower directory, renamed by a program of the host
			ln hard/left hard/more
			rm type/link-file
			cp -a own/five own/six
			cd /
			buildah umount "$1" >/dev/null`, name)
		s.run("buildah", "commit", "--quiet", "--rm", name, "localhost/by-hand")
		if got := s.run("podman", "image", "inspect", "--format={{.Config.Env}} {{.Config.Cmd}}", "localhost/by-hand"); !strings.Contains(got, "A=b") ||
			!strings.Contains(got, "[id]") {
			t.Errorf("the image has the configuration %s", got)
		}
		name = strings.TrimSpace(s.run("buildah", "from", "--pull-never", "localhost/by-hand"))
		s.run("buildah", "run", "--network=host", name, "sh", "-ec", "test -e /elsewhere/old; rm -r /elsewhere; mkdir /again; rm /hard/left")
		s.run("buildah", "commit", "--quiet", "--squash", "--rm", name, "localhost/squashed")
		s.calm(0)
		return "localhost/squashed"
	}
	each(t, func(t *testing.T, who uniontest.Identity, sys system) {
		s := newStore(t, who, sys)
		got := s.image(work(s), sys)
		ref := newStore(t, who, vfs)
		want := ref.image(work(ref), vfs)
		shell.Same(t, "an image made with laminafs and with vfs", timeless(got), timeless(want))
		shows(t, got, "move\td 755 0:0", "move/new\tf", "!move/file", "!gone/file", "grow\tf 664 7:8", "own/dir/copied\tf 644 10:11",
			"!elsewhere", "again\td 755 0:0", "!again/", "!hard/left", "own/six\tf 640 5:6", "!type/link-file")
	})
}
