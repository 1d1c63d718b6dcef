package container

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/runtime/cgroup"
)

// TestInItsCgroups: the command is in all cgroups of its container, however little they leave to it, and sees them as the
// top of each hierarchy.
func TestInItsCgroups(t *testing.T) {
	b := newBox(t)
	id := b.start(script("cat /proc/self/cgroup >/seen 2>&1; exec sleep 1000"))
	b.inItsCgroups(id)
	one := int64(1) // process: what begins the container, which has threads, is there before that counts
	alone := host(func(h *api.HostConfig) { h.PidsLimit = &one })
	b.inItsCgroups(b.start(words("sleep", "1000"), alone))
	if _, errs, code := b.run(script("(true); echo forked"), alone); code == 0 || !strings.Contains(errs, "can't fork") {
		t.Errorf("a fork of the only process: exit %d, %q", code, errs)
	}
	var out string
	eventually(t, "it has looked", func() bool {
		out, _, _ = b.exec(id, "cat", "/seen")
		return out != ""
	})
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, ":/\n") {
			t.Errorf("it sees %q", line)
		}
	}
}

// inItsCgroups skips the test where containers have none.
func (b *box) inItsCgroups(id string) {
	b.t.Helper()
	st, err := readState(filepath.Join(b.root, "containers", id))
	if err != nil {
		b.t.Fatal(err)
	}
	g, err := cgroup.Load(id, st.Cgroup)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(g.Paths()) == 0 {
		b.t.Skip("needs cgroups: ", g.Why())
	}
	for controller, path := range g.Paths() {
		procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil || !slices.Contains(strings.Fields(string(procs)), strconv.Itoa(st.Init.Pid)) {
			b.t.Errorf("%s: %s has processes %q, not %d (%v)", controller, path, procs, st.Init.Pid, err)
		}
	}
}
