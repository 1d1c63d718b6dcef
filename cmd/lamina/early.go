package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/idmap"
)

// beginEarly begins what takes time in each `lamina run` before the command line is understood: for an ordinary user the process
// in a user namespace, and in there, and for root, the monitor. What it does not recognise at a glance is left to the command
// itself, which does the same later.
func (a *app) beginEarly(args []string) {
	switch {
	case !a.glance(args):
	case os.Geteuid() != 0:
		a.begun = idmap.Begin(os.Args[0])
	default:
		a.expect()
	}
}

// expect starts the monitor. One that nobody needs in the end goes with this process.
func (a *app) expect() {
	root, err := a.rootDir()
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(root, "containers")); err != nil {
		return // a store is not made for a command that may be wrong
	}
	a.expected = container.Expect(root, container.Options{RunDir: a.runDir})
}

// glance takes the global flags, and tells whether `run` or `container run` follows, and nothing else precedes it.
func (a *app) glance(args []string) bool {
	takes := map[string]*string{"--root": &a.root, "--runroot": &a.runDir}
	for len(args) > 0 {
		name, value, has := strings.Cut(args[0], "=")
		to := takes[name]
		switch {
		case args[0] == "run" || args[0] == "container" && len(args) > 1 && args[1] == "run":
			return true
		case to != nil && has:
			*to, args = value, args[1:]
		case to != nil && len(args) > 1:
			*to, args = args[1], args[2:]
		default:
			return false
		}
	}
	return false
}
