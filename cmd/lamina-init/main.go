// Lamina-init is what containers begin with: lamina's own roles in a container, and nothing besides, since it is
// executed at every start. Lamina runs it where it is beside its own executable, and takes its own place otherwise.
package main

import (
	"fmt"
	"os"

	"github.com/laminafs/lamina/runtime/sandbox"
)

func main() {
	sandbox.Main()
	fmt.Fprintln(os.Stderr, "lamina-init: it is run by lamina")
	os.Exit(125)
}
