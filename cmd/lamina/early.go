package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/laminafs/lamina/runtime/container"
)

// beginEarly starts the monitor of each `lamina run` before the command line is understood: it takes longer to begin than all
// else. What it does not recognise at a glance is left to the command itself, which does the same later. A monitor that nobody needs
// in the end goes with this process.
func (a *app) beginEarly(args []string) {
	if !a.glance(args) {
		return
	}
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
