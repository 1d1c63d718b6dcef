// Package interop moves layers between union filesystems: what one wrote into an upper, another must read, go on
// with, and hand back. The filesystems are ours, the kernel's and fuse-overlayfs, which containers/storage uses.
//
// The truth is the plain directory: the lowers copied over each other, and the same commands run there.
package interop
