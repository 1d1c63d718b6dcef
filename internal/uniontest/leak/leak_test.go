package leak

import (
	"os"
	"os/exec"
	"testing"
)

func TestRun(t *testing.T) {
	var undo []func()
	for name, leave := range map[string]func() int{
		"nothing": func() int { return 0 },
		"failure": func() int { return 1 },
		"file": func() int {
			_, _ = os.MkdirTemp("", "left")
			return 0
		},
		"process": func() int {
			c := exec.Command("sleep", "1000")
			if err := c.Start(); err != nil {
				t.Error(err)
			}
			undo = append(undo, func() { _ = c.Process.Kill(); _ = c.Wait() })
			return 0
		},
		"descriptor": func() int {
			f, err := os.Open("/")
			if err != nil {
				t.Error(err)
			}
			undo = append(undo, func() { f.Close() })
			return 0
		},
		"goroutine": func() int {
			end := make(chan struct{})
			go func() { <-end }()
			undo = append(undo, func() { close(end) })
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			undo = nil
			code := run(leave, 0)
			for _, f := range undo {
				f()
			}
			if (code == 0) != (name == "nothing") {
				t.Errorf("status %d", code)
			}
		})
	}
}
