package regress

import (
	"fmt"
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// A directory made in a set-group-ID directory whose owner is kept in an attribute did not get the bit.
func TestSetGIDOfAnothersDirectory(t *testing.T) {
	uniontest.NeedRoot(t)
	uid, gid := uniontest.NeedUser(t)
	h := uniontest.As(t, uniontest.User)
	l := uniontest.NewLayers(t, 1, h)
	l.Trust = true // only the owner of a directory can keep its access time where it is
	d := l.Lowers[0] + "/d"
	must(t, os.Mkdir(d, 0o755), os.Chown(d, 0, gid), unix.Chmod(d, 0o2775))
	uniontest.Start(t, uniontest.Laminafs, l)
	r, err := h.Exec(uniontest.Command{Argv: []string{"sh", "-c", `cd "$1/d" && mkdir s s/t && touch s/f`, "-", l.Merged}})
	must(t, err)
	if r.Code != 0 {
		t.Fatalf("exit %d: %s", r.Code, r.Stderr)
	}
	for _, name := range []string{"d", "d/s", "d/s/t"} {
		r, err := h.Exec(uniontest.Command{Argv: []string{"stat", "-c", "%a %g", l.Merged + "/" + name}})
		must(t, err)
		want := fmt.Sprintf("2755 %d\n", gid)
		if name == "d" {
			want = fmt.Sprintf("2775 %d\n", gid)
		}
		if r.Stdout != want {
			t.Errorf("%s: %q %s, want %q (user %d)", name, r.Stdout, r.Stderr, want, uid)
		}
	}
}
