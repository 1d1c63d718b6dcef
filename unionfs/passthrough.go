package unionfs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// passthrough is the option of that name: the kernel reads and writes a file of a layer by itself, and asks us for
// nothing but to open and to close it (linux/Documentation/filesystems/fuse/fuse-passthrough.rst). It pays for large
// files and for many small writes. Elsewhere the two requests cost more than they save, so it is no default.
//
// Once a file of a lower layer is open in this way, all who open it are to share it, for the kernel allows one backing
// file an inode: somebody who writes would write into the lower, or be turned away. So a file of a lower is passed
// through only in a union that has no upper, where nobody writes. In any other union it is the files of the upper, and
// those who had a file open before its copy-up see what is written after it, as always.
//
// While a file is open through the kernel's cache it cannot be passed through, nor the other way round: open decides for
// each file, and whoever opens it while it is open gets the same.
type passthrough struct {
	probe sync.Once
	works atomic.Bool

	mu    sync.Mutex
	files map[*node]*passedFile // those that are open
}

// passedFile is a file that is open.
type passedFile struct {
	decide  sync.Once // whether it is cached
	opens   int
	cached  bool  // through the kernel's cache; false before it is decided
	id      int32 // of the backing file, where not cached
	written bool  // somebody may have written to it, where not cached
}

// checkPassthrough refuses what passthrough would not keep to.
func (cfg *Config) checkPassthrough() error {
	if !cfg.Passthrough {
		return nil
	}
	switch {
	case cfg.WritebackCache:
		return &ConfigError{Option: "passthrough", Err: errors.New("not together with writeback: the kernel takes one of them")}
	case cfg.NoAtime:
		return &ConfigError{Option: "passthrough", Err: errors.New("not together with noatime: what the kernel reads by itself moves the access time")}
	}
	return nil
}

// passes tells whether files are opened at all: where the kernel passes none through, it need not ask.
func (fs *FS) passes() bool {
	if !fs.cfg.Passthrough {
		return false
	}
	fs.pass.probe.Do(func() {
		err := fs.tryBacking()
		fs.pass.works.Store(err == nil)
		if err != nil {
			fs.log.Printf("passthrough: not possible, files are read and written by requests: %v", err)
		}
	})
	return fs.pass.works.Load()
}

// tryBacking finds out whether the kernel takes backing files from us. It does so from root of the machine.
func (fs *FS) tryBacking() error {
	fd, err := unix.MemfdCreate("laminafs", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	id, err := fs.kernel.OpenBacking(fd)
	if err == nil {
		fs.kernel.CloseBacking(id)
	}
	return err
}

// opened answers OPEN: it decides how a file is read and written, and remembers that it is open.
func (fs *FS) opened(n *node, flags uint32, out *fuse.OpenOut) {
	n.loc.RLock()
	defer n.loc.RUnlock()
	p := &fs.pass
	p.mu.Lock()
	f := p.files[n]
	if f == nil {
		if p.files == nil {
			p.files = map[*node]*passedFile{}
		}
		f = &passedFile{}
		p.files[n] = f
	}
	f.opens++
	p.mu.Unlock()
	f.decide.Do(func() {
		id, cached := fs.backing(n)
		p.mu.Lock()
		f.id, f.cached = id, cached
		p.mu.Unlock()
		n.changed() // attributes that are being read now are not to be kept
	})
	p.mu.Lock()
	begins := !f.cached && !f.written && flags&unix.O_ACCMODE != unix.O_RDONLY
	f.written = f.written || begins
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if !f.cached {
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, f.id
	}
	p.mu.Unlock()
	if begins {
		fs.stale(n) // what it knows it would keep for ever
	}
}

// backing registers the file that holds n's data. Where that is not to be written through, or the kernel refuses it, n
// is to be cached. Precondition: n.loc is held shared.
func (fs *FS) backing(n *node) (id int32, cached bool) {
	if n.kind() != unix.S_IFREG || !n.up && fs.upper != nil {
		return 0, true
	}
	fd, f, err := fs.openDataLocked(n, unix.O_RDONLY)
	if err != nil {
		return 0, true // it is met again by who reads, and told
	}
	defer fs.fds.release(&f.fd)
	if f.appends {
		return 0, true // only we keep to what such a file allows
	}
	// ELOOP where the layer is a stack of filesystems itself, ENFILE, ENOMEM: the cache does as well.
	id, err = fs.kernel.OpenBacking(fd)
	return id, err != nil
}

// closed answers RELEASE.
func (fs *FS) closed(n *node) {
	p := &fs.pass
	p.mu.Lock()
	f := p.files[n]
	if f == nil {
		p.mu.Unlock()
		return
	}
	f.opens--
	last := f.opens == 0
	if last {
		delete(p.files, n)
		if !f.cached {
			fs.kernel.CloseBacking(f.id)
		}
		n.changed()
	}
	p.mu.Unlock()
	if last && f.written {
		fs.stale(n) // of what was written through a mapping the kernel has not moved the times
	}
}

// attrTimeout is for how long the kernel may keep n's attributes. It does not move the times of a file that is written
// through a mapping and that it does not read from us.
func (fs *FS) attrTimeout(n *node) time.Duration {
	if _, written := fs.passed(n); written {
		return 0
	}
	return fs.timeout
}

// passed tells whether n is read, and whether it may be written, without a request. Its attributes change with that.
func (fs *FS) passed(n *node) (read, written bool) {
	if !fs.cfg.Passthrough {
		return false, false
	}
	p := &fs.pass
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.files[n]
	return f != nil && !f.cached, f != nil && f.written
}
