// Package beside finds the programs that are installed together with the one that runs.
package beside

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Path is the absolute path of a program in the folder of our own, "" where it is not there or may not be executed.
func Path(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(exe), name)
	if unix.Access(path, unix.X_OK) != nil {
		return ""
	}
	return path
}

// Find is Path, and where that is "" the absolute path of the program in $PATH. An error says that the program belongs
// beside that of the name ours.
func Find(name, ours string) (string, error) {
	if path := Path(name); path != "" {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s not found: it belongs beside the %s executable, or in a folder of $PATH", name, ours)
	}
	return filepath.Abs(path)
}
