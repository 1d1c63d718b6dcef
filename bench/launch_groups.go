package bench

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// RemoveGroups removes the cgroups of the containers that a run on the directory dir of Fixtures had when it was killed: who
// would have removed them was killed too. They are found by the ids that the stores below dir still have.
//
// Preconditions: the processes of the run are dead, or about to be; dir has not been removed.
func RemoveGroups(dir string) error {
	ids := containerIDs(dir)
	if len(ids) == 0 {
		return nil
	}
	mounts, err := sys.Mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		if m.FSType != "cgroup" && m.FSType != "cgroup2" {
			continue
		}
		for _, group := range groupsOf(m.Path, ids) {
			errs = append(errs, removeGroup(group))
		}
	}
	return errors.Join(errs...)
}

// runcID is what the containers of runc are called: by a name that no cgroup of another run has.
func (e *launchEnv) runcID() string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, e.dir) // it never fails
	return fmt.Sprintf("bench-%016x", h.Sum64())
}

// idForm is that of the ids of lamina and podman, and of runcID. What else is in a store is no container, or somebody's trick: a
// user's store is his.
var idForm = regexp.MustCompile(`^([0-9a-f]{64}|bench-[0-9a-f]{16})$`)

// containerIDs are the names of the containers in the stores of lamina, podman and runc below dir.
func containerIDs(dir string) (ids []string) {
	for _, store := range []string{"root/containers", "root/overlay-containers", "runc"} {
		found, _ := fs.Glob(os.DirFS(dir), "c*/"+store+"/*") // the pattern is right
		for _, path := range found {
			if id := filepath.Base(path); idForm.MatchString(id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// groupsOf finds the cgroups below top that are named after one of the containers: by its id, or with something around it, as
// podman and systemd do.
func groupsOf(top string, ids []string) (groups []string) {
	// One that goes away meanwhile is nobody's loss.
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(d.Name(), id) }) {
			groups = append(groups, path)
			return fs.SkipDir
		}
		return nil
	})
	return groups
}

// groupLimit is how long the last process of a killed container may take to be gone.
const groupLimit = 5 * time.Second

// removeGroup removes a cgroup and those below it, the deepest first. Their files go with them.
func removeGroup(top string) error {
	var groups []string
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error { // as above
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return nil
	})
	for _, group := range slices.Backward(groups) {
		var err error
		limit := poll(groupLimit, func() (bool, error) {
			err = unix.Rmdir(group)
			return err != unix.EBUSY, nil
		})
		if errors.Join(limit, err) != nil && err != unix.ENOENT {
			return fmt.Errorf("remove cgroup %s: %w", group, err)
		}
	}
	return nil
}
