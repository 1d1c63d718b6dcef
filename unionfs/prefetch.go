package unionfs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// prefetch puts small files into the kernel's cache before it asks for them (FUSE_NOTIFY_STORE), once the files of a
// directory are read in the order in which they are listed, as tar(1), cp -r and grep -r do: a request less for each.
//
// It does so only in a union without an upper. The kernel puts what it is given over what it has, without a look
// whether a program has just written that (fs/fuse/dev.c, fuse_notify_store): a page whose WRITE is still on its way would
// be sent with the old bytes. No lock of ours reaches there, but where nobody can write there is no such page.
//
// The kernel takes the memory back when it needs it. What is given and not known to have been of use is bounded: by
// prefetchDirs directories, and prefetchBytes for each. A directory whose files are then read in another order gets no
// more, and after prefetchMisses of them in a row none does for the next prefetchPause reads.
type prefetch struct {
	jobs    chan prefetchJob
	stopped chan struct{}
	once    sync.Once

	pause atomic.Int32 // reads to come that are not looked at

	mu     sync.Mutex // guards what follows; a leaf
	dirs   map[*node]*readRun
	misses int
}

const (
	prefetchSize   = 64 << 10 // of a file, at most
	prefetchBytes  = 1 << 20  // at a time
	prefetchFiles  = 32       // at a time
	prefetchFirst  = 4        // files at the first time; twice as many each time it was of use
	prefetchDirs   = 16
	prefetchMisses = 4
	prefetchPause  = 4096
	prefetchGap    = 16 // entries that may lie between two files that are read in order: directories, files known already
)

// readRun is what is known of the reads of one directory's files. Positions are those of index.entries.
type readRun struct {
	next   int // the position after the last file that was read by request
	inLine int // files that were read in order
	given  int // the position after the last file given; 0 for none
	window int // files to give
	off    bool
}

type prefetchJob struct {
	dir   *node
	from  int // position
	files int
}

// start begins to work where that is of use.
func (p *prefetch) start(fs *FS) {
	if fs.upper != nil || fs.timeout == 0 {
		return
	}
	p.dirs = map[*node]*readRun{}
	p.stopped = make(chan struct{})
	p.jobs = make(chan prefetchJob, prefetchDirs)
	go func() {
		defer close(p.stopped)
		buf := make([]byte, prefetchSize+1)
		for j := range p.jobs {
			fs.give(j, buf)
		}
	}()
}

// stop ends the work. It may be called twice. Precondition: no request is at work.
func (p *prefetch) stop() {
	if p.jobs == nil {
		return
	}
	p.once.Do(func() { close(p.jobs) })
	<-p.stopped
}

// wasRead is told of a file that was read from its beginning, by request.
func (fs *FS) wasRead(n *node) {
	p := &fs.ahead
	if p.jobs == nil {
		return
	}
	if p.pause.Load() > 0 {
		p.pause.Add(-1)
		return
	}
	d, ok := n.dentry()
	if !ok || !d.parent.dir.mu.TryRLock() {
		return
	}
	pos := -1
	if x := d.parent.dir.index; x != nil && !x.partial {
		pos = x.find(d.name)
	}
	d.parent.dir.mu.RUnlock()
	if pos < 0 {
		return
	}
	if files, from := p.plan(d.parent, pos); files > 0 {
		select {
		case p.jobs <- prefetchJob{d.parent, from, files}:
		default: // the reader is faster than we are
		}
	}
}

// plan takes down that the file at pos was read, and says what to give now.
func (p *prefetch) plan(dir *node, pos int) (files, from int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.dirs[dir]
	if r == nil {
		if len(p.dirs) >= prefetchDirs {
			for old := range p.dirs {
				delete(p.dirs, old)
				break
			}
		}
		r = &readRun{window: prefetchFirst}
		p.dirs[dir] = r
	}
	if r.off {
		return 0, 0
	}
	end := max(r.next, r.given)
	inLine := pos >= r.next && pos < end+prefetchGap
	r.next = pos + 1
	switch {
	case !inLine && r.given == 0:
		r.inLine = 1
		return 0, 0
	case !inLine:
		r.off = true
		if p.misses++; p.misses >= prefetchMisses {
			p.misses = 0
			p.pause.Store(prefetchPause)
		}
		return 0, 0
	case pos < r.given:
		return 0, 0 // it was faster than we are
	case r.given > 0:
		p.misses = 0
		r.window = min(2*r.window, prefetchFiles)
	}
	if r.inLine++; r.inLine < 2 {
		return 0, 0
	}
	// The next file is being opened by now.
	from = pos + 2
	r.given = from + r.window
	return r.window, from
}

// give gives the kernel the files of a directory from a position on.
func (fs *FS) give(j prefetchJob, buf []byte) {
	left := prefetchBytes
	for _, n := range fs.known(j) {
		if left >= 0 {
			left -= fs.giveFile(n, buf)
		}
		fs.forget(n, 1)
	}
}

// known returns the files of the job that the kernel knows, with a reference taken to each.
func (fs *FS) known(j prefetchJob) []*node {
	j.dir.dir.mu.RLock()
	defer j.dir.dir.mu.RUnlock()
	x := j.dir.dir.index
	if x == nil {
		return nil
	}
	var list []*node
	for i := j.from; i < len(x.entries) && i < j.from+j.files; i++ {
		if e := &x.entries[i]; e.node != nil && e.typ == unix.DT_REG && e.node.lookups.Load() > 0 {
			e.node.lookups.Add(1)
			list = append(list, e.node)
		}
	}
	return list
}

// giveFile gives the kernel a whole file, if it is small, and returns its size.
func (fs *FS) giveFile(n *node, buf []byte) int {
	d, err := fs.openData(n, unix.O_RDONLY)
	if err != nil {
		return 0 // who reads it will be told
	}
	defer d.done()
	size := 0
	for size < len(buf) {
		k, err := unix.Pread(d.fd, buf[size:], int64(size))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0
		}
		if k == 0 {
			break
		}
		size += k
	}
	if size > 0 && size <= prefetchSize {
		_ = fs.kernel.Store(n.id, 0, buf[:size]) // ENOENT: the kernel has forgotten it
	}
	return size
}
