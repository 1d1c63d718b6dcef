// Package fault lets a test make a step of the program fail, or kill the program right after it.
//
// A step is a point, declared once as a package-level variable and hit where the step is done:
//
//	var afterData = fault.New("copyup.data")
//
//	if err := afterData.Hit(); err != nil { ... }
//
// Without the build tag faults a hit is nothing: it is inlined away. With the tag, the environment variable
// LAMINA_FAULT, or the file that LAMINA_FAULT_FILE names, arms points:
//
//	copyup.data=ENOSPC               every hit returns the errno
//	copyup.data#3=kill               the third hit since arming is the process's last: SIGKILL, nothing is cleaned up
//	copyup.data=EIO,copyup.mode=kill several, by commas or white space
//	copyup.data#2=wait               the second hit waits until the file says something else, which then holds for it
//
// What waits says so by a file of the same name with ".waiting" at the end.
//
// The file is read again at every hit, so that a test can arm a server that already runs; new content starts
// counting anew, a missing file arms nothing.
package fault

import (
	"slices"
	"sync"
)

// P is one point.
type P struct{ name string }

// Name is what the point is armed by.
func (p P) Name() string { return p.name }

var (
	mu    sync.Mutex
	names []string // guarded by mu; grows while packages are initialised only
)

// New declares a point. A name is declared once.
func New(name string) P {
	mu.Lock()
	defer mu.Unlock()
	if slices.Contains(names, name) {
		panic("fault: point " + name + " is declared twice")
	}
	names = append(names, name)
	return P{name}
}

// List returns the names of all points of the program, sorted, so that a test can try each of them.
func List() []string {
	mu.Lock()
	defer mu.Unlock()
	return slices.Sorted(slices.Values(names))
}
