// Lamina runs containers from layered images, without privilege: see docs/LAMINA.md.
//
// A call by an ordinary user goes through two processes: the one that was called, and itself executed again in a user
// namespace in which the caller's range of ids is mapped (package idmap). From there all code is root's. Only run tries
// without. The processes of containers are this program too, in roles that os.Args[0] names.
package main

import (
	"os"

	"github.com/laminafs/lamina/internal/heap"
	"github.com/laminafs/lamina/internal/sysmon"
)

func main() {
	takeRole()
	if code, done := enterForCompletion(); done {
		os.Exit(code)
	}
	os.Exit(run())
}

// run is one command. It returns the exit status.
func run() int {
	sysmon.Watch(nil, nil)
	heap.Begin(16<<20, 100)
	a := newApp()
	a.beginEarly(os.Args[1:])
	err := rootCommand(a).Execute()
	if err == nil {
		err = a.out.failed()
	}
	return report(a.err, err)
}
