// Package containers runs podman and buildah with laminafs as the mount program of their storage, rootless and as
// root: images are imported, built, saved and loaded, containers run, changed, committed and removed.
//
// The truth is the vfs driver of containers/storage, which has no union: each layer is a copy of the one below. Where
// a store is moved from one mount program to another, it is what the other one, fuse-overlayfs, shows of the store.
package containers
