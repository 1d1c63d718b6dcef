// Laminafs mounts a union of directories: see docs/CLI.md.
//
// # Who does what
//
// A mount belongs to the mount namespace in which it was made, and keeps nothing alive but itself. A server that lives
// in that namespace keeps it, and with it the mount, for ever. So two processes take part: the mounter, which is in the
// caller's namespace and short-lived, and the server, which need not be.
//
//	mounter                             server
//	                              <--   layers       they are open and checked
//	mount(2) or fusermount3
//	mounted{/dev/fuse}            -->
//	                              <--   ready        INIT is answered
//	statfs(2) on the mount answers
//	exit                                serve until it is unmounted
//
// In the background the first process is the mounter and its child the server. In the foreground, where the first
// process is to be the server, it does both, or, where it has to leave the namespace, starts a mounter and executes
// itself again. The monitor of a container (runtime/container/union.go) is a mounter too: it starts its server, a guest,
// before it knows what that is to serve, mounts before it is told of the layers, lives on, and is told when nothing is
// written to them any more.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/laminafs/lamina/internal/livemount"
	"github.com/laminafs/lamina/internal/sysmon"
	"github.com/laminafs/lamina/internal/version"
)

const (
	exitOK    = 0
	exitError = 1
)

func main() {
	sysmon.Watch(nil, nil) // also while no mount is served, which has a watch of its own
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "list" {
		return finish(stderr, list(args[1:], stdout))
	}
	role, err := takeRole()
	if err == nil && role.kind == roleGuest {
		if args, err = commandLine(role.sock); errors.Is(err, errGone) {
			return exitError // nobody wants us any more
		}
	}
	if err != nil {
		return finish(stderr, err)
	}
	cmd, err := parseArgs(args)
	if err != nil {
		return finish(stderr, err)
	}
	switch {
	case cmd.help:
		_, err = io.WriteString(stdout, usage)
		return finish(stderr, err)
	case cmd.version:
		_, err = fmt.Fprintln(stdout, versionLine())
		return finish(stderr, err)
	}
	switch role.kind {
	case roleGuest:
		role.target = cmd.target
		return finish(stderr, serveRole(cmd, role))
	case roleServer:
		return finish(stderr, serveRole(cmd, role))
	case roleMounter:
		return finish(stderr, mountRole(cmd, role))
	}
	for _, w := range cmd.opts.Warnings {
		fmt.Fprintf(stderr, "laminafs: %s\n", w)
	}
	if cmd.foreground {
		return finish(stderr, foreground(cmd))
	}
	return finish(stderr, background(cmd))
}

// finish says what went wrong, in one line, and gives the exit status.
func finish(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "laminafs: %s\n", oneLine(err))
	return exitError
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", `\n`)
}

// versionLine tells which laminafs this is.
func versionLine() string {
	return fmt.Sprintf("laminafs %s %s %s/%s", version.Module(), goruntime.Version(), goruntime.GOOS, goruntime.GOARCH)
}

// list prints the live mounts.
func list(args []string, stdout io.Writer) error {
	asJSON := false
	for _, a := range args {
		if a != "--json" {
			return fmt.Errorf("list: unknown argument %q: want --json", a)
		}
		asJSON = true
	}
	mounts, err := livemount.List(livemount.Bases())
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if asJSON {
		if mounts == nil {
			mounts = []livemount.Info{}
		}
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(mounts)
	}
	for _, m := range mounts {
		if _, err := fmt.Fprintf(stdout, "%s si_%s pid %d\n", livemount.Escape(m.Mountpoint), m.ID, m.PID); err != nil {
			return err
		}
		for i, b := range m.Branches {
			if _, err := fmt.Fprintf(stdout, "  br%d %s\n", i, b); err != nil {
				return err
			}
		}
	}
	return nil
}
