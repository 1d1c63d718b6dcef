// Package nofile remembers the limit of open files that the process was started with.
//
// Package syscall raises the soft limit to the hard one when it is initialised, and puts it back in the processes
// that it starts itself. Who starts processes in another way has to do the same: a program that loops over all
// descriptors, or uses select(2), is not served by a soft limit of a million.
//
// It works because packages are initialised in the order of their import paths as soon as all that they import is
// (Go specification, "Program initialization"): this one imports nothing, not even syscall, and so comes first.
// That is why the system call is made here, in assembly; on an architecture without it nothing is remembered.
package nofile

// A Limit is a soft and a hard limit, in descriptors.
type Limit struct{ Cur, Max uint64 }

// original is read before package syscall changes it. ok is false when it cannot be read.
var original, ok = read()

// rlimitNofile is RLIMIT_NOFILE (asm-generic/resource.h).
const rlimitNofile = 7

func read() (Limit, bool) {
	var r [2]uint64
	errno := getrlimit(rlimitNofile, &r)
	return Limit{r[0], r[1]}, errno == 0
}

// ForChildren returns the RLIMIT_NOFILE that a child should have: the process's own from its start. set is false
// when the child should inherit what there is: the limit was changed on purpose since then.
func ForChildren() (l Limit, set bool) {
	now, readable := read()
	// One less than the hard limit is how package syscall tells its own change from others' (syscall/rlimit.go).
	if !ok || !readable || now.Max != original.Max || now.Cur != now.Max-1 {
		return now, false
	}
	return original, true
}
