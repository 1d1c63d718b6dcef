package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RootfsLayers is the root of a system, as the one layer that an image of it has.
func (f *Fixtures) RootfsLayers() (*Layers, error) {
	return single(f.make("rootfs", func(dir string) error {
		if f.Rootfs == "" {
			return errors.New(f.NoRootfs)
		}
		// Devices cannot be made in a user namespace, and nobody here opens one.
		return run("tar", "-C", dir, "--numeric-owner", "--exclude=./dev/*", "-xpf", f.Rootfs)
	}))
}

// debianLimit is how long a download may take.
const debianLimit = 10 * time.Minute

// Debian returns a tar file with the root of a minimal Debian system: that which an earlier run has left in cache, or
// a new one, made by mmdebstrap from this machine's package sources, which ends with ctx.
func Debian(ctx context.Context, cache string) (string, error) {
	release := debianRelease()
	path := filepath.Join(cache, "debian-"+release+".tar")
	if exists(path) {
		return path, nil
	}
	mmdebstrap, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	mode, limit := "root", fmt.Sprint(int(debianLimit/time.Second))
	if os.Getuid() != 0 {
		mode = "unshare"
	}
	part := strings.TrimSuffix(path, ".tar") + ".part.tar"
	// timeout(1) is the leader of a process group, so that ^C does not reach it; a SIGTERM it hands on.
	cmd := exec.CommandContext(ctx, "timeout", "-k", "10", limit, mmdebstrap, "--quiet", "--mode="+mode, "--variant=apt", release, part)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("mmdebstrap: %w: %s", err, tail(out)), os.RemoveAll(part))
	}
	return path, os.Rename(part, path) // whole or not at all
}

// debianRelease is the release that this machine's package sources are for.
func debianRelease() string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return "stable"
}

// exists reports whether there is something of that name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
