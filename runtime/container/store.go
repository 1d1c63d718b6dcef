package container

import (
	"context"

	api "github.com/moby/moby/api/types/container"
)

// Options are those of a Store. The zero value is the default.
type Options struct {
	// RunDir is where the monitors' sockets are. Default: $XDG_RUNTIME_DIR/lamina for an ordinary user, /run/lamina for
	// root, <root>/run where neither can be made. A path over 80 bytes does not fit a socket's address and is an error.
	RunDir string

	// Laminafs is the program that mounts the layers. Default: the one beside our own executable, then that in $PATH.
	Laminafs string

	// Executable is what monitors are started from, with MonitorArg0 as os.Args[0]. Default: /proc/self/exe.
	Executable string
}

// Store is the containers of one root. Any number of processes may have it open at once.
type Store struct {
	root string
	o    Options
}

// Open opens the containers under root, "/var/lib/lamina" for example, and cleans up what died monitors and killed
// commands have left: a container whose monitor is gone is marked as exited (137), one with --rm is removed.
//
// Preconditions: euid 0, of the machine or of a user namespace of ours (idmap.Reexec). An ordinary user's command has
// called ReapOutside before.
func Open(root string, o Options) (*Store, error) {
	return &Store{root: root, o: o}, nil
}

// ReapOutside kills what died monitors under root have left running. It is called by an ordinary user's command while
// that is still in the first user namespace: only there it has power over all processes of the user's containers.
// Root's commands need not call it. A root that does not exist is no error.
func ReapOutside(root string) error { return nil }

// Get returns the container with that name, full ID, or prefix of an ID that no other one has.
//
// Errors: ErrNotFound, ErrAmbiguous.
func (s *Store) Get(nameOrID string) (*Container, error) { return nil, errUnbuilt }

// Containers returns all containers, the newest first.
func (s *Store) Containers() ([]*Container, error) { return nil, errUnbuilt }

// ListOptions say which containers List returns, as those of docker ps.
type ListOptions struct {
	All  bool // also those that do not run; implied by Last and by filters on status
	Last int  // the newest n, whatever their state; 0 is all
	Size bool // fill SizeRw (bytes in the upper layer) and SizeRootFs (bytes of all layers)

	// Filters has values by key; a container must match one value of every key. Keys, as docker ps has them: id, name
	// (a regular expression), label (key or key=value), exited (exit code), status, ancestor (image name or ID, also of
	// an image it was built from), before, since (a container), volume (name or destination), network (mode), publish,
	// expose (port[/proto], or a range), health (none).
	Filters map[string][]string
}

// List returns what docker ps shows, the newest first. Ports, Status ("Up 2 minutes") and Command are filled in.
//
// Errors: ErrInvalid for an unknown filter.
func (s *Store) List(ctx context.Context, o ListOptions) ([]api.Summary, error) {
	return nil, errUnbuilt
}

// Prune removes all containers that do not run and match the filters: label, label!, until (a time or a duration back).
// SpaceReclaimed is in bytes.
func (s *Store) Prune(ctx context.Context, filters map[string][]string) (api.PruneReport, error) {
	return api.PruneReport{}, errUnbuilt
}

// ImageUsers returns the containers that were made from the image with that ID ("sha256:..."), for rmi, which refuses.
func (s *Store) ImageUsers(imageID string) ([]*Container, error) { return nil, errUnbuilt }

// VolumeUsers returns the containers that have that volume mounted, for volume rm, which refuses.
func (s *Store) VolumeUsers(volume string) ([]*Container, error) { return nil, errUnbuilt }
