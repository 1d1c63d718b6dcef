package posix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// Case is one clause of a man page.
type Case struct {
	// Name is the page and the clause: "rename(2): EINVAL when new is inside old". Unique.
	Name string

	// Needs are the abilities, separated by blanks, without which the case cannot be run; see [Abilities].
	Needs string

	// Tree is made in the case's directory before Fn runs, and may come from a lower layer.
	Tree Tree

	Fn func(t *T)
}

// Cases are all cases, in the order in which they run.
var Cases = slices.Concat(
	openCases, readWriteCases, mmapCases, truncateCases, fallocateCases, seekCases, copyRangeCases,
	chmodCases, chownCases, utimensCases,
	linkCases, symlinkCases, mknodCases, socketCases, mkdirCases, unlinkCases, rmdirCases, renameCases,
	xattrCases, aclCases, lockCases, syncCases, statfsCases, ioctlCases, inotifyCases,
	nameCases, readdirCases, sparseCases, nlinkCases, setgidCases, stickyCases, statCases, timeCases, execCases,
	permissionCases, pathErrorCases(),
)

// Result is how a case went.
type Result struct {
	Failure string // empty if it held
	Skipped string // the missing ability
}

// Run runs the case in dir, which is empty but for the case's tree.
func (c Case) Run(dir string) Result {
	t := run(dir, c.Fn)
	r := Result{Failure: strings.Join(t.failures, "\n")}
	if r.Failure == "" {
		r.Skipped = t.skipped
	}
	return r
}

// Abilities are what a place may lack. They are found by trying, in a plain directory on the filesystem that a union
// would write to, so that a union that lacks what its upper has fails.
var Abilities = map[string]func(dir string) error{
	"root": func(dir string) error {
		return tryFile(dir, func(f string) error { return unix.Chown(f, alice, staff) })
	},
	"device": func(dir string) error {
		f := filepath.Join(dir, "probe")
		defer func() { _ = unix.Unlink(f) }() // absent if the probe failed
		return unix.Mknod(f, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	},
	"trusted": func(dir string) error {
		return tryFile(dir, func(f string) error { return unix.Setxattr(f, "trusted.probe", []byte("1"), 0) })
	},
	"userxattr": func(dir string) error {
		return tryFile(dir, func(f string) error { return unix.Setxattr(f, "user.probe", []byte("1"), 0) })
	},
	"acl": func(dir string) error {
		return tryFile(dir, func(f string) error {
			return unix.Setxattr(f, aclAccess, []byte(acl("u::rw,u:2001:r,g::r,m::r,o::r")), 0)
		})
	},
	"caps": func(dir string) error {
		return tryFile(dir, func(f string) error {
			return unix.Setxattr(f, "security.capability", []byte(someCapability), 0)
		})
	},
	"tmpfile": func(dir string) error {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err == nil {
			_ = unix.Close(fd) // read-only probe
		}
		return err
	},
	"direct": func(dir string) error {
		return tryFile(dir, func(f string) error {
			fd, err := unix.Open(f, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		})
	},
	"punch":    tryFallocate(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE),
	"zero":     tryFallocate(unix.FALLOC_FL_ZERO_RANGE),
	"collapse": tryFallocate(unix.FALLOC_FL_COLLAPSE_RANGE),
	"insert":   tryFallocate(unix.FALLOC_FL_INSERT_RANGE),
	"fileflags": func(dir string) error {
		return tryFile(dir, func(f string) error {
			fd, err := unix.Open(f, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			if err = setFlags(fd, fsNodump); err != nil {
				return err
			}
			return setFlags(fd, 0)
		})
	},
	"large": func(string) error { return nil }, // a place may be excused: see Place.Small
	"long": func(string) error {
		if os.Getenv("LAMINA_LONG") == "" {
			return errors.New("LAMINA_LONG is not set")
		}
		return nil
	},
}

func tryFile(dir string, fn func(path string) error) error {
	f := filepath.Join(dir, "probe")
	defer func() { _ = unix.Unlink(f) }()
	if err := create(f, nil); err != nil {
		return err
	}
	return fn(f)
}

func tryFallocate(mode uint32) func(string) error {
	return func(dir string) error {
		return tryFile(dir, func(f string) error {
			fd, err := unix.Open(f, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			if err = unix.Ftruncate(fd, 1<<20); err != nil {
				return err
			}
			return sys.Fallocate(fd, mode, 1<<16, 1<<16)
		})
	}
}

// Place is where the cases are run.
type Place struct {
	// Systems are the rows of [Known] that apply.
	Systems []string

	// Backing is a plain directory on the filesystem that the place keeps its files on; abilities are tried there.
	Backing string

	// Dir is the directory that the cases run in, each in one of its own below it.
	Dir string

	// Small excuses the place from the cases that make very many objects, unless everything is asked for: they take most
	// of the time, and another place of the same system has them.
	Small bool

	// Laid says that [Lay] has made the cases' directories and trees already, in a layer below Dir.
	Laid bool
}

// Lay makes the directories and trees of all cases that the place is able to run.
func Lay(t *testing.T, p Place) {
	t.Helper()
	lacks := p.lacks()
	for i, c := range Cases {
		if c.missing(t, lacks) != nil {
			continue
		}
		if err := c.lay(p.dir(i)); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
	}
}

// RunAt runs every case at the place, each as a subtest, and tells how many could be run.
func RunAt(t *testing.T, p Place) (ran int) {
	lacks := p.lacks()
	for i, c := range Cases {
		t.Run(strings.ReplaceAll(c.Name, "/", "\u2215"), func(t *testing.T) {
			if err := c.missing(t, lacks); err != nil {
				t.Skip("missing ability ", err)
			}
			ran++
			if !p.Laid {
				if err := c.lay(p.dir(i)); err != nil {
					judge(t, p.Systems, c, Result{Failure: err.Error()})
					return
				}
			}
			judge(t, p.Systems, c, c.Run(p.dir(i)))
		})
	}
	return ran
}

// dir is the directory of the i'th case.
func (p Place) dir(i int) string { return fmt.Sprintf("%s/%03d", p.Dir, i) }

// lacks are the abilities that the place does not have, and why.
func (p Place) lacks() map[string]error {
	lacks := map[string]error{}
	for name, try := range Abilities {
		if err := try(p.Backing); err != nil {
			lacks[name] = fmt.Errorf("%s: %w", name, err)
		}
	}
	if p.Small && os.Getenv("LAMINA_LONG") == "" {
		lacks["large"] = errors.New("large: LAMINA_LONG is not set, and another place has the case")
	}
	return lacks
}

// missing is why the case cannot be run.
func (c Case) missing(t *testing.T, lacks map[string]error) error {
	t.Helper()
	for need := range strings.FieldsSeq(c.Needs) {
		if Abilities[need] == nil {
			t.Fatalf("%s: no ability is called %q", c.Name, need)
		}
		if err := lacks[need]; err != nil {
			return err
		}
	}
	return nil
}

// lay makes the case's directory and its tree.
func (c Case) lay(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("mkdir %s: %w", dir, err)
	}
	return c.Tree.Populate(dir)
}

// judge holds a result against what is known of the systems.
func judge(t *testing.T, systems []string, c Case, r Result) {
	t.Helper()
	system, reason, known := "", "", false
	for _, s := range systems {
		if why, ok := Known[s][c.Name]; ok {
			system, reason, known = s, why, true
		}
	}
	switch {
	case r.Skipped != "":
		t.Skip("missing ability ", r.Skipped)
	case known && r.Failure == "":
		t.Errorf("holds on %s, so its line in Known is stale: %s", system, reason)
	case known:
		t.Logf("known on %s: %s\n%s", system, reason, r.Failure)
	case r.Failure != "":
		t.Errorf("%s\n%s", c.Name, r.Failure) // go test writes the name with underscores
	}
}
