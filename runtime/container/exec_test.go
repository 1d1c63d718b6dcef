package container

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/runtime/sandbox"
)

func TestExecFailed(t *testing.T) {
	c := &Container{r: &record{ID: "c1"}}
	full := errors.New("the cgroup is full")
	if err := c.execFailed(fmt.Errorf("exec: %w", os.ErrProcessDone)); !errors.Is(err, ErrNotRunning) || err.Error() != "container c1 is not running" {
		t.Errorf("a container that has ended: %v", err)
	}
	if err := c.execFailed(full); !errors.Is(err, full) || errors.Is(err, ErrNotRunning) {
		t.Errorf("a container that lives: %v", err)
	}
	for errno, want := range map[unix.Errno]int{unix.ENOENT: 127, unix.ENOTDIR: 127, unix.EACCES: 126} {
		var e *ExitError
		if err := c.execFailed(&sandbox.StageError{Stage: sandbox.StageCwd, Errno: errno}); !errors.As(err, &e) || e.Code != want {
			t.Errorf("a working directory with %v: %v, want exit code %d", errno, err, want)
		}
	}
}
