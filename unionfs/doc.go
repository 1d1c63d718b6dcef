// Package unionfs is the merged tree: read-only lower layers and a writable upper, shown as one filesystem through
// the raw FUSE protocol.
//
// # Model
//
// A [layer] is a directory opened before the mount; layer 0 is the upper, 1 and on are the lowers from the top. A
// [dir] is one directory in one layer. A [node] is what a nodeid of the kernel stands for: one object of the merged
// tree, whatever its names and wherever its content is by now. A node of type directory has an upper dir, lower
// dirs, or both; any other node has its content in the upper or in one lower, or, once it has no name any more, in
// an open file.
//
// The [index] of a directory holds every name in it and is filled once, from all layers, when first needed; of a
// large directory only the names that were looked up, until more are needed (probe.go). From then on it is the truth: every change to the upper goes through this process, and lower layers do not change. So
// lookups, negative ones too, and listings take no system call, and their price does not depend on the number of
// layers.
//
// The kernel is told to keep what it learns for ever, and to open files and directories without asking. So IO
// arrives by nodeid, and what is open is not known here: a node that loses its last name keeps its content until
// the kernel forgets it.
//
// # Changes
//
// Whatever a change needs in the upper is prepared first where it shows nothing: copies in the work directory,
// marks beside the names they do not affect yet. Then one rename, link, unlink or mknod makes the change, and what
// has become superfluous is cleared away. A crash at any point leaves a name old or new (see rename.go, unlink.go).
//
// Copy-up is done before directories are locked, so a long one delays nobody but those who want that object.
//
// # Lock order, outermost first
//
//	node.upMu            one copy-up of a node at a time; child before parent (copyup.go)
//	  dirState.mu        several: all at once, by ascending nodeid (lockDirs)
//	    node.loc         where the content is; several: by ascending nodeid, all at once (lockNodes)
//	      hardlinks.mu   which node stands for an object with several names
//	        overrideLocks, nodeTable.mu, fdTable.mu, attrTable, reaper.mu   leaves
//
// No lock that is shared by unrelated files is held over a system call on a layer.
//
// # Never true
//
//   - a lower layer is written to;
//   - a node that has an upper goes back to its lower, but for a copy that only a change wanted which failed (undo.go);
//   - a nodeid changes the object it stands for while the kernel knows it.
package unionfs
