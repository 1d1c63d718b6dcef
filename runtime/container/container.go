package container

import (
	"context"
	"errors"
	"io"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var errUnbuilt = errors.New("not in this build")

// MonitorArg0 is os.Args[0] of a monitor: main calls MonitorMain for it, before anything else.
const MonitorArg0 = "lamina-monitor"

// MonitorMain is the monitor. It does not return.
func MonitorMain() {}

// Container is one container. What it says is as on disk when it was got; methods that act look again.
type Container struct {
	s *Store
	r *record
}

// ID is the full ID, 64 hexadecimal digits.
func (c *Container) ID() string { return c.r.ID }

// Name is the name, without a slash.
func (c *Container) Name() string { return c.r.Name }

// ImageID is "sha256:..." of its image, empty for one made with --rootfs.
func (c *Container) ImageID() string { return c.r.ImageID }

// Created is when it was created.
func (c *Container) Created() time.Time { return c.r.Created }

// Config is its configuration, the image's merged in. It is not to be changed.
func (c *Container) Config() *api.Config { return c.r.Config }

// HostConfig is how it runs on this machine. It is not to be changed.
func (c *Container) HostConfig() *api.HostConfig { return c.r.HostConfig }

// State is what it does now, as docker inspect shows it.
func (c *Container) State() (*api.State, error) { return nil, errUnbuilt }

// Inspect is docker inspect; with size SizeRw and SizeRootFs (bytes) are counted.
func (c *Container) Inspect(ctx context.Context, size bool) (*api.InspectResponse, error) {
	return nil, errUnbuilt
}

// Ports are the published ports: those of the running container, or as they were asked for when it does not run (then
// a host port may be empty).
func (c *Container) Ports() (network.PortMap, error) { return nil, errUnbuilt }

// CreateOptions are what a container is made of.
type CreateOptions struct {
	// Name, without a slash; empty for a random one like "brave_lovelace".
	Name string

	// Config as Docker's client fills it from flags; what is empty comes from the image. Config.Image names the image,
	// which is in the store; empty with Rootfs. AttachStdin/out/err, OpenStdin, StdinOnce and Tty as docker run sets them.
	Config *api.Config

	// HostConfig as Docker's client fills it from flags. NetworkMode is "host", "none", "private" or "" (private where
	// that is possible, otherwise none with a warning). UsernsMode is "" or "host" (none of its own), "private" (one of
	// its own, see UIDMap), "keep-id" (the caller's own IDs are seen as they are outside).
	HostConfig *api.HostConfig

	// Rootfs are directories to use instead of an image, the topmost first; "/" is possible. They are never written to.
	Rootfs []string

	// UIDMap and GIDMap are --uidmap and --gidmap: a user namespace of its own with these IDs. Only one of them given
	// stands for both. HostID counts in the namespace of the caller.
	UIDMap, GIDMap []specs.LinuxIDMapping
}

// Create makes a container, which does not run yet. The warnings are for the user.
//
// Errors: ErrConflict for a name in use, ErrInvalid for options that contradict each other or that cannot be had here
// (the message says why); nothing is left behind.
func (s *Store) Create(ctx context.Context, o CreateOptions) (c *Container, warnings []string, err error) {
	return nil, nil, errUnbuilt
}

// Streams is what is attached. A nil field is not attached.
type Streams struct {
	Stdin  io.Reader // read to its end, which is passed on
	Stdout io.Writer
	Stderr io.Writer // with a terminal all output goes to Stdout

	// DetachKeys are the bytes that detach when they are read from Stdin, for a container with a terminal: ParseKeys of
	// docker's --detach-keys. Empty for "ctrl-p,ctrl-q". They are not passed on.
	DetachKeys []byte
}

// ParseKeys reads docker's notation of detach keys: "ctrl-p,ctrl-q", "a,b", "ctrl-\\". Empty is the default.
func ParseKeys(keys string) ([]byte, error) { return nil, errUnbuilt }

// StartOptions say how a container is started.
type StartOptions struct {
	// Streams are attached from the first byte on; nil for a start in the background (-d).
	Streams *Streams

	// Foreground ends the container, by SIGKILL, when the calling process goes without Detach.
	Foreground bool

	// ConsoleSize is height and width in characters, for a container with a terminal; zero leaves it to be set.
	ConsoleSize [2]uint
}

// Start runs the container and returns when its command is executed. The session is that of the attached streams; it
// is to be waited for. Without Streams and Foreground it is nil.
//
// Errors: *ExitError with 125, 126 or 127; ErrConflict when it is paused. One that runs already is no error: its
// streams are attached.
func (c *Container) Start(ctx context.Context, o StartOptions) (*Session, error) {
	return nil, errUnbuilt
}

// Attach attaches to a running container. Errors: ErrNotRunning; ErrConflict for a paused one.
func (c *Container) Attach(ctx context.Context, o Streams) (*Session, error) { return nil, errUnbuilt }

// A Session is what a caller has open to a container's command, or to an exec in it.
type Session struct{}

// ErrDetached is returned by Session.Wait when the detach keys were read, or Detach was called.
var ErrDetached = errors.New("read escape sequence")

// Wait copies what goes in and out until the command has ended and all its output is written, and returns its exit
// status: 128+n when signal n ended it. Also ErrDetached.
func (s *Session) Wait(ctx context.Context) (exitCode int, err error) { return 0, errUnbuilt }

// Resize sets the size of the terminal in characters. Without a terminal it does nothing.
func (s *Session) Resize(height, width uint) error { return errUnbuilt }

// Signal sends the command a signal: sig-proxy. Errors: ErrNotRunning when it has ended.
func (s *Session) Signal(sig int) error { return errUnbuilt }

// Detach lets the container go on without us. Wait returns ErrDetached.
func (s *Session) Detach() error { return errUnbuilt }

// ExecOptions are those of docker exec. Cmd, Env, User, WorkingDir, Tty, Privileged and ConsoleSize of Docker's type
// count; Streams say what is attached.
type ExecOptions struct {
	api.ExecCreateRequest

	// Streams are attached; nil for -d.
	Streams *Streams
}

// Exec runs a further command in the running container. The session is nil without Streams.
//
// Errors: ErrNotRunning; ErrConflict for a paused container; *ExitError with 126 or 127.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Session, error) { return nil, errUnbuilt }

// StopOptions are those of docker stop and restart.
type StopOptions struct {
	Signal  string // default: the container's stop signal, SIGTERM
	Timeout *int   // seconds until SIGKILL; -1 for never. Default: the container's, 10
}

// Stop ends the container and returns when it has ended. One that does not run is no error.
func (c *Container) Stop(ctx context.Context, o StopOptions) error { return errUnbuilt }

// Restart stops the container if it runs and starts it in the background.
func (c *Container) Restart(ctx context.Context, o StopOptions) error { return errUnbuilt }

// Kill sends PID 1 a signal: "KILL", "SIGUSR1", "10"; empty is SIGKILL. Errors: ErrNotRunning.
func (c *Container) Kill(ctx context.Context, signal string) error { return errUnbuilt }

// Pause freezes all processes. Errors: ErrNotRunning; ErrConflict when it is paused.
func (c *Container) Pause(ctx context.Context) error { return errUnbuilt }

// Unpause lets them go on. Errors: ErrConflict when it is not paused.
func (c *Container) Unpause(ctx context.Context) error { return errUnbuilt }

// Wait returns the exit status when the condition holds: api.WaitConditionNotRunning (at once, if it does not run),
// WaitConditionNextExit, WaitConditionRemoved.
func (c *Container) Wait(ctx context.Context, condition api.WaitCondition) (exitCode int, err error) {
	return 0, errUnbuilt
}

// Resize sets the size of the container's terminal in characters.
func (c *Container) Resize(ctx context.Context, height, width uint) error { return errUnbuilt }

// RemoveOptions are those of docker rm.
type RemoveOptions struct {
	Force   bool // kill it first if it runs
	Volumes bool // remove its anonymous volumes too
}

// Remove removes the container and its layer. Errors: ErrConflict when it runs and Force is not set.
func (c *Container) Remove(ctx context.Context, o RemoveOptions) error { return errUnbuilt }

// Rename gives the container another name. Errors: ErrConflict, ErrInvalid.
func (c *Container) Rename(ctx context.Context, name string) error { return errUnbuilt }

// Update changes limits and restart policy, also of the running container; zero fields are left as they are.
func (c *Container) Update(ctx context.Context, u api.UpdateConfig) (warnings []string, err error) {
	return nil, errUnbuilt
}

// LogsOptions are those of docker logs.
type LogsOptions struct {
	Stdout, Stderr io.Writer // nil leaves the stream out; with a terminal all is on Stdout
	Follow         bool      // go on until the container has ended
	Tail           int       // the last n lines; negative is all
	Since, Until   time.Time // zero is no bound
	Timestamps     bool      // RFC 3339 with nanoseconds before each line
	Details        bool      // extra attributes of each line
}

// Logs writes what the container wrote.
func (c *Container) Logs(ctx context.Context, o LogsOptions) error { return errUnbuilt }

// Diff is what the container changed, by path. It works on the upper layer alone.
func (c *Container) Diff(ctx context.Context) ([]api.FilesystemChange, error) { return nil, errUnbuilt }

// CommitOptions are those of docker commit.
type CommitOptions struct {
	Reference string   // name[:tag] for the image; empty for none
	Author    string   // "Name <mail>"
	Message   string   // the history's comment
	Changes   []string // Dockerfile instructions: CMD ENTRYPOINT ENV EXPOSE LABEL ONBUILD USER VOLUME WORKDIR
	NoPause   bool     // do not freeze a running container meanwhile
}

// Commit makes an image of the container and returns its ID, "sha256:...".
func (c *Container) Commit(ctx context.Context, o CommitOptions) (imageID string, err error) {
	return "", errUnbuilt
}

// Export writes the merged tree as a tar, as docker export: volumes are not part of it.
func (c *Container) Export(ctx context.Context, w io.Writer) error { return errUnbuilt }

// CopyOptions are those of docker cp.
type CopyOptions struct {
	FollowLink bool // -L: a source that is a symbolic link stands for its target
	Archive    bool // -a: keep owners
}

// CopyOut copies src of the container to dst on the machine, with docker cp's rules for what is a directory and what a
// trailing slash or "/." means. With dst "-" it writes a tar to stdout. n is bytes of content.
func (c *Container) CopyOut(ctx context.Context, src, dst string, stdout io.Writer, o CopyOptions) (n int64, err error) {
	return 0, errUnbuilt
}

// CopyIn copies src on the machine to dst in the container, whether it runs or not. With src "-" it reads a tar from
// stdin, and dst is a directory. Symbolic links are resolved within the container's root.
func (c *Container) CopyIn(ctx context.Context, src, dst string, stdin io.Reader, o CopyOptions) (n int64, err error) {
	return 0, errUnbuilt
}

// Top lists the container's processes; psArgs as for ps(1), default "-ef". Errors: ErrNotRunning.
func (c *Container) Top(ctx context.Context, psArgs []string) (*api.TopResponse, error) {
	return nil, errUnbuilt
}

// Stats is one sample. Two of them, apart, give a rate: PreCPUStats is that of the sample before on the same monitor.
// A container that does not run has all zeros.
func (c *Container) Stats(ctx context.Context) (*api.StatsResponse, error) { return nil, errUnbuilt }
