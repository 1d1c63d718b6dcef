package unionfs

import (
	"fmt"
	"regexp"

	"github.com/laminafs/lamina/internal/claim"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// workdir is the directory the union keeps for itself beside the upper:
//
//	work/    staging: what is not in the upper yet, or not any more; emptied at mount of what mounts leave there
//	index/   lower files with several names that were copied up (hardlink.go), origins that fit nowhere else
//	lock     held while mounted, as the directory itself and the upper are (package claim)
type workdir struct {
	fd, staging, index, lock int // -1 where not open
}

// entries that other union filesystems leave in a workdir, which an old tree may still have.
var foreignWork = map[string]bool{"incompat": true}

// openWork opens and prepares the work directory.
func openWork(path string, upper *layer) (w workdir, err error) {
	w = workdir{-1, -1, -1, -1}
	fail := func(err error) (workdir, error) {
		w.close()
		return w, &ConfigError{"workdir", path, err}
	}
	if w.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fail(err)
	}
	st, err := sys.Stat(sys.Fd(w.fd))
	if err != nil {
		return fail(err)
	}
	if st.Dev != upper.dev {
		return fail(fmt.Errorf("not on the filesystem of upperdir=%s", upper.path))
	}
	if err := claim.Take(w.fd); err != nil {
		return fail(err)
	}
	if err := checkWorkEntries(w.fd); err != nil {
		return fail(err)
	}
	if w.lock, err = sys.Open(sys.At{Dirfd: w.fd, Name: "lock"}, unix.O_RDWR|unix.O_CREAT, 0o600); err != nil {
		return fail(err)
	}
	if err := claim.Take(w.lock); err != nil {
		return fail(err)
	}
	if w.staging, err = subdir(w.fd, "work"); err != nil {
		return fail(err)
	}
	if err := checkStaging(w.staging); err != nil {
		return fail(err)
	}
	if w.index, err = subdir(w.fd, "index"); err != nil {
		return fail(err)
	}
	return w, nil
}

// lockUpper takes the lock on the upper directory itself, which may be given with another workdir next time, and
// returns the descriptor that holds it.
func lockUpper(l *layer) (int, error) {
	fd, err := reopen(l.fd, unix.O_RDONLY)
	if err == nil {
		err = claim.Take(fd)
	}
	if err != nil {
		sys.Close(fd)
		return -1, &ConfigError{"upperdir", l.path, err}
	}
	return fd, nil
}

// claims are the descriptors by which the upper and the work directory are held, none in a read-only union.
func (fs *FS) claims() []int {
	if fs.upper == nil {
		return nil
	}
	return []int{fs.work.fd, fs.work.lock, fs.upperFd}
}

// Mounted says that the union is mounted, on the device 0:minor.
func (fs *FS) Mounted(minor uint32) {
	for _, fd := range fs.claims() {
		claim.Serving(fd, minor)
	}
}

// Unmounted says that the mount is gone. Requests may still be at work.
func (fs *FS) Unmounted() {
	for _, fd := range fs.claims() {
		claim.Ending(fd)
	}
}

// checkWorkEntries refuses a directory in which somebody keeps something else: its content would be lost.
func checkWorkEntries(fd int) error {
	var foreign string
	err := sys.ReadDir(fd, func(e sys.Dirent) {
		switch e.Name {
		case "work", "index", "lock":
		default:
			if !foreignWork[e.Name] {
				foreign = e.Name
			}
		}
	})
	if err != nil {
		return err
	}
	if foreign != "" {
		return fmt.Errorf("not empty: %q is not ours", foreign)
	}
	return nil
}

// staged are the names in work/ that a mount may leave there when it is killed: of ours copyup.Stager.Temp, orphanName
// and probeFiles; of fuse-overlayfs numbers; of kernel overlayfs its own, and the mark that it had a volatile mount.
var staged = regexp.MustCompile(`^(#[0-9a-f]+|orphan-[0-9]+|\.wh\.probe|[0-9]+|incompat)$`)

// checkStaging is checkWorkEntries for work/, which is emptied next.
func checkStaging(fd int) error {
	var foreign string
	err := sys.ReadDir(fd, func(e sys.Dirent) {
		if !staged.MatchString(e.Name) {
			foreign = e.Name
		}
	})
	if err == nil && foreign != "" {
		err = fmt.Errorf("not empty: %q is not ours", "work/"+foreign)
	}
	return err
}

func subdir(fd int, name string) (int, error) {
	a := sys.At{Dirfd: fd, Name: name}
	if err := sys.Mkdir(a, 0o700); err != nil && err != unix.EEXIST {
		return -1, fmt.Errorf("make %s: %w", name, err)
	}
	sub, err := sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES {
		if err = sys.Chmod(a, 0o700); err == nil { // kernel overlayfs leaves it with mode 0
			sub, err = sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	return sub, nil
}

func (w *workdir) close() {
	for _, fd := range []*int{&w.staging, &w.index, &w.lock, &w.fd} {
		sys.Close(*fd)
		*fd = -1
	}
}
