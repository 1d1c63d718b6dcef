package crash

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/laminafs/lamina/copyup" // declares fault points
	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/leak"
	"github.com/laminafs/lamina/internal/uniontest/model"
	_ "github.com/laminafs/lamina/unionfs" // declares fault points
	"golang.org/x/sys/unix"
)

var formats = []string{
	"whiteout=wh,redirect_dir=off", "whiteout=wh,redirect_dir=on",
	"whiteout=overlay,redirect_dir=off", "whiteout=overlay,redirect_dir=on",
}

// TestMain has the server built so that its fault points can be armed.
func TestMain(m *testing.M) {
	os.Exit(leak.Run(func() int { return runAll(m) }))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "crash-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // others run the server, too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	faultFile = filepath.Join(dir, "armed")
	os.Setenv("LAMINA_FAULT_FILE", faultFile)
	binary = filepath.Join(dir, "laminafs")
	return m.Run()
}

var faultFile, binary string

var build = sync.OnceValue(func() error {
	argv := []string{"build", "-tags", "faults", "-o", binary}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("LAMINA_RACE") == "1" {
		argv, env = append(argv, "-race"), append(os.Environ(), "CGO_ENABLED=1")
	}
	cmd := exec.Command("go", append(argv, "github.com/laminafs/lamina/cmd/laminafs")...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build -tags faults: %w\n%s", err, out)
	}
	return os.Setenv("LAMINAFS", binary)
})

func needServer(t *testing.T) {
	t.Helper()
	if uniontest.OnErrand() {
		return // the server is built, and whoever runs the errand is who it is about
	}
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
}

func arm(t *testing.T, what string) {
	t.Helper()
	if err := os.WriteFile(faultFile, []byte(what), 0o644); err != nil {
		t.Fatal(err)
	}
}

func disarm(t *testing.T) {
	t.Helper()
	if err := os.Remove(faultFile); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// rig is a mounted union that holds many copies of the base tree, one for each trial.
type rig struct {
	t      *testing.T // that runs now
	mount  *uniontest.Mount
	layers *uniontest.Layers
	caps   model.Caps
	proc   *model.Proc
	copies int
	used   int
}

const baseLayers = 2

// newRig mounts for the rest of the test t.
func newRig(t *testing.T, opts string) *rig {
	t.Helper()
	disarm(t)
	unix.Umask(0o022)
	g := &rig{t: t, layers: uniontest.NewLayers(t, baseLayers), copies: 80}
	var err error
	if g.caps, err = (model.Target{Sys: uniontest.Laminafs, Opts: opts}).ProbeCaps(g.layers.Dir); err != nil {
		t.Skipf("needs more of the filesystem: %v", err)
	}
	var all []model.Entry
	for n := range g.copies {
		all = append(all, model.Under(g.name(n), baseLayers, base)...)
	}
	if err := model.WriteLayers(g.caps.Limits.Entries(all), g.layers.Lowers, false); err != nil {
		t.Fatal(err)
	}
	g.mount = uniontest.Start(t, uniontest.Laminafs, g.layers, strings.Split(opts, ",")...)
	g.proc = model.StartProc(t) // later, so that it ends before the unmount
	return g
}

func (g *rig) name(n int) string { return fmt.Sprintf("c%03d", n) }

// trial is one copy of the base tree.
type trial struct {
	g        *rig
	dir      string
	old, new *model.Tree
}

// next takes a fresh copy and does the setup there.
func (g *rig) next(s *scenario) *trial {
	g.t.Helper()
	tr := &trial{g: g, dir: filepath.Join(g.mount.Dir(), g.name(g.used)), old: model.Merge(g.caps.Limits.Entries(base), g.caps)}
	g.used++
	g.open(tr.dir)
	for _, op := range s.setup {
		tr.do(tr.old, op)
	}
	if diff := tr.diff(tr.old); diff != "" {
		g.t.Fatalf("before the change: %s", diff)
	}
	return tr
}

func (g *rig) open(dir string) {
	g.t.Helper()
	if err := g.proc.Open(dir); err != nil {
		g.t.Fatal(err)
	}
}

// do does op, which has to give what the model says.
func (tr *trial) do(tree *model.Tree, op model.Op) {
	tr.g.t.Helper()
	want := tree.Apply(op)
	got, err := tr.g.proc.Do(op)
	if err != nil {
		tr.g.t.Fatalf("%s: %v", op, err)
	}
	if msg := want.Check(got); msg != "" {
		tr.g.t.Fatalf("%s: %s", op, msg)
	}
}

// diff says in what the copy is not like the tree.
func (tr *trial) diff(tree *model.Tree) string {
	s, err := tr.g.proc.Snapshot(tr.dir, tree.Pages())
	if err != nil {
		return err.Error()
	}
	return strings.Join(tree.Diff(s), "\n")
}

// alive reports whether the server still answers: statfs(2) always asks it.
func (g *rig) alive() bool {
	var st unix.Statfs_t
	return unix.Statfs(g.mount.Dir(), &st) == nil
}

// attempt does the change with points armed and reports whether that killed the server. Otherwise it returns the
// error that the change gave.
func (tr *trial) attempt(s *scenario, what string) (killed bool, errno unix.Errno) {
	g := tr.g
	g.t.Helper()
	tr.new = tr.old.Clone()
	tr.new.Reopen(tr.old)
	tr.new.Apply(s.change)
	arm(g.t, what)
	r, err := g.proc.Do(s.change)
	disarm(g.t)
	if err != nil {
		g.t.Fatalf("%s: %v", s.change, err)
	}
	return !g.alive(), r.Errno
}

// recover mounts again after the server died, and looks.
func (tr *trial) recover(s *scenario) {
	g := tr.g
	g.t.Helper()
	if err := g.proc.Close(); err != nil {
		g.t.Fatal(err)
	}
	g.mount.Kill()
	before := len(g.mount.Log())
	g.mount.Remount()
	if said := g.mount.Log()[before:]; said != "" {
		g.t.Errorf("the next mount says: %s", said)
	}
	g.workIsClean()
	g.open(tr.dir)
	tr.old.Apply(model.Op{Kind: "remount"})
	tr.new.Apply(model.Op{Kind: "remount"})
	tr.old.ForgetDirTimes()
	tr.new.ForgetDirTimes()
	switch old, new := tr.diff(tr.old), tr.diff(tr.new); {
	case new == "":
	case old != "":
		g.t.Errorf("neither old nor new. It is not the old one:\n%s\nand not the new one:\n%s", old, new)
	case s.open:
		// The change needs a descriptor, and those are gone.
	default:
		tr.do(tr.old, s.change)
		if d := tr.diff(tr.old); d != "" {
			g.t.Errorf("done again after the crash: %s", d)
		}
	}
	if err := g.proc.Close(); err != nil {
		g.t.Fatal(err)
	}
}

// workIsClean looks for remains in the workdir of a mount that nobody uses.
func (g *rig) workIsClean() {
	g.t.Helper()
	left, err := os.ReadDir(filepath.Join(g.layers.Work, "work"))
	if err != nil {
		g.t.Error(err)
	}
	for _, e := range left {
		g.t.Errorf("left in the workdir: work/%s", e.Name())
	}
}

// TestPoints kills the server at every fault point in every scenario, and lets every fault point fail. A point that
// no scenario reaches is an error: so a new point is either tested or noticed.
func TestPoints(t *testing.T) {
	needServer(t)
	hit := map[string]bool{}
	for nf, opts := range formats {
		t.Run(opts, func(t *testing.T) {
			here := map[string]bool{}
			points(t, opts, here, func(p string, ns, np int) bool { return long || !here[p] || (nf+ns+7*np)%12 == 0 })
			for p := range here {
				hit[p] = true
			}
		})
	}
	if t.Failed() || flag.Lookup("test.run").Value.String() != "" {
		return // not all of it was done
	}
	for _, p := range fault.List() {
		if !hit[p] {
			t.Errorf("no scenario reaches the fault point %s", p)
		}
	}
}

// points runs all scenarios on a mount with the options, with the points that chosen picks by name, number of the scenario
// and number of the point, and notes in hit those that it has reached.
func points(t *testing.T, opts string, hit map[string]bool, chosen func(p string, ns, np int) bool) {
	limits := model.LimitsHere()
	var g *rig
	for ns, s := range scenarios {
		s = s.under(limits)
		ok := t.Run(s.name, func(sub *testing.T) {
			s.run(sub, func() *trial {
				if g == nil || g.used == g.copies {
					if g != nil {
						g.close()
					}
					g = newRig(t, opts)
				}
				g.t = sub
				return g.next(s)
			}, func(p string, np int) bool { return chosen(p, ns, np) }, hit)
		})
		if !ok && g != nil { // nobody knows what it is like now
			g.close()
			g = nil
		}
	}
}

// long asks for all there is, which takes most of an hour: every point in every scenario, and up to its third hit. The
// normal run takes one in twelve, and every point at least once in each format.
var long = os.Getenv("LAMINA_LONG") != ""

// run kills at the points that chosen picks, each in a new trial, and notes in hit those that it has reached.
func (s *scenario) run(t *testing.T, next func() *trial, chosen func(string, int) bool, hit map[string]bool) {
	maxHits := 1
	if long {
		maxHits = 3
	}
	for np, p := range fault.List() {
		if !chosen(p, np) {
			continue
		}
		reached := false
		for n := 1; n <= maxHits; n++ {
			tr := next()
			killed, errno := tr.attempt(s, fmt.Sprintf("%s#%d=kill", p, n))
			if !killed {
				if errno != 0 {
					t.Errorf("%s not reached: %s gives %v", p, s.change, errno)
				}
				break
			}
			reached, hit[p] = true, true
			t.Logf("killed at %s, hit %d", p, n)
			tr.recover(s)
			if t.Failed() {
				t.Fatalf("after SIGKILL at %s, hit %d, of %s", p, n, s.change)
			}
		}
		if !reached {
			continue
		}
		// The same point reports an error: then it is all or nothing as well.
		tr := next()
		_, errno := tr.attempt(s, p+"=ENOSPC")
		tr.settle(s, p, errno)
	}
}

// settle looks at the tree after a change in which a point failed.
func (tr *trial) settle(s *scenario, p string, errno unix.Errno) {
	g := tr.g
	g.t.Helper()
	tr.old.ForgetDirTimes()
	tr.new.ForgetDirTimes()
	switch {
	case errno == 0:
		if d := tr.diff(tr.new); d != "" {
			g.t.Errorf("%s fails, but %s succeeds: %s", p, s.change, d)
		}
	case errno != unix.ENOSPC:
		g.t.Errorf("%s fails with ENOSPC: %s gives %v", p, s.change, errno)
	default:
		if d := tr.diff(tr.old); d != "" {
			g.t.Errorf("%s fails, and so does %s: %s", p, s.change, d)
		}
	}
	g.workIsClean()
	if g.t.Failed() {
		g.t.FailNow()
	}
}

// close unmounts. What goes wrong is the fault of the scenario that ran last, or is known already.
func (g *rig) close() {
	if err := g.proc.Close(); err != nil {
		g.t.Error(err)
	}
	g.mount.Unmount()
}
