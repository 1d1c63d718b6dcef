package transport

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// gofuse is the transport that go-fuse brings along: a goroutine for each reader of the device, and as many readers as
// there are requests.
type gofuse struct {
	srv *fuse.Server
	fd  int
}

// newGofuse takes fd over and answers INIT.
func newGofuse(fd int, fs fuse.RawFileSystem, opts *fuse.MountOptions) (*gofuse, error) {
	srv, err := fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", fd), opts)
	if err != nil {
		return nil, err
	}
	return &gofuse{srv: srv, fd: fd}, nil
}

func (g *gofuse) serve() { g.srv.Serve() }

func (g *gofuse) lost() {} // its readers find out by themselves

func (g *gofuse) info() Info {
	return Info{Transport: "gofuse", Minor: g.srv.KernelSettings().Minor, Offered: g.srv.KernelSettings().Flags64()}
}

func (g *gofuse) blocking() {} // somebody else reads already

func (g *gofuse) invalInode(nodeid uint64, off, length int64) fuse.Status {
	return g.srv.InodeNotify(nodeid, off, length)
}

func (g *gofuse) invalEntry(parent uint64, name string) fuse.Status {
	return g.srv.EntryNotify(parent, name)
}

func (g *gofuse) delete(parent, child uint64, name string) fuse.Status {
	return g.srv.DeleteNotify(parent, child, name)
}

func (g *gofuse) store(nodeid uint64, off int64, data []byte) fuse.Status {
	return g.srv.InodeNotifyStoreCache(nodeid, off, data)
}
