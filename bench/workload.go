package bench

import (
	"os"
	"path/filepath"
)

// A Workload is one thing that programs do.
type Workload struct {
	Name string

	// Goal is the ratio of wall time to kernel overlayfs that DESIGN.md asks of laminafs; 0 for none.
	Goal float64

	// Lowers gives the layers, topmost first.
	Lowers func(f *Fixtures) ([]string, error)

	// Writes says that it changes the tree: the plain directory is then a copy of the topmost layer, else that itself.
	Writes bool

	// Prepare is run on the mount before the measurement; it may be nil.
	Prepare func(f *Fixtures, dir string) error

	// Run is what is measured.
	Run func(f *Fixtures, dir string) error
}

// one makes Lowers of a single layer.
func one(layer func(f *Fixtures) (string, error)) func(*Fixtures) ([]string, error) {
	return func(f *Fixtures) ([]string, error) {
		dir, err := layer(f)
		return []string{dir}, err
	}
}

// plainly makes Run or Prepare of an operation on the whole tree.
func plainly(op func(dir string) error) func(*Fixtures, string) error {
	return func(_ *Fixtures, dir string) error { return op(dir) }
}

var (
	doWalk    = plainly(walk)
	doRead    = plainly(readAll)
	doAppend  = plainly(appendAll)
	doListBig = func(f *Fixtures, dir string) error { return list(filepath.Join(dir, "big"), f.count(50_000)) }
	doUntar   = func(f *Fixtures, dir string) error {
		archive, err := f.Archive()
		if err != nil {
			return err
		}
		return run("tar", "-C", dir, "-xf", archive)
	}
)

// removeAll is rm -rf of everything in the tree.
func removeAll(_ *Fixtures, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	argv := []string{"rm", "-rf", "--"}
	for _, e := range entries {
		argv = append(argv, filepath.Join(dir, e.Name()))
	}
	return run(argv...)
}

// missing is a lookup of 5,000 names that are in none of n layers. The directories are known before: what is measured
// is the price of a name.
func missing(name string, n int) Workload {
	return Workload{
		Name:   name,
		Lowers: func(f *Fixtures) ([]string, error) { return f.Layers(n) },
		Prepare: func(_ *Fixtures, dir string) error {
			return statMissing(dir, "before", layerDirs)
		},
		Run: func(f *Fixtures, dir string) error { return statMissing(dir, "missing", f.count(5_000)) },
	}
}

// Workloads are all there are, in the order of the report.
var Workloads = []Workload{
	{Name: "walk cold", Goal: 1.5, Lowers: one((*Fixtures).Tree), Run: doWalk},
	{Name: "walk warm", Goal: 1.0, Lowers: one((*Fixtures).Tree), Prepare: doWalk, Run: doWalk},
	{Name: "read cold", Goal: 2.0, Lowers: one((*Fixtures).Tree), Run: doRead},
	{Name: "read warm", Goal: 0.9, Lowers: one((*Fixtures).Tree), Prepare: doRead, Run: doRead},
	{Name: "untar 10k", Goal: 3.0, Writes: true, Lowers: one((*Fixtures).Empty), Run: doUntar},
	{Name: "rm -rf upper", Goal: 2.5, Writes: true, Lowers: one((*Fixtures).Empty), Prepare: doUntar, Run: removeAll},
	{Name: "rm -rf lower", Goal: 2.5, Writes: true, Lowers: one((*Fixtures).Tree), Run: removeAll},
	{Name: "first write 2k", Goal: 0.7, Writes: true, Lowers: one((*Fixtures).Small), Run: doAppend},
	{
		Name: "create, rename", Goal: 2.5, Writes: true, Lowers: one((*Fixtures).Empty),
		Run: func(f *Fixtures, dir string) error { return churn(dir, f.count(5_000)) },
	},
	missing("missing, 1", 1),
	missing("missing, 64", 64),
	missing("missing, 500", 500),
	{Name: "list 50k cold", Goal: 1.5, Lowers: one((*Fixtures).BigDir), Run: doListBig},
	{Name: "list 50k warm", Goal: 1.0, Lowers: one((*Fixtures).BigDir), Prepare: doListBig, Run: doListBig},
	{
		Name: "stat 1 of 50k", Lowers: one((*Fixtures).BigDir),
		Run: func(f *Fixtures, dir string) error {
			_, err := os.Lstat(filepath.Join(dir, "big", "some-name-0"))
			return err
		},
	},
	{Name: "walk 50k", Goal: 1.5, Lowers: one((*Fixtures).BigDir), Run: doWalk},
	{
		Name: "big read cold", Goal: 2.0, Lowers: one((*Fixtures).BigFile),
		Run: func(_ *Fixtures, dir string) error { return readBig(filepath.Join(dir, "big")) },
	},
	{
		Name: "big write", Goal: 1.5, Writes: true, Lowers: one((*Fixtures).Empty),
		Run: func(f *Fixtures, dir string) error { return writeBig(filepath.Join(dir, "new"), f.count(bigBlocks)) },
	},
}

// LayersGoal is how much more a missing name may cost in 500 layers than in one, on laminafs.
const LayersGoal = 1.2
