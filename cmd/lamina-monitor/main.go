// Lamina-monitor is the monitor of a container, and what its container begins with where lamina-init is missing: lamina's roles
// behind the command line, without what only that needs, since it is executed at every start and lives as long as the
// container. Lamina runs it where it is beside its own executable, and takes its own place otherwise.
package main

import (
	"fmt"
	"os"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/sandbox"
)

func main() {
	if os.Args[0] == container.MonitorArg0 {
		container.MonitorMain()
	}
	sandbox.Main()
	fmt.Fprintln(os.Stderr, "lamina-monitor: it is run by lamina")
	os.Exit(125)
}
