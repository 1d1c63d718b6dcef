package unionfs

import (
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/claim"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// FS is a union, serving the kernel's requests as a [fuse.RawFileSystem].
type FS struct {
	// Immutable after New.
	layers   []*layer // by index; [0] is nil in a read-only union
	upper    *layer   // layers[0]
	devices  []uint64 // st_dev by device number
	foreign  sync.Map // st_dev -> uint64, of what lies on no layer's device (ino.go)
	work     workdir
	upperFd  int // holds the lock on the upper
	stage    *copyup.Stager
	format   whiteout.Format
	redirect bool
	ids      idMapper
	cfg      Config
	log      *log.Logger
	timeout  time.Duration
	euid     uint32
	egid     uint32

	noUserXattr bool
	reserved    chan struct{} // closed when there is room for the descriptors; nil in an FS that New did not make

	// Where owners and modes of upper objects go (owner.go).
	canChown       bool // the inode can have any owner that is shown
	overrideAlways bool // the attribute has it, always
	overrides      overrideLocks

	nodes   *nodeTable
	root    *node
	fds     *fdTable
	attrs   attrTable
	links   hardlinks
	reaper  reaper
	orphans atomic.Uint64
	counts  counts
	trash   trash
	kernel  Notifier
	pass    passthrough
	ahead   prefetch
}

// Notifier is the way from the union to the kernel, whoever brings the requests.
type Notifier interface {
	// InvalInode tells that a node's attributes have changed, and length bytes of its content from off on: all that
	// follow where length is 0, none where off is negative.
	InvalInode(nodeid uint64, off, length int64) fuse.Status

	// Store puts data into the kernel's cache of a node, at off bytes. It may wait for the answer to a READ.
	Store(nodeid uint64, off int64, data []byte) fuse.Status

	// Blocking says that the request at hand takes long, so that others do not wait for it.
	Blocking()

	// Offers tells whether the kernel has offered all of fuse.CAP_* in caps.
	Offers(caps uint64) bool

	// OpenBacking registers an open file for the kernel to read and write by itself, and CloseBacking forgets it for
	// whom it is given to from then on. Errors: those of FUSE_DEV_IOC_BACKING_OPEN.
	OpenBacking(fd int) (id int32, err error)
	CloseBacking(id int32)
}

// nobody is the Notifier of a union that nobody serves.
type nobody struct{}

func (nobody) InvalInode(uint64, int64, int64) fuse.Status { return fuse.ENOENT }
func (nobody) Store(uint64, int64, []byte) fuse.Status     { return fuse.ENOENT }
func (nobody) Blocking()                                   {}
func (nobody) Offers(uint64) bool                          { return false }
func (nobody) OpenBacking(int) (int32, error)              { return 0, unix.ENOTCONN }
func (nobody) CloseBacking(int32)                          {}

var _ fuse.RawFileSystem = (*FS)(nil)

// forever is the timeout of what only changes through us. The kernel adds it to its clock in seconds.
const forever = 10 * 365 * 24 * time.Hour

// New opens the layers, checks them, takes the lock on the upper and clears the staging directory.
//
// Errors: a *ConfigError that names the option and the path; EBUSY among them where the upper is in use.
func New(cfg Config) (_ *FS, err error) {
	fs := &FS{
		cfg: cfg, log: cfg.Log, format: cfg.Whiteout, redirect: cfg.RedirectDir, timeout: cfg.Timeout,
		work: workdir{-1, -1, -1, -1}, upperFd: -1,
		euid: uint32(unix.Geteuid()), egid: uint32(unix.Getegid()),
		nodes: newNodeTable(), fds: newFdTable(fdBound()), kernel: nobody{},
	}
	if fs.log == nil {
		fs.log = log.Default()
	}
	switch {
	case fs.timeout == 0:
		fs.timeout = forever
	case fs.timeout < 0:
		fs.timeout = 0
	}
	if err := cfg.checkPassthrough(); err != nil {
		return nil, err
	}
	fs.ids = newIDMapper(&cfg)
	fs.reserved = make(chan struct{})
	go func() {
		defer close(fs.reserved)
		reserveFds(min(fs.fds.max, maxReserved))
	}()
	defer func() {
		if err != nil {
			_ = fs.Close() // read-only descriptors
		}
	}()
	if err := fs.openLayers(&cfg); err != nil {
		return nil, err
	}
	if fs.upper != nil {
		if err := fs.openWritable(&cfg); err != nil {
			return nil, err
		}
	}
	fs.links.init(fs)
	if err := fs.links.load(); err != nil {
		return nil, &ConfigError{"workdir", cfg.Work, err}
	}
	if err := fs.makeRoot(); err != nil {
		return nil, err
	}
	fs.reaper.start(fs)
	fs.ahead.start(fs)
	return fs, nil
}

// openWritable prepares what only a union with an upper has.
func (fs *FS) openWritable(cfg *Config) (err error) {
	if cfg.Work == "" {
		return &ConfigError{Option: "workdir", Err: fmt.Errorf("not given, upperdir=%s needs one", cfg.Upper)}
	}
	if err := fs.checkUpper(cfg); err != nil {
		return err
	}
	if fs.upperFd, err = lockUpper(fs.upper); err != nil {
		return err
	}
	if fs.work, err = openWork(cfg.Work, fs.upper); err != nil {
		return err
	}
	fs.stage = copyup.NewStager(copyup.Options{Work: fs.work.staging, Sync: !cfg.Volatile})
	if err := fs.stage.Clean(); err != nil {
		return &ConfigError{"workdir", cfg.Work, fmt.Errorf("clear what a crash left: %w", err)}
	}
	if err := fs.probeUpper(cfg); err != nil {
		return err
	}
	return fs.prepareOwners(cfg)
}

// makeRoot makes the node of the root from the roots of all layers.
func (fs *FS) makeRoot() error {
	n := &node{typ: unix.DT_DIR, dir: &dirState{}}
	n.lookups.Store(1) // never forgotten
	var dirs []*dir
	for _, l := range fs.layers {
		if l != nil {
			dirs = append(dirs, l.root)
		}
	}
	if err := fs.mergeDir(n, dirs, false); err != nil {
		return &ConfigError{"lowerdir", fs.layers[1].path, err}
	}
	top := fs.layers[1]
	if n.dir.upper != nil && len(n.dir.lowers) == 0 {
		top = fs.upper
	}
	st, err := sys.Stat(sys.Fd(top.fd))
	if err != nil {
		return &ConfigError{"lowerdir", top.path, err}
	}
	n.ino.Store(fs.inoOf(top, &st))
	fs.nodes.add(n)
	fs.root = n
	return nil
}

// fdBound is how many descriptors are kept open to be fast: a quarter of what the process may have.
func fdBound() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 256
	}
	return int(min(max(lim.Cur/4, 64), 1<<16))
}

// maxReserved is for how many descriptors there is room from the start: 8 bytes each, of the kernel's.
const maxReserved = 1 << 13

// Close releases the layers and the lock on the upper. Nothing is written any more.
func (fs *FS) Close() error {
	if fs.reserved != nil {
		<-fs.reserved
	}
	fs.ahead.stop()
	fs.reaper.stop()
	fs.fds.close()
	fs.work.close()
	sys.Close(fs.upperFd)
	fs.upperFd = -1
	for _, l := range fs.layers {
		if l != nil {
			sys.Close(l.fd)
			l.fd = -1
		}
	}
	return nil
}

// Init is not needed: the kernel is reached through the Notifier.
func (fs *FS) Init(*fuse.Server) {}

// SetNotifier gives the union its way to the kernel. Precondition: no request has come.
func (fs *FS) SetNotifier(n Notifier) { fs.kernel = n }

// stale tells the kernel that it does not know n's attributes any more, where what changed them does not. It waits for
// no lock of the kernel's: a negative offset leaves the pages alone.
func (fs *FS) stale(n *node) {
	_ = fs.kernel.InvalInode(n.id, -1, 0) // ENOENT: the kernel has forgotten the node
}

// OnUnmount is called after the last request: the kernel has let go of everything, and we write nothing any more. The
// next mount need not wait until all is on the disk.
func (fs *FS) OnUnmount() {
	fs.ahead.stop()
	fs.reaper.stop()
	for _, fd := range fs.claims() {
		claim.Release(fd)
	}
	if fs.upper != nil && !fs.cfg.Volatile {
		if fs.cfg.Syncing != nil {
			fs.cfg.Syncing()
		}
		if err := unix.Syncfs(fs.upperFd); err != nil {
			fs.log.Printf("sync upperdir=%s: %v", fs.upper.path, err)
		}
	}
}

func (fs *FS) String() string { return "laminafs" }

// SetDebug is of no use here: requests are logged by the transport.
func (fs *FS) SetDebug(bool) {}
