package main

import (
	"os"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/sandbox"
)

// takeRole becomes what os.Args[0] names, and does not return then: a container's monitor, its first process, or the
// first process of an exec.
func takeRole() {
	if os.Args[0] == container.MonitorArg0 {
		container.MonitorMain()
	}
	sandbox.Main()
}
