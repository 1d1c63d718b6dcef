package container

import (
	"testing"
)

func TestRunPrintsAndExits(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.run(script("echo out; echo err >&2; exit 3"), name("first"))
	if out != "out\n" || errs != "err\n" || code != 3 {
		t.Fatalf("out %q, err %q, exit %d", out, errs, code)
	}
	i := b.inspect("first")
	if i.State.Status != "exited" || i.State.ExitCode != 3 || i.State.Running || i.State.Pid != 0 {
		t.Errorf("state %+v", i.State)
	}
	if got := b.must("logs", "first"); got != "out" {
		t.Errorf("logs %q", got)
	}
}
