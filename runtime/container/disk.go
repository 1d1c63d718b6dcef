package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// The files of a container's directory.
const (
	configFile      = "config.json"
	creatingFile    = "creating.json"
	removingFile    = "removing.json"
	stateFile       = "state.json"
	lockFile        = "lock"
	monitorLockFile = "monitor.lock"
	bootFile        = "boot" // a link that leads nowhere: see volatile
	hostsFile       = "hosts"
	hostnameFile    = "hostname"
	resolvFile      = "resolv.conf"
)

// A container with --rm does not outlive the run of the machine that it was made in, as under Docker. So nothing of it waits
// for the disk: neither its files here, nor what its command syncs. The link boot, whose target is that run, is there before
// everything else, and filesystems keep the order of names; so whatever else of it a crash has left is known to be stale.

// setVolatile marks a container that is about to be made.
func setVolatile(dir string) error {
	boot := bootID()
	if boot == "" {
		return nil // no /proc/sys: it is kept like any other until it is removed
	}
	return os.Symlink(boot, filepath.Join(dir, bootFile))
}

// volatile tells whether the container goes with the run of the machine that it was made in.
func volatile(dir string) bool { return bootOf(dir) != "" }

// stale tells whether that run is over. Where nobody says which one this is, it may be the same.
func stale(dir string) bool {
	made, now := bootOf(dir), bootID()
	return made != "" && now != "" && made != now
}

// bootOf is the run of the machine that the container goes with, empty where it outlives it.
func bootOf(dir string) string {
	boot, _ := os.Readlink(filepath.Join(dir, bootFile)) // there is none
	return boot
}

// writeFile makes dir/name hold data, or leaves it as it was: the bytes are on the disk before the name is theirs. On a
// disk that is full, which may be the container's doing, they take the place of the old ones where they fit.
func writeFile(dir, name string, data []byte, perm os.FileMode) error {
	err := replaceFile(dir, name, data, perm)
	if sys.NoRoom(err) {
		if overwrite(filepath.Join(dir, name), data) == nil {
			return nil
		}
	}
	return err
}

// overwrite writes data, which is JSON, into the blocks that the file has. A shorter text is filled up with spaces: so it is
// one write, in the midst of which no reader comes.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int64(len(data)) > max(st.Size, st.Blocks*512) {
		return unix.ENOSPC
	}
	if n := int(st.Size) - len(data); n > 0 {
		data = append(slices.Clip(data), bytes.Repeat([]byte{' '}, n)...)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

func replaceFile(dir, name string, data []byte, perm os.FileMode) (err error) {
	f, err := os.CreateTemp(dir, ".tmp-"+name+"-")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close() // closed already where it counts
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if !volatile(dir) {
		if err = f.Sync(); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := writeFile(dir, name, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(dir, name), err)
	}
	return nil
}

// readJSON reads a file of a container's directory.
//
// Errors: fs.ErrNotExist, *DamagedError.
func readJSON(dir, name string, v any) error {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if missing(err) {
		return err
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return damaged(dir, name, err)
	}
	return nil
}

// errLocked is returned when somebody else has the lock.
var errLocked = errors.New("locked")

// lockPath takes the flock(2) on the file, which it makes where it is missing. The lock goes with the descriptor.
//
// Errors: errLocked, without wait.
func lockPath(path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch err {
		case nil:
			return f, nil
		case unix.EINTR:
			continue
		case unix.EWOULDBLOCK:
			err = errLocked
		}
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
}

// bootID tells this run of the machine from others.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})

// identify names the process across the time it lives. A process that is gone has a zero start time.
func identify(pid int) process {
	return process{Pid: pid, StartTime: startTime(pid)}
}

// startTime is field 22 of /proc/PID/stat, 0 where there is no such process.
func startTime(pid int) uint64 {
	f := sys.ProcStat(pid)
	if len(f) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// open returns a pidfd of the process if it still is the one that was named.
func (p process) open() (int, error) {
	if p.Pid <= 0 || p.StartTime == 0 {
		return -1, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return -1, err
	}
	if startTime(p.Pid) != p.StartTime {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// kill kills the process, if it is still there, and waits until it is gone.
func (p process) kill() error { return p.end(0) }

// end waits until the process is gone, which it is about to be by itself, and kills it when that takes longer than
// patience, in milliseconds.
func (p process) end(patience int) error {
	fd, err := p.open()
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.Pid, err)
	}
	defer unix.Close(fd)
	if waitPidfd(fd, patience) == nil {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", p.Pid, err)
	}
	return waitPidfd(fd, reapPatience)
}

// dying tells whether the process was killed and is not gone yet: what it held is about to be free.
func (p process) dying() bool {
	f := sys.ProcStat(p.Pid)
	if p.Pid <= 0 || len(f) < 20 || f[19] != strconv.FormatUint(p.StartTime, 10) {
		return true // gone
	}
	if sys.Exiting(f) {
		return true
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/status")
	if err != nil {
		return true // gone meanwhile
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		mask, ok := strings.CutPrefix(line, "ShdPnd:")
		if !ok {
			continue
		}
		pending, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		return err == nil && pending&(1<<(unix.SIGKILL-1)) != 0
	}
	return false
}

// reapPatience is how long a process that was killed may take to go, in milliseconds: one in an uninterruptible wait
// goes when the kernel lets it.
const reapPatience = 10_000

// waitPidfd waits until the process is gone, or has become a zombie. timeout is in milliseconds; -1 waits for ever.
func waitPidfd(fd, timeout int) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, timeout)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		return nil
	}
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
