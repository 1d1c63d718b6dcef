package beside

import (
	"os"
	"path/filepath"
	"testing"
)

func program(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) }) // the folder of the test goes with it
}

func TestFind(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const name = "beside-test-program"
	inPath := t.TempDir()
	t.Setenv("PATH", inPath)

	_, err = Find(name, "lamina")
	if want := name + " not found: it belongs beside the lamina executable, or in a folder of $PATH"; err == nil || err.Error() != want {
		t.Errorf("found nowhere: %v, want %s", err, want)
	}
	program(t, filepath.Join(inPath, name), 0o755)
	if got, err := Find(name, "lamina"); err != nil || got != filepath.Join(inPath, name) {
		t.Errorf("in $PATH: %q, %v", got, err)
	}
	here := filepath.Join(filepath.Dir(exe), name)
	program(t, here, 0o644)
	if got := Path(name); got != "" {
		t.Errorf("found what cannot be executed: %q", got)
	}
	if err := os.Chmod(here, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(name, "lamina"); err != nil || got != here || Path(name) != here {
		t.Errorf("beside: %q, %v", got, err)
	}
}
