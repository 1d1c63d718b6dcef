// Package livemount tells what the mounts that live are made of, as AUFS does under /sys/fs/aufs.
//
// Each mount has a directory si_<id>, in /run/laminafs for root and in $XDG_RUNTIME_DIR/laminafs for others:
//
//	br0, br1, ...      the branches, topmost first: "PATH=rw" for the upper, "PATH=ro+wh" for a lower
//	brid0, brid1, ...  a number for each branch
//	options            as they were given
//	pid                of the server
//	mountpoint
//	log                what the server has to say once nobody reads its stderr
//	requests           how many requests came, by opcode, as of the last SIGUSR1
//	figures            a socket of the server, for its owner: see package figures
//
// Bytes up to the space, the backslash and DEL are written \ooo in paths, as AUFS and /proc/mounts do.
//
// The server holds a lock (flock(2)) on its directory. The lock dies with it, so a directory that can be locked is
// stale, whatever process has the pid by now. A directory is built under another name, locked, and then renamed:
// nobody sees half of one.
package livemount

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

const (
	prefix    = "si_"  // of a mount's directory
	tmpPrefix = ".new" // of one that is being built

	firstBranchID = 64 // of brid0: AUFS numbers its branches from here
)

// Branch is one layer of a mount.
type Branch struct {
	Path     string `json:"path"`
	Writable bool   `json:"writable"`
	ID       int    `json:"id"`
}

func (b Branch) String() string {
	if b.Writable {
		return Escape(b.Path) + "=rw"
	}
	return Escape(b.Path) + "=ro+wh"
}

// Info is what a directory tells.
type Info struct {
	ID         string   `json:"id"`
	Mountpoint string   `json:"mountpoint"`
	PID        int      `json:"pid"`
	Branches   []Branch `json:"branches"` // topmost first
	Options    string   `json:"options"`

	// Path is the directory. It is known to List only.
	Path string `json:"-"`
}

// Bases are the directories in which mounts of this user may be told of, the preferred one first.
func Bases() []string {
	var list []string
	if os.Geteuid() == 0 {
		list = append(list, "/run/laminafs")
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		list = append(list, filepath.Join(dir, "laminafs"))
	}
	return list
}

// Dir is the directory of a live mount, ours. It is reached by descriptor only: its server may live in another mount
// namespace than it was started in.
type Dir struct {
	ID   string
	root *os.Root // of the directory
	base *os.Root // of the directory it is in
	lock *os.File

	mu      sync.Mutex // held to make anything in the directory, and to remove it
	removed bool       // guarded by mu
}

// Create tells of a mount in the first of bases that can be written to, and removes what servers that have died have
// left there. A branch without an ID gets one.
//
// Errors: fs.ErrNotExist where there is no base at all.
func Create(bases []string, info Info) (*Dir, error) {
	err := error(fs.ErrNotExist)
	for _, path := range bases {
		var d *Dir
		if d, err = createIn(path, info); err == nil {
			return d, nil
		}
	}
	return nil, err
}

func createIn(path string, info Info) (*Dir, error) {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	base, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	clean(base)
	d, err := lockNew(base)
	if err != nil {
		base.Close()
		return nil, err
	}
	if err := d.build(info); err != nil {
		_ = base.RemoveAll(tmpPrefix + d.ID) // the next mount does it otherwise
		d.close()
		return nil, err
	}
	return d, nil
}

// lockNew makes an empty directory under its passing name and locks it. Another mount that cleans up may take it away
// before it is locked; so it is tried again.
func lockNew(base *os.Root) (d *Dir, err error) {
	for range 100 {
		d = &Dir{ID: newID(), base: base}
		if err = base.Mkdir(tmpPrefix+d.ID, 0o755); err != nil {
			return nil, err
		}
		if err = d.lockTmp(); err == nil {
			return d, nil
		}
		d.closeFiles()
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
	}
	return nil, err
}

func newID() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails: crypto/rand
	return hex.EncodeToString(random[:])
}

func (d *Dir) lockTmp() (err error) {
	if d.root, err = d.base.OpenRoot(tmpPrefix + d.ID); err != nil {
		return err
	}
	if d.lock, err = d.root.Open("."); err != nil {
		return err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	// Locked, but perhaps only after it was removed.
	_, err = d.base.Stat(tmpPrefix + d.ID)
	return err
}

// build writes the files and gives the directory its name.
func (d *Dir) build(info Info) error {
	files := map[string]string{
		"options": info.Options, "pid": strconv.Itoa(info.PID), "mountpoint": Escape(info.Mountpoint),
	}
	for i, b := range info.Branches {
		if b.ID == 0 {
			b.ID = firstBranchID + i
		}
		files[fmt.Sprintf("br%d", i)] = b.String()
		files[fmt.Sprintf("brid%d", i)] = strconv.Itoa(b.ID)
	}
	for name, text := range files { // nobody looks into a directory of this name
		if err := d.root.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			return err
		}
	}
	return d.base.Rename(tmpPrefix+d.ID, prefix+d.ID)
}

// Write makes the file name of the directory hold text, all of it or what it held before.
func (d *Dir) Write(name, text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return fs.ErrClosed
	}
	tmp := tmpPrefix + name
	if err := d.root.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return d.root.Rename(tmp, name)
}

// Append opens the file name of the directory for writing at its end.
func (d *Dir) Append(name string) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return nil, fs.ErrClosed
	}
	return d.root.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// Listen makes the socket name in the directory, for its owner alone, and returns it. Errors: fs.ErrClosed after Remove.
func (d *Dir) Listen(name string) (fd int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return -1, fs.ErrClosed
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // nobody knows of it
		}
	}()
	// The file gets the mode that the socket has when it is bound: net/unix/af_unix.c, unix_bind_bsd. There is no
	// bindat(2), and a path may be longer than an address.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return -1, os.NewSyscallError("fchmod", err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d.lock.Fd(), name)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// backlog is how many may wait for a server to accept them.
const backlog = 64

// Remove ends it: the mount is gone. Who goes on telling of it gets fs.ErrClosed.
func (d *Dir) Remove() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removed = true
	defer d.close()
	return remove(d.base, prefix+d.ID)
}

func (d *Dir) close() {
	d.closeFiles()
	d.base.Close()
}

func (d *Dir) closeFiles() {
	if d.root != nil {
		d.root.Close()
	}
	if d.lock != nil {
		d.lock.Close()
	}
}

// remove takes a directory away so that it is gone at once, not file by file.
func remove(base *os.Root, name string) error {
	if id, ok := strings.CutPrefix(name, prefix); ok {
		if err := base.Rename(name, tmpPrefix+id); err != nil {
			return err
		}
		name = tmpPrefix + id
	}
	return base.RemoveAll(name)
}

// stale tells whether nobody holds the lock of a mount's directory.
func stale(base *os.Root, name string) bool {
	f, err := base.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil
}

// listerPatience is how long a list may take to look at a directory.
var listerPatience = 20 * time.Millisecond

// left takes the lock of a directory whose server has died. Whoever lists mounts at this moment has it too, for a moment.
func left(f *os.File) bool {
	for end := time.Now().Add(listerPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
			return false // its server lives, or another one removes it
		}
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // so that of two who wait one comes through
	}
	return false
}

// clean removes what servers that have died have left. One that is not removed is left to the next mount.
func clean(base *os.Root) {
	for _, name := range names(base) {
		f, err := base.Open(name)
		if err != nil {
			continue
		}
		if left(f) {
			_ = remove(base, name)
		}
		f.Close()
	}
}

// names lists the mounts' directories, those that are being built included.
func names(base *os.Root) []string {
	dir, err := base.Open(".")
	if err != nil {
		return nil
	}
	defer dir.Close()
	list, _ := dir.Readdirnames(-1) // what was read before an error is what there is to see
	var ours []string
	for _, name := range list {
		if strings.HasPrefix(name, prefix) || strings.HasPrefix(name, tmpPrefix) {
			ours = append(ours, name)
		}
	}
	sort.Strings(ours)
	return ours
}

// List returns all live mounts in bases, by mount point.
//
// Errors: of bases and directories that cannot be read, besides the mounts of the others.
func List(bases []string) ([]Info, error) {
	var all []Info
	var errs []error
	for _, path := range bases {
		base, err := os.OpenRoot(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, name := range names(base) {
			id, ok := strings.CutPrefix(name, prefix)
			if !ok || stale(base, name) {
				continue
			}
			info, err := read(base, name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it has ended meanwhile
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s/%s: %w", path, name, err))
				continue
			}
			info.ID, info.Path = id, filepath.Join(path, name)
			all = append(all, info)
		}
		base.Close()
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Mountpoint < all[j].Mountpoint })
	return all, errors.Join(errs...)
}

func read(base *os.Root, name string) (info Info, err error) {
	text := func(file string) string {
		b, e := base.ReadFile(name + "/" + file)
		err = errors.Join(err, e)
		return strings.TrimSuffix(string(b), "\n")
	}
	info.Options = text("options")
	info.Mountpoint = sys.UnescapeOctal(text("mountpoint"))
	pid := text("pid")
	if err != nil {
		return info, err
	}
	if info.PID, err = strconv.Atoi(pid); err != nil {
		return info, err
	}
	for i := 0; ; i++ {
		b, err := base.ReadFile(fmt.Sprintf("%s/br%d", name, i))
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			_, err = base.Lstat(name + "/br0") // or it goes away while we read it
			return info, err
		}
		if err != nil {
			return info, err
		}
		brid, err := base.ReadFile(fmt.Sprintf("%s/brid%d", name, i))
		if err != nil {
			return info, err
		}
		branch, err := parseBranch(strings.TrimSuffix(string(b), "\n"))
		if err != nil {
			return info, err
		}
		if branch.ID, err = strconv.Atoi(strings.TrimSpace(string(brid))); err != nil {
			return info, err
		}
		info.Branches = append(info.Branches, branch)
	}
}

func parseBranch(s string) (Branch, error) {
	if path, ok := strings.CutSuffix(s, "=rw"); ok {
		return Branch{Path: sys.UnescapeOctal(path), Writable: true}, nil
	}
	if path, ok := strings.CutSuffix(s, "=ro+wh"); ok {
		return Branch{Path: sys.UnescapeOctal(path)}, nil
	}
	return Branch{}, fmt.Errorf("branch %q: neither =rw nor =ro+wh", s)
}

// Escape writes the bytes of a path that would end a line or a word as \ooo. sys.UnescapeOctal undoes it.
func Escape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if c := path[i]; c <= ' ' || c == '\\' || c == 0x7f {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
