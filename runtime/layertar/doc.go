// Package layertar moves one layer of an image between its two forms: the tar that registries and archives carry, and
// the directory that a union is mounted from.
//
//	Apply    tar -> an empty directory
//	Pack     the upper directory of a union -> tar
//	Changes  what an upper directory adds, changes and deletes
//
// # What a layer's directory looks like
//
// It is the tar, entry by entry: whiteouts stay the plain files .wh.NAME and .wh..wh..opq that they are in OCI layers.
// What the caller may not make (a device, a file of an owner who is not mapped) is a regular file or directory of the
// caller's, and user.containers.override_stat says what it stands for (package internal/override). The root of a layer
// with such objects bears the attribute too: by that laminafs tells that it must look for it.
//
// # Untrusted input
//
// A tar names things; nothing it names is ever looked up by a joined path. Names are split, "..", NUL and what is too
// deep are refused, and every component is opened from the directory before it with openat2(2): RESOLVE_BENEATH and
// RESOLVE_NO_SYMLINKS. So a link in the middle of a name ends the unpacking, and leads nowhere. Where an entry's name
// is taken, the old object is removed and never opened.
//
// Memory is bounded by the depth of the deepest name, not by the number of entries: the directories on the way to the
// current entry are kept open, and one gets its times (and a mode that would lock its owner out) when it is left.
//
// Sources: OCI image-spec layer.md; pax(1); GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
package layertar
