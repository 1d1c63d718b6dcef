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
// # The way of a request
//
//	kernel -> carrier -> dispatcher -> requests -> filesystem
//
// A [carrier] reads a message and writes the answer: there are several, and Options.Transport chooses. It does not know
// what is in a message. A [worker] of the [dispatcher] decodes the message, calls the filesystem, and leaves the answer
// where the carrier wants it. [requests] stands before the filesystem, counts, and turns strangers away: whatever the
// carrier, each request passes it. The carrier that is go-fuse's own server has a dispatcher of its own. docs/TRANSPORT.md
// tells of all of them.
//
// What a carrier owes to the rest:
//
//   - INIT is the first request, and answered before newCarrier returns;
//   - a worker is used by one goroutine at a time, and dropped at the end;
//   - while a request is handled that may take long, somebody reads the device: INTERRUPT comes there;
//   - when the connection is found dead, requests.gone is called and dispatcher.interruptAll;
//   - when the last request is answered, the filesystem's OnUnmount is called, once, and then the descriptor is closed.
//
// Sources: linux/Documentation/filesystems/fuse/fuse.rst; include/uapi/linux/fuse.h; mount(2); fusermount3(1); libfuse
// lib/mount.c for the protocol of fusermount3.
package transport
