package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// helperEnv makes the test binary do one thing to a store, in a process that can be killed or that is another user:
// ROOT VERB ARG...
const helperEnv = "LAMINA_IMAGE_HELPER"

func TestMain(m *testing.M) {
	if args := os.Getenv(helperEnv); args != "" {
		if err := helper(strings.Split(args, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(args []string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	ctx := context.Background()
	verb, args := args[1], append(args[2:], "", "")
	switch verb {
	case "open":
	case "load":
		o := LoadOptions{Path: args[0]}
		if args[0] == "-" {
			o.Path, o.Stdin = "", os.Stdin
		}
		loaded, err := s.Load(ctx, o)
		for _, l := range loaded {
			fmt.Println(l.ID, strings.Join(l.Tags, " "))
		}
		return err
	case "peak": // of a load's memory, in KiB (proc(5), VmHWM: of this program alone, unlike ru_maxrss)
		if _, err := s.Load(ctx, LoadOptions{Path: args[0]}); err != nil {
			return err
		}
		status, err := os.ReadFile("/proc/self/status")
		if err == nil {
			_, after, _ := strings.Cut(string(status), "VmHWM:")
			fmt.Println(strings.Fields(after)[0])
		}
		return err
	case "import":
		img, err := s.Import(ctx, ImportOptions{Path: args[0], Ref: args[1]})
		if err == nil {
			fmt.Println(img.ID)
		}
		return err
	case "save":
		f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		return s.Save(ctx, SaveOptions{Images: []string{args[0]}, Format: Format(args[2]), Output: f})
	case "tag":
		return s.Tag(args[0], args[1])
	case "rmi":
		_, err := s.Remove(args[0], RemoveOptions{Force: true})
		return err
	case "prune":
		_, err := s.Prune(PruneOptions{All: true})
		return err
	case "mount":
		id := digest.Digest("")
		if args[1] != "" {
			img, err := s.Get(args[1])
			if err != nil {
				return err
			}
			id = img.ID
		}
		m, err := s.NewMount(args[0], id)
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(m)
		}
		return err
	case "unmount":
		return s.RemoveMount(args[0])
	case "list":
		list, err := s.List(ListOptions{All: true})
		for _, l := range list {
			fmt.Println(l.ID, strings.Join(l.RepoTags, " "))
		}
		return err
	default:
		return fmt.Errorf("no verb %q", verb)
	}
	return nil
}

// helperCommand is the test binary as a helper. before are words of a command that runs it (unshare, runuser).
func helperCommand(before []string, args ...string) *exec.Cmd {
	words := append(before, "/proc/self/exe")
	if len(before) > 0 {
		self, err := os.Executable()
		if err != nil {
			self = os.Args[0]
		}
		words[len(words)-1] = self
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), helperEnv+"="+strings.Join(args, "\n"))
	return cmd
}

// run runs a command and returns what it writes to its standard output.
func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, errs.String())
	}
	return out.String()
}

// command runs a program by name.
func command(t testing.TB, words ...string) string {
	t.Helper()
	return run(t, exec.Command(words[0], words[1:]...))
}
