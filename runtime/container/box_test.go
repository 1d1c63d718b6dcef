package container

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// box is a root with the test's image, and the commands on it.
type box struct {
	t       testing.TB
	root    string
	program string   // that plays lamina; default: this one
	env     []string // of the commands, added
}

// limit bounds one command, and what others are waited for: that takes some tenths of a second, and on a busy machine seconds.
const limit = time.Minute

// binDir is where the programs are built that the tests run; TestMain removes it.
var binDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lamina-bin")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
})

// laminafsPath is the program that mounts, built once.
var laminafsPath = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("LAMINA_TEST_LAMINAFS"); p != "" {
		return p, nil
	}
	dir, err := binDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "laminafs")
	out, err := exec.Command("go", "build", "-o", path, "github.com/laminafs/lamina/cmd/laminafs").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// commandPath is the program that plays lamina: this one where it is static. A container has no libraries for it, and it
// is executed there.
var commandPath = sync.OnceValues(func() (string, error) {
	exe, err := os.Executable()
	if err != nil || !dynamic(exe) {
		return exe, err
	}
	dir, err := binDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "container.test")
	cmd := exec.Command("go", "test", "-c", "-o", path, "github.com/laminafs/lamina/runtime/container")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

// dynamic tells whether a program needs libraries.
func dynamic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(".interp") != nil
}

func newBox(t testing.TB) *box {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	if _, err := laminafsPath(); err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, root: filepath.Join(t.TempDir(), "r")}
	file := filepath.Join(t.TempDir(), "busybox.tar")
	busyboxTar(t, file)
	t.Cleanup(b.empty)
	b.must("import", file, "test")
	return b
}

// empty removes all containers, as whoever made them, and finds what is left behind.
func (b *box) empty() {
	for _, c := range b.ps() {
		b.must("rm", c.ID, "-f")
	}
	b.nothingLeft()
	out, err := b.outside("sh", "-c", "rm -rf "+b.root).CombinedOutput()
	if err != nil {
		b.t.Errorf("%v: %s", err, out)
	}
}

// outside is a command with the power over the store's files, which may belong to other IDs.
func (b *box) outside(args ...string) *exec.Cmd {
	if os.Geteuid() != 0 && os.Getenv(envSingle) == "" {
		args = append([]string{"unshare", "--map-auto", "--map-root-user"}, args...)
	}
	return exec.Command(args[0], args[1:]...)
}

// nothingLeft fails for processes of ours that still run: monitors and union mounts of this root.
func (b *box) nothingLeft() {
	b.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		left := b.processes()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Errorf("left running: %q", left)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes are the command lines of what runs for this root.
func (b *box) processes() []string {
	var left []string
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, d := range dirs {
		text, err := os.ReadFile(d)
		line := strings.ReplaceAll(string(text), "\x00", " ")
		if err == nil && strings.Contains(line, b.root) && !strings.Contains(line, ".test ") {
			left = append(left, line)
		}
	}
	return left
}

// command is a lamina command.
func (b *box) command(ctx context.Context, args ...string) *exec.Cmd {
	fs, err := laminafsPath()
	if err != nil {
		b.t.Fatal(err)
	}
	exe := b.program
	if exe == "" {
		if exe, err = commandPath(); err != nil {
			b.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), b.env...)
	cmd.Args = append([]string{commandArg0, b.root, fs}, args...)
	cmd.WaitDelay = limit // for who holds its output when it has ended
	return cmd
}

// try runs a command to its end.
func (b *box) try(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	return b.with("", args...)
}

func (b *box) with(stdin string, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := b.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("%q: %v", args, err)
	}
	if ctx.Err() != nil {
		b.t.Fatalf("%q hangs; it said %q, %q", args, out.String(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that succeeds, and returns its output.
func (b *box) must(args ...string) string {
	b.t.Helper()
	out, errs, code := b.try(args...)
	if code != 0 {
		b.t.Fatalf("%q: exit %d: %s", args, code, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// opt changes what is run.
type opt func(*runArg)

func newRun(cmd []string, opts ...opt) string {
	r := runArg{Create: CreateOptions{
		Config:     &api.Config{Image: "test", Cmd: cmd},
		HostConfig: &api.HostConfig{NetworkMode: "none"},
	}}
	for _, o := range opts {
		o(&r)
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // a test's own configuration
	}
	return string(text)
}

func name(n string) opt { return func(r *runArg) { r.Create.Name = n } }
func detach(r *runArg)  { r.Detach = true }
func stdin(r *runArg) {
	r.Stdin, r.Create.Config.OpenStdin, r.Create.Config.StdinOnce = true, true, true
}
func autoRemove(r *runArg)                { r.Create.HostConfig.AutoRemove = true }
func tty(r *runArg)                       { r.Create.Config.Tty = true }
func host(fn func(h *api.HostConfig)) opt { return func(r *runArg) { fn(r.Create.HostConfig) } }
func config(fn func(c *api.Config)) opt   { return func(r *runArg) { fn(r.Create.Config) } }

// volumeAt is an anonymous volume.
func volumeAt(dest string) func(c *api.Config) {
	return func(c *api.Config) { c.Volumes = map[string]struct{}{dest: {}} }
}

func words(s ...string) []string { return s }
func script(s string) []string   { return []string{"sh", "-c", s} }
func (b *box) run(cmd []string, o ...opt) (stdout, stderr string, code int) {
	b.t.Helper()
	return b.try("run", "-", newRun(cmd, o...))
}

// start runs a container in the background and returns its ID.
func (b *box) start(cmd []string, o ...opt) string {
	b.t.Helper()
	return b.must("run", "-", newRun(cmd, append(o, detach)...))
}

func (b *box) exec(id string, cmd ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	text, err := json.Marshal(runArg{Exec: api.ExecCreateRequest{Cmd: cmd}})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.try("exec", id, string(text))
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func (b *box) ps() []api.Summary {
	b.t.Helper()
	return decode[[]api.Summary](b.t, b.must("ps"))
}

func (b *box) inspect(id string) api.InspectResponse {
	b.t.Helper()
	return decode[api.InspectResponse](b.t, b.must("inspect", id))
}

// eventually waits for something that another process does.
func eventually(t testing.TB, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !fn(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come that %s", what)
		}
	}
}
