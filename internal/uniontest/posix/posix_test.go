package posix_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/leak"
	"github.com/laminafs/lamina/internal/uniontest/posix"
)

func TestMain(m *testing.M) {
	unix.Umask(0o022)
	os.Exit(leak.Run(m.Run))
}

// TestPlain shows that the cases are right: a directory without anything in between holds to all of them.
func TestPlain(t *testing.T) {
	for _, base := range []string{os.TempDir(), "/dev/shm"} {
		t.Run(filepath.Base(base), func(t *testing.T) {
			dir, err := os.MkdirTemp(base, "posix-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			if err := os.Chmod(dir, 0o755); err != nil { // for the cases' other users
				t.Fatal(err)
			}
			p := posix.Place{Systems: []string{"plain"}, Backing: dir + "/backing", Dir: dir + "/cases"}
			mkdir(t, p.Backing)
			mkdir(t, p.Dir)
			errand{"run", p}.run(t)
		})
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// origins are where the cases' objects come from: made through the mount, or found in a lower layer.
var origins = []string{"upper", "lower"}

// TestOverlay runs the cases on kernel overlayfs, whose behaviour ours is measured by.
func TestOverlay(t *testing.T) {
	for _, origin := range origins {
		t.Run(origin, func(t *testing.T) { union(t, uniontest.Overlay, uniontest.Root, origin) })
	}
}

// TestFuseOverlayfs runs the cases on the filesystem that ours takes the place of. It is for reading: nothing is
// known of it in a table, so that its failures show.
func TestFuseOverlayfs(t *testing.T) {
	if os.Getenv("LAMINA_PEERS") == "" {
		t.Skip("for reading only: LAMINA_PEERS is not set")
	}
	for _, origin := range origins {
		t.Run(origin, func(t *testing.T) { union(t, uniontest.FuseOverlayfs, uniontest.Root, origin) })
	}
}

// TestLaminafs runs the cases on ours, in both whiteout formats, as root, as root of a user namespace and as an
// ordinary user.
func TestLaminafs(t *testing.T) {
	formats := map[string][]string{
		"wh":      {"whiteout=wh", "redirect_dir=off"},
		"overlay": {"whiteout=overlay", "redirect_dir=on"},
	}
	for format, opts := range formats {
		for _, origin := range origins {
			t.Run(format+"/"+origin, func(t *testing.T) { union(t, uniontest.Laminafs, uniontest.Root, origin, opts...) })
		}
	}
	for _, who := range []uniontest.Identity{uniontest.UserNS, uniontest.User} {
		for _, origin := range origins {
			t.Run(string(who)+"/"+origin, func(t *testing.T) {
				t.Parallel() // in a process of its own
				union(t, uniontest.Laminafs, who, origin, formats["wh"]...)
			})
		}
	}
}

// union runs the cases in a union, in this process as root and in a helper's as anyone else.
func union(t *testing.T, sys uniontest.System, who uniontest.Identity, origin string, opts ...string) {
	var h *uniontest.Helper
	if who != uniontest.Root {
		h = uniontest.As(t, who)
	}
	l := uniontest.NewLayers(t, 2, h)
	// The second lower is not part of the union: it is the plain directory in which abilities are tried.
	backing := l.Lowers[1]
	l.Lowers = l.Lowers[:1]

	p := posix.Place{Systems: rows(sys, who, origin, opts), Backing: backing, Dir: l.Lowers[0]}
	p.Small = sys == uniontest.Laminafs && (who != uniontest.Root || (origin == "upper") != slices.Contains(opts, "whiteout=wh"))
	if origin == "lower" {
		do(t, h, "lay", p)
		p.Laid = true
	}
	p.Dir = uniontest.Start(t, sys, l, opts...).Dir()
	do(t, h, "run", p)
}

// rows are the rows of posix.Known for a union: its name, alone and with each thing that can make a difference.
func rows(sys uniontest.System, who uniontest.Identity, origin string, opts []string) []string {
	rows := []string{string(sys), string(sys) + " " + origin}
	if slices.Contains(opts, "whiteout=wh") {
		rows = append(rows, string(sys)+" wh "+origin)
	}
	return append(rows, string(sys)+" "+string(who), string(sys)+" "+string(who)+" "+origin)
}

// errand is what TestErrand does in a process of a helper's.
type errand struct {
	What  string
	Place posix.Place
}

// do lays the cases out or runs them, in this process or as the helper.
func do(t *testing.T, h *uniontest.Helper, what string, p posix.Place) {
	t.Helper()
	if h == nil {
		errand{what, p}.run(t)
		return
	}
	uniontest.SendErrand(t, h, errand{what, p}, nil)
}

func (e errand) run(t *testing.T) {
	t.Helper()
	if e.What == "lay" {
		posix.Lay(t, e.Place)
		uniontest.ErrandDone()
		return
	}
	if ran := posix.RunAt(t, e.Place); ran < len(posix.Cases)/2 {
		t.Errorf("only %d of %d cases could be run", ran, len(posix.Cases))
	} else {
		uniontest.ErrandDone()
	}
}

// TestErrand is the part of another test that is run as somebody else.
func TestErrand(t *testing.T) {
	var e errand
	uniontest.TakeErrand(t, &e)
	e.run(t)
}

// TestNames holds the list of cases to its rules.
func TestNames(t *testing.T) {
	var names []string
	for _, c := range posix.Cases {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	for i, n := range names {
		if i > 0 && n == names[i-1] {
			t.Errorf("two cases are called %q", n)
		}
	}
	for system, known := range posix.Known {
		for name := range known {
			if !slices.Contains(names, name) {
				t.Errorf("known of %s, but there is no such case: %q", system, name)
			}
		}
	}
	t.Logf("%d cases", len(names))
}
