package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/version"
	"github.com/laminafs/lamina/unionfs"
	"github.com/laminafs/lamina/unionfs/transport"
	"github.com/laminafs/lamina/whiteout"
)

// teller tells the figures of the mount.
type teller struct {
	fs      *unionfs.FS
	m       *transport.Mount
	s       *transport.Server
	config  unionfs.Config
	started time.Time

	control string // the directory that the kernel has for the connection, if it has one
}

// newTeller makes it. left says that prune is about to take away what is mounted; a descriptor stays then.
func newTeller(fs *unionfs.FS, m *transport.Mount, s *transport.Server, config unionfs.Config, left bool) *teller {
	t := &teller{fs, m, s, config, time.Now(), fmt.Sprintf("/sys/fs/fuse/connections/%d", m.Minor)}
	if left {
		if fd, err := unix.Open(t.control, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			t.control = fmt.Sprintf("/proc/self/fd/%d", fd) // until the end of the process
		}
	}
	return t
}

// tell answers who connects to the socket of the mount's directory.
func (t *teller) tell(live *liveDir, logger *log.Logger) {
	if live.Dir == nil {
		return
	}
	fd, err := live.Listen("figures")
	if errors.Is(err, fs.ErrClosed) {
		return // the mount is gone already
	}
	if err != nil {
		logger.Printf("the figures of the mount will not be told: %v", err)
		return
	}
	go figures.ServeAll(fd, t.snapshot)
}

// snapshot is a figures.Snapshot.
func (t *teller) snapshot(timed bool) *figures.Mount {
	f := &figures.Mount{
		PID: os.Getpid(), Started: seconds(t.started), Mountpoint: t.m.Target,
		Version: version.Module(), GoVersion: goruntime.Version(),
		Modes: t.modes(), Union: t.fs.Stats(), Process: process(),
	}
	var since time.Time
	f.Requests, since = t.s.Figures(timed)
	if !since.IsZero() {
		f.Modes.TimedSince = seconds(since)
	}
	f.Requests.Notices = t.m.Notifier().Sent()
	f.Requests.Waiting = waiting(t.control)
	return f
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func (t *teller) modes() figures.Modes {
	info := t.s.Info()
	m := figures.Modes{
		Transport: info.Transport, ZeroMessage: info.Offered&fuse.CAP_NO_OPEN_SUPPORT != 0,
		Whiteout: "wh", IDMapping: "none", Writable: t.config.Upper != "", Layers: len(t.config.Lowers),
	}
	if t.config.Whiteout == whiteout.Overlay {
		m.Whiteout = "overlay"
	}
	switch c := &t.config; {
	case c.SquashToRoot || c.SquashToUID != nil || c.SquashToGID != nil:
		m.IDMapping = "squashed"
	case len(c.UIDMap)+len(c.GIDMap) > 0:
		m.IDMapping = "mapped"
	}
	return m
}

// waiting is how many requests the kernel waits for, -1 where it does not tell: only the owner, and where fusectl is
// mounted.
//
// Source: fs/fuse/control.c, fuse_conn_waiting_read.
func waiting(control string) int64 {
	text, err := os.ReadFile(control + "/waiting")
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// process is what this process takes. What cannot be found out is 0.
func process() figures.Process {
	var mem goruntime.MemStats
	goruntime.ReadMemStats(&mem)
	p := figures.Process{
		Goroutines: goruntime.NumGoroutine(), HeapBytes: mem.HeapAlloc, GCCycles: mem.NumGC,
		GCSeconds: time.Duration(mem.PauseTotalNs).Seconds(),
	}
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		p.CPUSeconds = time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
	}
	const threads, resident = 20 - 3, 24 - 3 // proc_pid_stat(5), without the first two
	if f := sys.OwnStat(); len(f) > resident {
		p.Threads, _ = strconv.Atoi(f[threads]) // the kernel writes numbers
		pages, _ := strconv.ParseUint(f[resident], 10, 64)
		p.ResidentBytes = pages * uint64(os.Getpagesize())
	}
	return p
}
