// Package transport is what lies between the kernel and a union: mounting, the /dev/fuse descriptor, the loop that
// reads requests from it, and unmounting. The filesystem behind it is any fuse.RawFileSystem and knows none of this.
//
//	m, err := transport.New(target, transport.Options{})   // mounted, but nobody answers yet
//	s, err := m.Serve(fs, logger, false, func() {})        // it answers
//	<-s.Done()                                             // unmounted, by anyone
//
// A mount lives in the mount namespace of the process that made it. The process that serves need not be in it: the
// descriptor may be sent to another one, and must be where that namespace is to end with its last program.
//
// Sources: linux/Documentation/filesystems/fuse/fuse.rst; mount(2); fusermount3(1); libfuse lib/mount.c for the
// protocol of fusermount3.
package transport
