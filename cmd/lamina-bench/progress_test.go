package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// On a terminal there is a bar, and at the end it is full, whatever was skipped.
func TestProgressOnTerminal(t *testing.T) {
	needRoot(t)
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skipf("needs script: %v", err)
	}
	dir := open(t)
	run := fmt.Sprintf("stty cols 150 rows 40; %s run --scale tiny --reps 2 --dir %s --out %[2]s/out --rootfs %[2]s/none --systems plain --workloads storm,readdir-*,rootfs-walk >/dev/null",
		program(t), dir)
	out, err := exec.Command(script, "-qec", run, "/dev/null").CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if text := string(out); !strings.Contains(text, "8 of 8") || !strings.Contains(text, "skipped: rootfs-walk on plain") || !strings.Contains(text, "left ") {
		t.Errorf("no full bar, or nothing of what was skipped, in\n%s", text)
	}
	nothingLeft(t, dir, "out")
}
