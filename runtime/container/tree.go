package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/volume"
)

// The tree of a container is seen by its monitor only: a FUSE mount answers those of its own user namespace, and this
// one is in the monitor's mount namespace besides. So what copies from and to the tree is done there, with a pipe to
// who wants it. For a container that does not run a monitor of another kind is started, for the one request: it
// mounts the layers, and the volumes on them, and ends with the connection.

// copyRequest is the details of get and put.
type copyRequest struct {
	FollowLink bool    // get, stat-path: a symbolic link at the end stands for its target
	Rename     rawName // get: what the first component of the names in the tar is to be
	Contents   bool    // get: of a directory what is in it, as "./..."
	Owners     bool    // get: owners that this user cannot have are those on record; else they are his own
	Archive    bool    // put: owners are those of the tar; otherwise all belongs to root
	NoDirOver  bool    // put: a directory does not take the place of something else, nor the reverse
}

// withTree sends a request to who sees the container's tree.
func (c *Container) withTree(ctx context.Context, req request, result any, files ...*os.File) error {
	for {
		con, err := c.dial()
		if err == nil {
			_, err = exchange(ctx, con, req, result, files...)
		}
		ended := errors.Is(err, errNoMonitor)
		if !ended && !errors.Is(err, ErrNotRunning) { // which a monitor says that is about to end, and has done nothing
			return err
		}
		if ended && con != nil && len(files) > 0 {
			return fmt.Errorf("container %s has ended meanwhile", c.r.Name) // part of the tar may be through
		}
		if err = c.withOwnTree(ctx, req, result, files...); !errors.Is(err, errLocked) {
			return err
		}
		if err := c.waitMonitor(); err != nil { // it is about to listen, or to end
			return err
		}
	}
}

// withOwnTree does so where nobody has mounted it. Errors: errLocked where somebody has.
func (c *Container) withOwnTree(ctx context.Context, req request, result any, files ...*os.File) error {
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.reapLocked(); err != nil {
		return err
	}
	// Held by the one that mounts until that has ended: a start would find the layers in use.
	mon, err := lockPath(filepath.Join(c.dir(), monitorLockFile), false)
	if missing(err) {
		return fail(ErrNotFound, "No such container: %s", c.r.Name)
	}
	if err != nil {
		return err
	}
	defer mon.Close()
	con, err := c.s.spawn(modeTree, c.r.ID, mon)
	if err != nil {
		return err
	}
	_, err = exchange(ctx, con, req, result, files...)
	if errors.Is(err, errNoMonitor) {
		return errors.New("the process that mounted the container has ended without a word")
	}
	return err
}

// serveTree is the life of a monitor that only mounts.
func (m *monitor) serveTree(c *conn) int {
	defer c.Close()
	var req request
	files, err := c.receive(&req)
	if err != nil {
		return 125
	}
	var result any
	if err = m.openTree(); err == nil {
		err = m.union.wait()
		if err == nil && req.Op != opExport {
			err = m.bindVolumes()
		}
		if err == nil && m.c.r.HostConfig.ReadonlyRootfs {
			err = setReadOnly(m.root, 0) // what is mounted in it stays as it is
		}
		if err == nil {
			result, err = m.treeAnswer(req, files)
		}
	}
	closeAll(files)
	err = errors.Join(err, m.closeTree(), m.endTree())
	r, e := replyWith(result, err)
	if e != nil {
		return 125
	}
	_ = c.send(r) // who has gone does not care
	m.reapTree()
	return 0
}

// bindVolumes shows volumes and binds where the container has them. A bind source that is gone is left out.
func (m *monitor) bindVolumes() error {
	for _, v := range m.c.r.Mounts {
		src := v.Source
		switch v.Type {
		case mount.TypeBind:
		case mount.TypeVolume:
			dir, err := m.c.s.volumeDir(v)
			if err != nil {
				return err
			}
			if o, err := m.volumeMount(v); err != nil || o != nil && o.Type == volume.Tmpfs {
				continue // nothing of it is left
			}
			src = dir
			if v.Subpath != "" {
				part, err := openSubpath(dir, v.Subpath)
				if missing(err) {
					continue // as a source that is gone
				}
				if err != nil {
					return err
				}
				defer part.Close() // O_PATH
				src = part.Name()
			}
		default:
			continue
		}
		target, err := openIn(m.root, v.Destination, unix.O_PATH)
		if err != nil {
			continue // nothing is there before the first start
		}
		err = unix.Mount(src, fmt.Sprintf("/proc/self/fd/%d", target), "", unix.MS_BIND|unix.MS_REC, "")
		_ = unix.Close(target)
		if err == nil && !v.RW {
			err = m.coverReadOnly(v.Destination)
		}
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("bind %s on %s: %w", src, v.Destination, err)
		}
	}
	return nil
}

// coverReadOnly makes what is mounted at dest in the tree read-only, with all below it. It is opened anew: a descriptor of
// before leads to what is covered now.
func (m *monitor) coverReadOnly(dest string) error {
	fd, err := openIn(m.root, dest, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setReadOnly(fd, unix.AT_RECURSIVE)
}

// setReadOnly makes a mount read-only, by a descriptor of its root; before Linux 5.12 only that one, whatever flags say.
func setReadOnly(fd int, flags uint) error {
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != unix.ENOSYS {
		return err
	}
	remount, err := sys.RemountFlags(fd, unix.MOUNT_ATTR_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Mount("", fmt.Sprintf("/proc/self/fd/%d", fd), "", remount, "")
}

// treeRequest serves a request on the tree of the running container. Errors: ErrNotRunning where that has just ended: nothing has
// been done then, and another monitor can.
func (m *monitor) treeRequest(req request, files []*os.File) (any, error) {
	for {
		r, err := m.running()
		if err != nil || req.Op == opExport {
			return m.treeAnswer(req, files) // between two runs there is nothing but the layers
		}
		root, err := unix.Open(fmt.Sprintf("/proc/%d/root", r.sandbox.Pid()), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil && r.sandbox.Signal(0) == nil { // else the number may have been another process's by then
			defer unix.Close(root)
			return m.c.treeOp(root, req, files)
		}
		if err == nil {
			_ = unix.Close(root) // O_PATH
			err = os.ErrProcessDone
		}
		select {
		case <-r.told: // what is there then is another run, or nothing
		case <-time.After(endPatience):
			return nil, fmt.Errorf("open the container's root: %w", err)
		}
	}
}

// endPatience is how long a run may take to end whose first process has no root any more.
const endPatience = time.Minute

func (m *monitor) treeAnswer(req request, files []*os.File) (any, error) {
	root, err := m.rootForRequest()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	return m.c.treeOp(root, req, files)
}

// treeOp does what is asked for in the tree below root.
func (c *Container) treeOp(root int, req request, files []*os.File) (any, error) {
	r, o := c.r, req.Copy
	if o == nil {
		o = &copyRequest{}
	}
	ids := idShift{r.UIDMap, r.GIDMap}
	if req.Op == opStatPath {
		st, err := statPath(root, string(req.Path), o.FollowLink)
		return toRaw(st), err
	}
	if len(files) != 1 {
		return nil, fail(ErrInvalid, "%s: want one descriptor", req.Op)
	}
	f := pollable(files[0])
	defer f.Close() // what counts is checked
	var owners *owners
	if req.Op == opExport || req.Op == opGet && o.Owners {
		var err error
		if owners, err = c.owners(root); err != nil {
			return nil, err
		}
		defer owners.close()
	}
	switch req.Op {
	case opExport:
		return nil, writeTree(f, root, ".", "", ids, owners)
	case opGet:
		return nil, getPath(f, root, string(req.Path), o, ids, owners)
	case opPut:
		return nil, putTree(f, root, string(req.Path), o, ids)
	}
	return nil, fail(ErrInvalid, "unknown operation %q", req.Op)
}

// Export writes the merged tree as a tar, as docker export: volumes are not part of it.
func (c *Container) Export(ctx context.Context, w io.Writer) error {
	return c.get(ctx, request{Op: opExport}, func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// get runs a request that answers with a tar, which fn reads.
func (c *Container) get(ctx context.Context, req request, fn func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w, err := pipe(true)
	if err != nil {
		return err
	}
	req.Streams = []string{"data"}
	done := make(chan error, 1)
	go func() {
		done <- c.withTree(ctx, req, nil, w)
		_ = w.Close() // the other end has its own
	}()
	err = fn(r)
	if err != nil {
		cancel() // nobody reads what is on its way
	}
	_ = r.Close()
	if e := <-done; e != nil && (err == nil || !errors.Is(e, context.Canceled)) {
		return e // it says why the tar ended
	}
	return err
}

// put runs a request that takes a tar, which fn writes.
func (c *Container) put(ctx context.Context, req request, fn func(io.Writer) error) error {
	r, w, err := pipe(false)
	if err != nil {
		return err
	}
	req.Streams = []string{"data"}
	done := make(chan error, 1)
	go func() {
		done <- c.withTree(ctx, req, nil, r)
		_ = r.Close() // the other end has its own
	}()
	err = fn(w)
	_ = w.Close()
	if e := <-done; e != nil && (err == nil || errors.Is(err, unix.EPIPE)) {
		return e
	}
	return err // of which the other's is the consequence: the tar ends in the middle
}

// StatPath tells what is at path in the container. Errors: fs.ErrNotExist.
func (c *Container) StatPath(ctx context.Context, path string) (api.PathStat, error) {
	return c.statPath(ctx, path, false)
}
