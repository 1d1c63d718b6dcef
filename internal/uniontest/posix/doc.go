// Package posix is a conformance suite: what the man pages promise of a Linux filesystem, one case a clause.
//
// A [Case] is named after the page and the clause that it holds to ("rename(2): EINVAL when new is inside old"),
// says what it wants to find in its directory as a [Tree], and does the rest in a function of a [T]. The tree is
// data, not code, because where an object comes from matters on a union: [Lay] makes it in a lower layer, before the
// mount, or [RunAt] through the mount itself, and the case must hold either way.
//
// A case has a directory of its own, fresh and empty but for its tree, and may be run any number of times in fresh
// directories. What a system is known to do otherwise is listed in [Known], with the reason; a listed case must fail.
package posix
