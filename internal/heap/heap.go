// Package heap puts off the first garbage collection of a process.
//
// The runtime of Go begins to collect at 4 MiB, which a program with many packages reaches while it starts: it pays for
// threads, and for looking at what it is about to keep. Most processes of a container's start end, or fall asleep, well
// before they have as much as the first collection is put off to.
package heap

import (
	"os"
	goruntime "runtime"
	"runtime/debug"
)

// minimum is the heap at which the runtime collects first with GOGC=100, in bytes: heapMinimum of runtime/mgcpacer.go.
const minimum = 4 << 20

// Begin lets the first collection begin at a heap of about first bytes, and the following ones when the heap has grown
// by percent. GOGC in the environment overrules both.
func Begin(first, percent int) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(first / (minimum / 100))
	type object struct{ _ *object } // with a pointer: one without may share its memory
	goruntime.AddCleanup(new(object), func(percent int) { debug.SetGCPercent(percent) }, percent)
}
