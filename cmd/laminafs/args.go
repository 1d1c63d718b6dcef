package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/laminafs/lamina/internal/mountopt"
)

const usage = `Usage: laminafs [-f] [-d] [-s] -o OPTION[,OPTION...] [SOURCE] MOUNTPOINT
       laminafs list [--json]

Mount a union of directories: lower ones, read-only, and one upper that takes the changes.

  -o OPTION[,...]   lowerdir=DIR[:DIR...]   read-only layers, the topmost first (required)
                    upperdir=DIR            the writable layer; without it the mount is read-only
                    workdir=DIR             a directory on the filesystem of upperdir, for our own use
                    and others: docs/CLI.md
  -f, --foreground  do not go to the background
  -d, --debug       log every request; implies -f
  -s                handle one request at a time
  -V, --version     print the version
  -h, --help        print this

SOURCE is what the mount is called in /proc/mounts. Unmount with umount or fusermount3 -u.
"list" prints the live mounts.
`

// command is the command line.
type command struct {
	args       []string // as given
	foreground bool
	help       bool
	version    bool
	target     string // mount point, as given
	opts       *mountopt.Options
}

// parseArgs reads the command line. Flags and names come in any order, as mount(8)'s helpers are called.
func parseArgs(args []string) (*command, error) {
	cmd := &command{args: args}
	fs := pflag.NewFlagSet("laminafs", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	debug := fs.BoolP("debug", "d", false, "")
	single := fs.BoolP("single-threaded", "s", false, "")
	options := fs.StringArrayP("options", "o", nil, "")
	fs.BoolVarP(&cmd.foreground, "foreground", "f", false, "")
	fs.BoolVarP(&cmd.version, "version", "V", false, "")
	fs.BoolVarP(&cmd.help, "help", "h", false, "")
	if err := fs.Parse(args); err != nil {
		return nil, fmt.Errorf("%w; see laminafs --help", err)
	}
	if cmd.help || cmd.version {
		return cmd, nil
	}
	source := ""
	switch names := fs.Args(); len(names) {
	case 0:
		return nil, errors.New("mountpoint: missing; see laminafs --help")
	case 1:
		cmd.target = names[0]
	case 2:
		source, cmd.target = names[0], names[1]
	default:
		return nil, fmt.Errorf("mountpoint: %d names given, want [SOURCE] MOUNTPOINT; see laminafs --help", len(names))
	}
	if cmd.target == "" {
		return nil, errors.New("mountpoint: empty")
	}
	opts, err := mountopt.Parse(*options...)
	if err != nil {
		return nil, err
	}
	cmd.opts = opts
	if opts.Mount.FSName == "" {
		opts.Mount.FSName = source
	}
	opts.Union.SingleThreaded = opts.Union.SingleThreaded || *single
	opts.Mount.SingleThreaded = opts.Union.SingleThreaded
	opts.Debug = opts.Debug || *debug
	cmd.foreground = cmd.foreground || opts.Debug
	return cmd, nil
}

// absolute is path as it can be used from anywhere. One that cannot be resolved is left as it is: it is opened from
// where it was given, and only shown.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// optionList is all options as one string.
func (cmd *command) optionList() string { return strings.Join(cmd.opts.List, ",") }
