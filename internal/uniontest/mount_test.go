package uniontest

import (
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"testing"
	"time"
)

// recorder is a test that notes its errors, to test what finds them.
type recorder struct {
	testing.TB
	errors []string
	clean  []func()
}

func (r *recorder) Helper()             {}
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Failed() bool        { return len(r.errors) > 0 }
func (r *recorder) Error(args ...any)   { r.errors = append(r.errors, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatal(args ...any)                 { r.Error(args...); r.FailNow() }
func (r *recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); r.FailNow() }
func (r *recorder) FailNow()                          { goruntime.Goexit() }
func (r *recorder) Cleanup(f func())                  { r.clean = append(r.clean, f) }

// run runs f as a test, with its cleanup.
func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.finish()
		f()
	}()
	<-done
}

func (r *recorder) finish() {
	for len(r.clean) > 0 {
		f := r.clean[len(r.clean)-1]
		r.clean = r.clean[:len(r.clean)-1]
		f()
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestStart(t *testing.T) {
	systems := []System{Plain, Overlay, FuseOverlayfs, Laminafs}
	for _, sys := range systems {
		for _, who := range []Identity{Root, UserNS, User} {
			t.Run(string(sys)+"/"+string(who), func(t *testing.T) {
				if sys == Overlay && who == User {
					return // the kernel lets no ordinary user mount it
				}
				h := As(t, who)
				l := NewLayers(t, 2, h)
				for i, dir := range l.Lowers {
					if r, err := h.Exec(Command{Argv: []string{"sh", "-c", `echo "$0" >f; mkdir d; touch d/$0`, string('1' + rune(i))}, Dir: dir}); err != nil || r.Code != 0 {
						t.Fatal(err, r)
					}
				}
				m := Start(t, sys, l)
				if got := Run(t, m, "cat", m.Dir()+"/f"); got != "1\n" {
					t.Errorf("f holds %q, want that of the topmost lower", got)
				}
				Run(t, m, "sh", "-c", "cd $0 && echo more >>f && rm d/1", m.Dir())
				m.Remount()
				if got := Run(t, m, "sh", "-c", "cd $0 && cat f && ls d", m.Dir()); got != "1\nmore\n2\n" {
					t.Errorf("after a remount: %q", got)
				}
				if m.Pid() != 0 {
					m.Kill()
					m.Remount()
					if got := Run(t, m, "cat", m.Dir()+"/f"); got != "1\nmore\n" {
						t.Errorf("after a kill: %q", got)
					}
				}
			})
		}
	}
}

// What a broken filesystem does must be seen.
func TestCleanupFinds(t *testing.T) {
	change := map[string]func(lower string) error{
		"content": func(l string) error { return os.WriteFile(l+"/d/f", []byte("TWO"), 0) },
		"time":    func(l string) error { return os.Chmod(l+"/d/f", 0o640) },
		"new":     func(l string) error { return os.WriteFile(l+"/d/g", nil, 0o600) },
		"gone":    func(l string) error { return os.Remove(l + "/d/f") },
		"access": func(l string) error {
			_, err := os.ReadFile(l + "/d/f")
			return err
		},
	}
	for name, f := range change {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			defer r.finish()
			l := NewLayers(r, 1)
			if err := os.Mkdir(l.Lowers[0]+"/d", 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, l.Lowers[0]+"/d/f", "one")
			old := time.Now().Add(-time.Hour) // relatime then moves the access time with the first read
			if err := os.Chtimes(l.Lowers[0]+"/d/f", old, time.Time{}); err != nil {
				t.Fatal(err)
			}
			Start(r, Overlay, l)
			if err := f(l.Lowers[0]); err != nil {
				t.Fatal(err)
			}
			r.finish()
			if len(r.errors) == 0 || !strings.Contains(r.errors[0], "wrote to lower") {
				t.Errorf("a change of a lower was not found: %q", r.errors)
			}
		})
	}
	t.Run("mount", func(t *testing.T) {
		NeedOverlay(t)
		r := &recorder{TB: t}
		l := NewLayers(r, 1)
		if _, err := mountOverlay(overlayRequest{Layers: *l}); err != nil {
			t.Fatal(err)
		}
		r.finish()
		if len(r.errors) != 1 || !strings.Contains(r.errors[0], "left behind") {
			t.Errorf("a mount left behind was not found: %q", r.errors)
		}
		if left := mountsBelow(l.Dir); left != nil {
			t.Errorf("still mounted: %q", left)
		}
		l.remove(t)
	})
}
