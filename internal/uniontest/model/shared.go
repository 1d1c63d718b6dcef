package model

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Several processes work in one directory here, so nobody knows what a single operation must give. What is known
// does not depend on the order:
//
//   - names are neither lost nor doubled: there are as many as were there, were made and were not taken away;
//   - st_nlink of every object is the number of its names;
//   - a record that was appended to a file is in it once, whole, as long as the file has a name.

// sharedDirs are made in every lower, so that they are merged directories. They are exchanged with one another.
var sharedDirs = []string{"x", "y", "z"}

const recordLen = 32 // bytes

// sharedCall asks a process to do so many operations on the directory.
type sharedCall struct {
	Dir   string
	Seed  uint64
	Who   int
	Steps int

	// Overlay is the kernel's overlayfs. A copy-up there fails with EEXIST where the name was unlinked meanwhile and the whiteout is
	// in its place. And it takes the lock of a file for copy-ups and link counts so that a signal ends the wait for it
	// (fs/overlayfs/util.c, ovl_inode_lock_interruptible), and the Go runtime signals its own threads: nothing is changed then.
	Overlay bool
}

// sharedLog is what it did.
type sharedLog struct {
	Names    int            // made less removed
	Appended map[string]int // records by "file's first record" + "record"
	Wrong    []string       // answers that no order of operations explains
}

func record(what string, who, n int) string {
	return fmt.Sprintf("%-*s\n", recordLen-1, fmt.Sprintf("%s %d %d", what, who, n))
}

// sharedLayers describes the shared directory: files with a first record each, some with two names.
func sharedLayers(dir string, layers int) []Entry {
	var es []Entry
	for layer := range layers {
		for _, d := range sharedDirs {
			es = append(es, Entry{Kind: "dir", Layer: layer, Path: join(dir, d), Mode: 0o755})
		}
	}
	return es
}

// sharedFiles puts the first files into the layers.
func sharedFiles(dirs []string, shared string) (names int, err error) {
	for n, layer := range dirs {
		for f := range 4 {
			p := filepath.Join(layer, shared, sharedDirs[f%3], fmt.Sprintf("n%d", 2*f+n%2))
			if err := os.WriteFile(p, []byte(record("lower", n, f)), 0o644); err != nil {
				return 0, err
			}
			if f == 0 && n == 0 {
				if err := os.Link(p, filepath.Join(layer, shared, "y", "n7")); err != nil {
					return 0, err
				}
			}
		}
	}
	all := map[string]bool{}
	for _, layer := range dirs {
		paths, err := filepath.Glob(filepath.Join(layer, shared, "*", "*"))
		if err != nil {
			return 0, err
		}
		for _, p := range paths {
			rel, _ := filepath.Rel(layer, p) // p is below it
			all[rel] = true
		}
	}
	return len(all), nil
}

func (c *sharedCall) run() (*sharedLog, error) {
	r := rand.New(rand.NewPCG(c.Seed, uint64(c.Who)))
	log := &sharedLog{Appended: map[string]int{}}
	path := func() string {
		return filepath.Join(c.Dir, pick(r, sharedDirs), fmt.Sprintf("n%d", r.IntN(8)))
	}
	for n := range c.Steps {
		p, q := path(), path()
		var what string
		var err error
		gain := 0
		allowed := []error{unix.ENOENT}
		switch k := r.IntN(20); {
		case k < 3:
			what, gain, allowed = "create", 1, []error{unix.EEXIST, unix.ENOENT}
			err = c.append(log, p, unix.O_CREAT|unix.O_EXCL, "made", n)
		case k < 7:
			what = "append"
			err = c.append(log, p, 0, "more", n)
		case k < 10:
			what, gain, err = "unlink", -1, unix.Unlink(p)
		case k < 12:
			what, gain, allowed = "link", 1, []error{unix.ENOENT, unix.EEXIST}
			err = unix.Link(p, q)
		case k < 15:
			what, allowed = "rename noreplace", []error{unix.ENOENT, unix.EEXIST}
			err = unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_NOREPLACE)
		case k < 17:
			what = "exchange"
			err = unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, unix.RENAME_EXCHANGE)
		case k == 17:
			what = "exchange of directories"
			err = unix.Renameat2(unix.AT_FDCWD, filepath.Dir(p), unix.AT_FDCWD, filepath.Dir(q), unix.RENAME_EXCHANGE)
			allowed = nil
		case k == 18:
			what = "chmod"
			err = unix.Chmod(p, 0o600|uint32(r.IntN(0o77)))
		default:
			what = "listing"
			err = c.list(log, filepath.Dir(p))
		}
		if err == nil {
			log.Names += gain
			continue
		}
		if c.Overlay {
			allowed = append(allowed, unix.EINTR)
		}
		if c.Overlay && (what == "append" || what == "chmod") {
			allowed = append(allowed, unix.EEXIST)
		}
		ok := false
		for _, a := range allowed {
			ok = ok || err == a
		}
		if !ok {
			log.Wrong = append(log.Wrong, fmt.Sprintf("%s %q %q: %v", what, p, q, err))
		}
	}
	return log, nil
}

// append adds a record to the file, which begins with the record that made it.
func (c *sharedCall) append(log *sharedLog, p string, flags int, what string, n int) error {
	fd, err := unix.Open(p, unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC|flags, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	rec := record(what, c.Who, n)
	if got, err := unix.Write(fd, []byte(rec)); err != nil || got != len(rec) {
		return fmt.Errorf("write gives %d, %w", got, err)
	}
	first := make([]byte, recordLen)
	if got, err := unix.Pread(fd, first, 0); err != nil || got != recordLen {
		return fmt.Errorf("pread gives %d, %w", got, err)
	}
	log.Appended[string(first)+rec]++
	return nil
}

func (c *sharedCall) list(log *sharedLog, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := readNames(fd)
	seen := map[string]bool{}
	for _, n := range names {
		if len(n.Name) != 2 || n.Name[0] != 'n' {
			log.Wrong = append(log.Wrong, fmt.Sprintf("%s lists %q", dir, n.Name))
		}
		seen[n.Name] = true
	}
	return err
}

// checkShared looks at the shared directory at rest. names is how many there were at first.
func checkShared(dir string, names int, logs []*sharedLog) (wrong []string) {
	appended := map[string]int{}
	for _, l := range logs {
		names += l.Names
		wrong = append(wrong, l.Wrong...)
		for k, n := range l.Appended {
			appended[k] += n
		}
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return append(wrong, err.Error())
	}
	if len(paths) != names {
		wrong = append(wrong, fmt.Sprintf("%d names in %s, want %d", len(paths), dir, names))
	}
	links := map[uint64]uint64{}
	stats := map[string]unix.Stat_t{}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s is listed: %v", p, err))
			continue
		}
		links[st.Ino]++
		stats[p] = st
	}
	for p, st := range stats {
		// A lower file may have names that a higher layer hides: see inode.hidden. There are none here.
		if uint64(st.Nlink) != links[st.Ino] {
			wrong = append(wrong, fmt.Sprintf("%s has st_nlink %d and %d names", p, st.Nlink, links[st.Ino]))
		}
		wrong = append(wrong, checkRecords(p, appended)...)
	}
	return wrong
}

func checkRecords(p string, appended map[string]int) (wrong []string) {
	b, err := os.ReadFile(p)
	if err != nil {
		return []string{err.Error()}
	}
	if len(b) < recordLen || len(b)%recordLen != 0 {
		return []string{fmt.Sprintf("%s holds %d bytes, which are no whole records", p, len(b))}
	}
	first := string(b[:recordLen])
	got := map[string]int{}
	for ; len(b) > 0; b = b[recordLen:] {
		got[first+string(b[:recordLen])]++
	}
	for k, n := range appended {
		if strings.HasPrefix(k, first) && got[k] != n {
			wrong = append(wrong, fmt.Sprintf("%s holds %q %d times, want %d", p, k[recordLen:], got[k], n))
		}
	}
	for k := range got {
		if appended[k] == 0 && k[recordLen:] != first {
			wrong = append(wrong, fmt.Sprintf("%s holds %q, which nobody wrote there", p, k[recordLen:]))
		}
	}
	return wrong
}
