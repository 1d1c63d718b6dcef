// Command child runs the roles of package sandbox, for tests whose own binary is not static.
package main

import "github.com/laminafs/lamina/runtime/sandbox"

func main() { sandbox.Main() }
