package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/idmap"
)

// scratch is a directory in which everything is made. It is locked (flock(2)) while its run lives: one that can be locked
// was left by a run that was killed.
type scratch struct {
	Dir  string
	lock *os.File
}

// scratchPrefix is short, as the rest of the name is: podman takes no directory whose path is longer than 50 bytes.
const scratchPrefix = "lbench-"

// work is the directory in it on which a stage measures. The name is short: 500 layers are in one option.
const work = "w"

func newScratch(parent string) (s scratch, err error) {
	for range 100 {
		s.Dir = filepath.Join(parent, scratchPrefix+strconv.FormatUint(uint64(rand.Uint32()), 36))
		if err = os.Mkdir(s.Dir, 0o755); errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return s, err
		}
		// Until it is locked, another run may take it for a left one and remove it.
		if s.lock, err = lock(s.Dir); err == nil {
			if err = os.Chmod(s.Dir, 0o755); err == nil { // other users pass through
				return s, nil
			}
			_ = s.lock.Close() // read only
		}
		_ = os.Remove(s.Dir) // it may be gone
	}
	return s, err
}

func (s *scratch) path(name string) string { return filepath.Join(s.Dir, name) }

// remove removes everything, also what containers have left that were killed.
func (s *scratch) remove() error {
	return errors.Join(bench.RemoveGroups(s.path(work)), removeTree(s.Dir), s.lock.Close())
}

// lock takes a directory's lock, if nobody has it.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// removeStale removes what killed runs of this user have left in a directory. What cannot be removed is told of, and
// otherwise in nobody's way.
func removeStale(parent string) {
	names, _ := fs.Glob(os.DirFS(parent), scratchPrefix+"*") // the pattern is right; that of a parent might be another
	for _, name := range names {
		dir := filepath.Join(parent, name)
		var st unix.Stat_t
		if unix.Lstat(dir, &st) != nil || int(st.Uid) != os.Getuid() || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		f, err := lock(dir)
		if err != nil {
			continue // it lives
		}
		fmt.Fprintln(os.Stderr, "removing what a killed run has left:", dir)
		if err := errors.Join(unmountBelow(dir), bench.RemoveGroups(filepath.Join(dir, work)), removeTree(dir), f.Close()); err != nil {
			fmt.Fprintln(os.Stderr, "lamina-bench:", err)
		}
	}
}

// unmountBelow ends the mounts that launchers of an ordinary user make outside of any namespace of ours.
func unmountBelow(dir string) (err error) {
	mounts, err := sys.Mounts()
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- { // the topmost first
		if !strings.HasPrefix(mounts[i].Path, dir+"/") {
			continue
		}
		if os.Getuid() == 0 {
			err = errors.Join(err, unix.Unmount(mounts[i].Path, unix.MNT_DETACH))
		} else {
			err = errors.Join(err, exec.Command("fusermount3", "-u", "-z", mounts[i].Path).Run())
		}
	}
	return err
}

// removeTree removes a tree in which files may belong to ids of the caller's range: he can only as root of a namespace in
// which they are mapped.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || os.Getuid() == 0 {
		return err
	}
	id, e := idmap.Discover()
	if e != nil {
		return errors.Join(err, e)
	}
	rm, e := exec.LookPath("rm")
	if e != nil {
		return errors.Join(err, e)
	}
	cmd := &exec.Cmd{Path: rm, Args: []string{"rm", "-rf", "--", dir}}
	if e := idmap.Start(cmd, id.UIDs, id.GIDs, 0); e != nil {
		return errors.Join(err, e)
	}
	if e := cmd.Wait(); e != nil {
		return errors.Join(err, e)
	}
	return nil
}
