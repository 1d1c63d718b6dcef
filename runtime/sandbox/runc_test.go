package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestAgainstRunc runs the specification that `runc spec` writes under both, and compares what a process sees.
func TestAgainstRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc")
	}
	if os.Geteuid() != 0 || !initNamespace(false) {
		t.Skip("needs root of the machine, for runc")
	}
	root := busybox(t)
	bundle := filepath.Dir(root)
	spec := exec.Command(runc, "spec")
	spec.Dir = bundle
	if out, err := spec.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(bundle + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	script := `grep -E '^(Cap|NoNew|Seccomp:|Uid|Gid|Groups|Sig)' /proc/self/status
		cut -d' ' -f4-6,8- /proc/self/mountinfo
		cd /dev; for f in * pts/* shm/.; do stat -c '%n %F %a %u %g %t:%T' $f; done
		for f in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /proc/scsi /sys/firmware; do [ -e $f ] && echo $f $(cat $f 2>/dev/null | wc -c) $(ls -A $f | wc -l); done
		for f in /proc/sys/kernel/sysrq /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/profiling; do (: >>$f) 2>&1 | head -1; done
		hostname; pwd; umask; ulimit -a; env | sort; ls /proc/self/fd; cat /proc/1/cmdline | wc -c; touch /x; for n in /proc/self/ns/*; do readlink $n | wc -c; done`
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	s.Process.Terminal = false
	s.Process.Args = []string{"sh", "-c", script}
	s.Root.Path = root
	if b, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	write(t, bundle+"/config.json", string(b), 0o644)
	cmd := exec.Command(runc, "run", "--bundle", bundle, fmt.Sprintf("sandbox-test-%d", os.Getpid()))
	want, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("runc: %v\n%s", err, want)
	}
	res := run(t, &s)
	theirs, ours := comparable(string(want), root), comparable(res.out+res.err, root)
	if theirs == ours {
		return
	}
	theirLines := strings.Split(theirs, "\n")
	for line := range strings.Lines(ours) {
		if !contains(theirLines, strings.TrimSuffix(line, "\n")) {
			t.Errorf("ours only:  %s", line)
		}
	}
	ourLines := strings.Split(ours, "\n")
	for _, line := range theirLines {
		if !contains(ourLines, line) {
			t.Errorf("runc's only: %s", line)
		}
	}
}

func contains(lines []string, line string) bool {
	for _, l := range lines {
		if l == line {
			return true
		}
	}
	return false
}

// Differences that are meant.
var meant = []struct{ pattern, to string }{
	// Masks are mounted with what the kernel needs, and those of one kind share a filesystem.
	{`(?m)^\S+ (/proc/(acpi|scsi|kcore|keys|timer_list|interrupts|latency_stats|sched_debug)|/sys/firmware|/sys/devices/virtual/powercap) .*$`, "$1 masked"},
	// The mount is read-only, not the filesystem.
	{`(?m)^(/ /sys ro,\S+ sysfs sysfs) r.$`, "$1"},
	// The tmpfs that holds the hierarchies is read-only when the mount is asked to be; and the unified one is there too.
	{`(?m)^(/ /sys/fs/cgroup) r.,`, "$1 "},
	{`(?m)^\S+ /sys/fs/cgroup/unified .*\n`, ""},
	{`(?m)^\S+ (/sys/fs/cgroup/\S+ )`, "/ $1"},
	// HOME is the business of who resolves the user's name.
	{`(?m)^HOME=.*\n`, ""},
	{`(?m)^SigQ:.*\n`, ""},
	// What the caller ignores, the command of runc ignores too.
	{`(?m)^SigIgn:.*\n`, ""},
}

func comparable(out, root string) string {
	out = strings.ReplaceAll(out, root, "ROOTFS")
	for _, m := range meant {
		out = regexp.MustCompile(m.pattern).ReplaceAllString(out, m.to)
	}
	return out
}
