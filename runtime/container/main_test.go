package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/runtime/idmap"
	"github.com/laminafs/lamina/runtime/image"
	"github.com/laminafs/lamina/runtime/sandbox"
)

// The test binary plays all roles of cmd/lamina: a monitor, the first process of a container, and a small command line
// of its own, for each command of which there is a process as for the real one. So tests of an ordinary user run as
// that user, and every command has a user namespace of its own.

// commandArg0 is os.Args[0] of a command, before and behind idmap.Reexec.
const commandArg0 = "lamina-test-command"

// envSingle makes an ordinary user's commands do with one mapped ID.
const envSingle = "LAMINA_TEST_SINGLE"

func TestMain(m *testing.M) {
	sandbox.Main()
	switch os.Args[0] {
	case MonitorArg0:
		MonitorMain()
	case commandArg0:
		os.Exit(commandMain(os.Args[1:]))
	}
	code := m.Run()
	if dir, err := binDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// commandMain is lamina ROOT LAMINAFS COMMAND ARG.
func commandMain(args []string) int {
	root := args[0]
	o := Options{RunDir: filepath.Join(root, "run"), Laminafs: args[1]}
	if os.Geteuid() != 0 {
		if args[2] == "run" && os.Getenv(envSingle) == "" {
			if c, ra, err := tryRun(root, o, args[3:]); err == nil {
				code, err := start(c, ra)
				return ended(code, err)
			}
		}
		if err := ReapOutside(root); err != nil {
			fmt.Fprintln(os.Stderr, "reap:", err)
			return 125
		}
		id, err := idmap.Discover()
		if err == nil && os.Getenv(envSingle) != "" {
			id.Kind = idmap.Single
			id.UIDs, id.GIDs = id.UIDs[:1], id.GIDs[:1]
		}
		code := 125
		if err == nil {
			code, err = id.Reexec(commandArg0)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "reexec:", err)
		}
		return code
	}
	s, err := Open(root, o)
	if err != nil {
		return ended(0, err)
	}
	return ended(do(s, args[2], args[3:]))
}

func ended(code int, err error) int {
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, err)
	return ExitCode(err)
}

// tryRun is what run does of an ordinary user who is in no user namespace, as far as that goes.
func tryRun(root string, o Options, args []string) (c *Container, ra runArg, err error) {
	if err = json.Unmarshal([]byte(args[1]), &ra); err != nil {
		return nil, ra, err
	}
	s, err := Open(root, o)
	if err != nil {
		return nil, ra, err
	}
	s.Expect()
	if c, _, err = s.Create(context.Background(), ra.Create); err != nil {
		s.Unexpect()
	}
	return c, ra, err
}

// start starts what run has made.
func start(c *Container, ra runArg) (int, error) {
	ctx := context.Background()
	sess, err := c.Start(ctx, StartOptions{Streams: ra.streams(), Foreground: !ra.Detach})
	if err != nil {
		return 0, err
	}
	if ra.Detach {
		fmt.Println(c.ID())
		return 0, nil
	}
	return sess.Wait(ctx)
}

// runArg is the argument of run, create and exec.
type runArg struct {
	Create CreateOptions
	Exec   api.ExecCreateRequest
	Detach bool
	Stdin  bool
	Keys   bool // stdin is a terminal's
}

func (r runArg) streams() *Streams {
	if r.Detach {
		return nil
	}
	st := &Streams{Stdout: os.Stdout, Stderr: os.Stderr}
	if r.Stdin {
		st.Stdin = os.Stdin
	}
	return st
}

func do(s *Store, op string, args []string) (int, error) {
	ctx := context.Background()
	var c *Container
	var ra runArg
	if len(args) > 1 && strings.HasPrefix(args[1], "{") {
		if err := json.Unmarshal([]byte(args[1]), &ra); err != nil {
			return 0, err
		}
	}
	switch op {
	case "import", "create", "run", "ps", "prune", "layers":
	default:
		var err error
		if c, err = s.Get(args[0]); err != nil {
			return 0, err
		}
	}
	out := func(v any, err error) (int, error) {
		if err != nil {
			return 0, err
		}
		return 0, json.NewEncoder(os.Stdout).Encode(v)
	}
	switch op {
	case "import":
		img, err := s.Images().Import(ctx, image.ImportOptions{Path: args[0], Ref: args[1], Config: testConfig})
		if err != nil {
			return 0, err
		}
		return out(img.ID, nil)
	case "create":
		c, warnings, err := s.Create(ctx, ra.Create)
		if err != nil {
			return 0, err
		}
		for _, w := range warnings {
			fmt.Fprintln(os.Stderr, "WARNING:", w)
		}
		fmt.Println(c.ID())
		return 0, nil
	case "run":
		s.Expect()
		defer s.Unexpect()
		c, _, err := s.Create(ctx, ra.Create)
		if err != nil {
			return 0, err
		}
		return start(c, ra)
	case "start":
		_, err := c.Start(ctx, StartOptions{})
		return 0, err
	case "attach":
		sess, err := c.Attach(ctx, *ra.streams())
		if err != nil {
			return 0, err
		}
		fmt.Fprintln(os.Stderr, "attached")
		return sess.Wait(ctx)
	case "exec":
		sess, err := c.Exec(ctx, ExecOptions{ExecCreateRequest: ra.Exec, Streams: ra.streams()})
		if err != nil || sess == nil {
			return 0, err
		}
		return sess.Wait(ctx)
	case "ps":
		o := ListOptions{All: true}
		if len(args) > 0 {
			if err := json.Unmarshal([]byte(args[0]), &o.Filters); err != nil {
				return 0, err
			}
		}
		return out(s.List(ctx, o))
	case "layers":
		return 0, addLayers(ctx, s, args[1])
	case "prune":
		return out(s.Prune(ctx, nil))
	case "inspect":
		return out(c.Inspect(ctx, true))
	case "diff":
		return out(c.Diff(ctx))
	case "stop":
		timeout := 2
		if len(args) > 1 { // of one that ends when it is told to
			timeout, _ = strconv.Atoi(args[1])
		}
		return 0, c.Stop(ctx, StopOptions{Timeout: &timeout})
	case "kill":
		return 0, c.Kill(ctx, args[1])
	case "restart":
		zero := 0
		return 0, c.Restart(ctx, StopOptions{Timeout: &zero})
	case "pause":
		return 0, c.Pause(ctx)
	case "unpause":
		return 0, c.Unpause(ctx)
	case "wait":
		fmt.Fprintln(os.Stderr, "waiting")
		code, err := c.Wait(ctx, api.WaitCondition(args[1]))
		return out(code, err)
	case "rm":
		return 0, c.Remove(ctx, RemoveOptions{Force: len(args) > 1, Volumes: true})
	case "rename":
		return 0, c.Rename(ctx, args[1])
	case "update":
		var u api.UpdateConfig
		if err := json.Unmarshal([]byte(args[1]), &u); err != nil {
			return 0, err
		}
		_, err := c.Update(ctx, u)
		return 0, err
	case "logs":
		o := LogsOptions{Stdout: os.Stdout, Stderr: os.Stderr, Tail: -1, Follow: len(args) > 1 && args[1] == "-f"}
		return 0, c.Logs(ctx, o)
	case "commit":
		id, err := c.Commit(ctx, CommitOptions{Reference: args[1], Author: "a", Message: "m", Changes: args[2:], NoPause: true})
		return out(id, err)
	case "export":
		return 0, c.Export(ctx, os.Stdout)
	case "cpout":
		_, err := c.CopyOut(ctx, args[1], args[2], os.Stdout, CopyOptions{})
		return 0, err
	case "cpin":
		_, err := c.CopyIn(ctx, args[1], args[2], os.Stdin, CopyOptions{})
		return 0, err
	case "top":
		return out(c.Top(ctx, nil))
	case "stats":
		return out(c.Stats(ctx))
	}
	return 0, fmt.Errorf("no command %q", op)
}

// addLayers puts layers on the test's image, with a file in each, and calls it "layers".
func addLayers(ctx context.Context, s *Store, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	img, err := s.Images().Get("test")
	for i := 1; err == nil && i <= n; i++ {
		img, err = s.Images().Commit(ctx, image.CommitOptions{
			Parent: img.ID, Config: img.Config, Ref: "layers",
			Layer: func(w io.Writer) error {
				text := fmt.Sprintf("%d\n", i)
				tw := tar.NewWriter(w)
				err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("layers/%d", i), Mode: 0o644, Size: int64(len(text))})
				if err == nil {
					_, err = io.WriteString(tw, text)
				}
				return errors.Join(err, tw.Close())
			},
		})
	}
	return err
}

// testConfig is the configuration of the test's image.
var testConfig = func() dockerspec.DockerOCIImageConfig {
	var c dockerspec.DockerOCIImageConfig
	c.Cmd = []string{"sh"}
	c.Env = []string{"PATH=/bin", "FROM_IMAGE=yes"}
	c.Labels = map[string]string{"from": "image"}
	c.StopSignal = "SIGTERM"
	return c
}()

// busyboxTar is a root filesystem with busybox in it.
func busyboxTar(t testing.TB, path string) {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox")
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content string) {
		t.Helper()
		h.Size, h.ModTime = int64(len(content)), time.Unix(1e9, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "root", "home", "data", "home/user"} {
		h := tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}
		if d == "home/user" {
			h.Uid, h.Gid = 1000, 1000
		}
		add(h, "")
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, "")
	add(tar.Header{Typeflag: tar.TypeDir, Name: "home/user/private/", Mode: 0o700, Uid: 1000, Gid: 1000}, "")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "home/user/private/f", Mode: 0o600, Uid: 1000, Gid: 1000}, "secret\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(data))
	for _, name := range []string{"sh", "cat", "echo", "ls", "sleep", "true", "false", "id", "mkdir", "rm", "mv", "touch",
		"env", "pwd", "kill", "head", "dd", "ps", "stty", "tr", "seq", "stat", "mount", "grep", "hostname", "tty", "wc",
		"readlink", "ln", "cp", "chown", "test", "yes"} {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}, "")
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644},
		"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, "root:x:0:\nuser:x:1000:\nmore:x:1001:user\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "data/seed", Mode: 0o644}, "from the image\n")
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/noexec", Mode: 0o644}, "no program\n")
	if err := errors.Join(w.Close(), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}
