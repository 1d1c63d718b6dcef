package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/pflag"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/idmap"
	"github.com/laminafs/lamina/runtime/image"
	"github.com/laminafs/lamina/runtime/volume"
)

// app is one invocation: the global flags, the streams, and the store, which is opened when a command asks for it.
type app struct {
	in, err *os.File
	out     *output

	root   string // --root; empty for the default
	runDir string // --runroot; empty for the default
	debug  bool

	expected *container.Expected // by beginEarly; nil without
	trying   bool                // enter has left open where the command happens, and nothing has come of it yet
	held     []string            // warnings, while trying

	containers func() (*container.Store, error)
}

func newApp() *app {
	a := &app{in: os.Stdin, out: &output{File: os.Stdout}, err: os.Stderr}
	a.containers = sync.OnceValues(a.openContainers)
	return a
}

func (a *app) addGlobalFlags(set *pflag.FlagSet) {
	set.StringVar(&a.root, "root", "", "Root of images, containers and volumes (default \"/var/lib/lamina\", \"$XDG_DATA_HOME/lamina\" for ordinary users)")
	set.StringVar(&a.runDir, "runroot", "", "Directory of the sockets of running containers (default \"/run/lamina\", \"$XDG_RUNTIME_DIR/lamina\" for ordinary users)")
	set.BoolVarP(&a.debug, "debug", "D", false, "Enable debug mode")
}

// rootDir is where everything is kept, an absolute path.
func (a *app) rootDir() (string, error) {
	dir := a.root
	switch {
	case dir != "":
	case rootless():
		data := os.Getenv("XDG_DATA_HOME")
		if data == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("where is the store: %w, nor is $XDG_DATA_HOME", err)
			}
			data = filepath.Join(home, ".local", "share")
		}
		dir = filepath.Join(data, "lamina")
	default:
		dir = "/var/lib/lamina"
	}
	return filepath.Abs(dir)
}

// rootless tells whether an ordinary user called us.
func rootless() bool {
	return os.Geteuid() != 0 || idmap.Inside().Kind != idmap.Root
}

func (a *app) openContainers() (*container.Store, error) {
	root, err := a.rootDir()
	if err != nil {
		return nil, err
	}
	slog.Debug("open the store", "root", root, "rootless", rootless())
	return container.Open(root, container.Options{RunDir: a.runDir, Expected: a.expected, Damaged: a.damaged})
}

// damaged tells of a container or an image that no list has.
func (a *app) damaged(err error) { a.warn([]string{oneLine(err)}) }

// The stores of images and volumes are those that the containers use.

func (a *app) images() (*image.Store, error) {
	s, err := a.containers()
	if err != nil {
		return nil, err
	}
	return s.Images(), nil
}

func (a *app) volumes() (*volume.Store, error) {
	s, err := a.containers()
	if err != nil {
		return nil, err
	}
	return s.Volumes(), nil
}

// warn shows what the user should know.
func (a *app) warn(warnings []string) {
	if a.trying {
		a.held = append(a.held, warnings...)
		return
	}
	for _, w := range warnings {
		fmt.Fprintln(a.err, "WARNING: "+w)
	}
}

func (a *app) println(args ...any) { fmt.Fprintln(a.out, args...) }
