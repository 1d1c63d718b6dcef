package unionfs

import "github.com/hanwen/go-fuse/v2/fuse"

// File locks are the kernel's own business: all who use the mount go through it, and locks need no server. It is
// not told that we could do them, so these are never called.

func (fs *FS) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }
func (fs *FS) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status              { return fuse.ENOSYS }
func (fs *FS) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status             { return fuse.ENOSYS }
