package programs

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

var on = flag.String("on", "laminafs", "the `systems` to run on, with commas: laminafs, overlay, fuse-overlayfs, plain")

// long asks for all places, and for what takes minutes.
var long = os.Getenv("LAMINA_LONG") != ""

// A place is a system with its options, mounted by someone.
type place struct {
	sys  uniontest.System
	who  uniontest.Identity
	opts []string
}

func (p place) String() string {
	return strings.Join(append([]string{string(p.sys), string(p.who)}, p.opts...), ",")
}

// The places that programs run in. The first is for what is slow.
var places = []place{
	{uniontest.Laminafs, uniontest.Root, nil},
	{uniontest.Laminafs, uniontest.UserNS, nil},
	{uniontest.Laminafs, uniontest.User, nil},
	{uniontest.Laminafs, uniontest.Root, []string{"whiteout=overlay", "redirect_dir=on"}},
	{uniontest.Overlay, uniontest.Root, nil},
	{uniontest.FuseOverlayfs, uniontest.Root, nil},
	{uniontest.FuseOverlayfs, uniontest.UserNS, nil},
	{uniontest.Plain, uniontest.Root, nil},
	{uniontest.Plain, uniontest.User, nil},
}

// everywhere runs a test in each place asked for, but for those where it is excused: a list of systems that are known
// not to manage it. Without LAMINA_LONG only the identities listed in quick are used.
func everywhere(t *testing.T, quick []uniontest.Identity, excused []uniontest.System, test func(t *testing.T, p place)) {
	systems := strings.Split(*on, ",")
	for _, p := range places {
		if !slices.Contains(systems, string(p.sys)) || slices.Contains(excused, p.sys) {
			continue
		}
		if !long && !slices.Contains(quick, p.who) {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel() // each has a mount namespace of its own
			test(t, p)
		})
	}
}

var (
	anyone   = []uniontest.Identity{uniontest.Root, uniontest.UserNS, uniontest.User}
	anyRoot  = []uniontest.Identity{uniontest.Root, uniontest.UserNS}
	onlyRoot = []uniontest.Identity{uniontest.Root}
)

// layers makes the layers of p, with one lower that script fills: its working directory is the lower.
func (p place) layers(t *testing.T, script string, args ...string) *uniontest.Layers {
	t.Helper()
	l := uniontest.NewLayers(t, 1, uniontest.As(t, p.who))
	shell.Run(t, l.Helper(), l.Lowers[0], script, args...)
	return l
}

// outside copies what is below the lower to a directory that is in no layer and belongs to whom the layers do, with
// room beside it.
func outside(t *testing.T, l *uniontest.Layers, tree string) string {
	t.Helper()
	dir := l.Dir + "/outside"
	shell.Run(t, nil, "/", `mkdir "$2"; chown --reference="$1" "$2"; cp -a "$1/$3" "$2/plain"`, l.Lowers[0], dir, tree)
	return dir + "/plain"
}

// mount mounts p over l.
func (p place) mount(t *testing.T, l *uniontest.Layers) *uniontest.Mount {
	t.Helper()
	return uniontest.Start(t, p.sys, l, p.opts...)
}

// need skips the test where a program is not installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
}
