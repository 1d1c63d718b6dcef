//go:build faults

package fault_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/laminafs/lamina/internal/fault"
	"golang.org/x/sys/unix"
)

var a, b = fault.New("fault.a"), fault.New("fault.b")

func TestList(t *testing.T) {
	if got := fault.List(); !slices.Equal(got, []string{"fault.a", "fault.b"}) {
		t.Errorf("points %q", got)
	}
}

func TestDeclaredOnce(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a second declaration does not panic")
		}
	}()
	fault.New("fault.a")
}

func TestArming(t *testing.T) {
	for _, tt := range []struct {
		arm          string
		hitsA, hitsB []error
	}{
		{"", []error{nil, nil}, []error{nil}},
		{"fault.a=ENOSPC", []error{unix.ENOSPC, unix.ENOSPC}, []error{nil}},
		{"fault.a#2=EIO", []error{nil, unix.EIO, nil}, []error{nil, nil}},
		{"fault.a#1=EIO, fault.b=EDQUOT", []error{unix.EIO, nil}, []error{unix.EDQUOT}},
	} {
		t.Setenv("LAMINA_FAULT", tt.arm)
		for i, want := range tt.hitsA {
			if err := a.Hit(); err != want {
				t.Errorf("%q: hit %d of a: %v, want %v", tt.arm, i+1, err, want)
			}
		}
		for i, want := range tt.hitsB {
			if err := fault.Point(b.Name()); err != want {
				t.Errorf("%q: hit %d of b: %v, want %v", tt.arm, i+1, err, want)
			}
		}
	}
}

func TestArmingByFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "arm")
	t.Setenv("LAMINA_FAULT_FILE", path)
	for _, tt := range []struct {
		text string
		want []error
	}{
		{"", []error{nil}},
		{"fault.a#2=EIO\n", []error{nil, unix.EIO}},
		{"fault.a#2=EROFS\nfault.b=EIO\n", []error{nil, unix.EROFS}},
		{"", []error{nil}},
	} {
		if tt.text != "" {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			os.Remove(path)
		}
		for i, want := range tt.want {
			if err := a.Hit(); err != want {
				t.Errorf("%q: hit %d: %v, want %v", tt.text, i+1, err, want)
			}
		}
	}
}

func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "arm")
	t.Setenv("LAMINA_FAULT_FILE", path)
	arm := func(text string) { // at once: an empty file would be an answer
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	arm("fault.a#2=wait")
	if err := a.Hit(); err != nil {
		t.Errorf("the first hit: %v", err)
	}
	result := make(chan error, 1)
	go func() { result <- a.Hit() }()
	for { // until it waits
		if _, err := os.Stat(path + ".waiting"); err == nil {
			break
		}
	}
	if err := b.Hit(); err != nil {
		t.Errorf("another point meanwhile: %v", err)
	}
	arm("fault.a=EIO")
	if err := <-result; err != unix.EIO {
		t.Errorf("after the wait: %v, want EIO", err)
	}
}

func TestMistakesPanic(t *testing.T) {
	for _, arm := range []string{"fault.a", "fault.a=", "fault.a=ENOTHING", "fault.a#0=EIO", "fault.a#x=EIO", "fault.c=EIO", "fault.a=wait"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q arms nothing and says nothing", arm)
				}
			}()
			t.Setenv("LAMINA_FAULT", arm)
			_ = a.Hit()
		}()
	}
}

func TestKill(t *testing.T) {
	if os.Getenv("LAMINA_FAULT") == "fault.b#3=kill" {
		for range 3 {
			_ = b.Hit()
			_, _ = os.Stdout.WriteString("hit\n")
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "LAMINA_FAULT=fault.b#3=kill")
	out, err := cmd.Output()
	if string(out) != "hit\nhit\n" || err == nil || err.Error() != "signal: killed" {
		t.Errorf("output %q, end %v: want two hits and a kill", out, err)
	}
}
