// Package idmap finds out which ids the caller may use, and brings the process into a user namespace of its own in
// which they are mapped.
//
// There are three kinds of identity, best first:
//
//   - Root: the caller is user 0 already, of the machine or of a user namespace. Nothing has to be done.
//   - SubIDs: user and group 0 are the caller, 1 and up are his ranges of /etc/subuid and /etc/subgid (subuid(5)).
//     The set-id programs newuidmap(1) and newgidmap(1) write such a map.
//   - Single: only 0 is mapped, to the caller himself. Everyone may make that, wherever user namespaces are on.
//     Files of other owners cannot exist then; who stores them records the owners in extended attributes.
//
// After [Identity.Reexec] or [Identity.StartProgram] all code is root of its namespace, and [Inside] says who the caller really is.
package idmap
