package crash

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// errand is what TestErrand does, in a process of a helper's or, as root, in this one.
type errand struct {
	Options string
	Crashes int // at random; the others are chosen by long
}

// TestIdentities kills the servers of those who are not root of the machine, and of mounts that keep owners in
// attributes: at some of the fault points in some of the scenarios, and at random. LAMINA_LONG asks for all of them.
func TestIdentities(t *testing.T) {
	needServer(t)
	for _, c := range []struct {
		who  uniontest.Identity
		opts []string
	}{
		{uniontest.Root, []string{"xattr_permissions=2,whiteout=wh,redirect_dir=on"}},
		{uniontest.UserNS, []string{"whiteout=overlay,redirect_dir=on", "whiteout=wh,redirect_dir=off"}},
		{uniontest.User, []string{"whiteout=wh,redirect_dir=on", "whiteout=overlay,redirect_dir=off"}},
	} {
		for n, opts := range c.opts {
			if n > 0 && !long {
				continue
			}
			e := errand{opts, 4}
			if long {
				e.Crashes = 50
			}
			t.Run(string(c.who)+"/"+opts, func(t *testing.T) {
				if c.who == uniontest.Root {
					e.run(t)
					return
				}
				e.send(t, c.who)
			})
		}
	}
}

func (e errand) run(t *testing.T) {
	hit := map[string]bool{}
	t.Run("points", func(t *testing.T) {
		points(t, e.Options, hit, func(p string, ns, np int) bool { return long || !hit[p] && (ns+np)%8 == 0 })
	})
	if len(hit) < 10 {
		t.Errorf("only %d fault points were reached", len(hit))
	}
	t.Run("random", func(t *testing.T) { randomCrashes(t, e.Options, 1, e.Crashes) })
}

func (e errand) send(t *testing.T, who uniontest.Identity) {
	t.Helper()
	uniontest.SendErrand(t, uniontest.As(t, who), e, []string{"LAMINAFS=" + binary}, "-test.timeout=6h")
}

// TestErrand is the part of another test that is run as somebody else.
func TestErrand(t *testing.T) {
	var e errand
	uniontest.TakeErrand(t, &e)
	e.run(t)
	if !t.Failed() {
		uniontest.ErrandDone()
	}
}

// With writeback the kernel keeps what was written, and a crash of the server loses it, but for what was brought to the
// disk: that is there, whatever else was written since.
func TestWritebackKeepsWhatWasSynced(t *testing.T) {
	needServer(t)
	for _, opts := range []string{"whiteout=wh", "whiteout=overlay"} {
		t.Run(opts, func(t *testing.T) {
			l := uniontest.NewLayers(t, 1)
			disarm(t)
			old, synced := strings.Repeat("o", 9000), strings.Repeat("s", 20000)
			if err := os.WriteFile(l.Lowers[0]+"/low", []byte(old), 0o644); err != nil {
				t.Fatal(err)
			}
			m := uniontest.Start(t, uniontest.Laminafs, l, "writeback", opts)
			for _, name := range []string{"low", "new"} {
				f, err := os.OpenFile(l.Merged+"/"+name, os.O_RDWR|os.O_CREATE, 0o644)
				if err != nil {
					t.Fatal(err)
				}
				_, err1 := f.WriteString(synced)
				err2 := f.Sync()
				_, err3 := f.WriteString(strings.Repeat("l", 20000)) // may be lost
				if err := errors.Join(err1, err2, err3); err != nil {
					t.Fatal(err)
				}
				defer f.Close() // says that the connection is lost
			}
			m.Kill()
			m.Remount()
			for _, name := range []string{"low", "new"} {
				b, err := os.ReadFile(l.Merged + "/" + name)
				if err != nil || !strings.HasPrefix(string(b), synced) || strings.Trim(string(b[len(synced):]), "l\x00") != "" {
					t.Errorf("%s holds %d bytes, %v", name, len(b), err)
				}
			}
		})
	}
}
