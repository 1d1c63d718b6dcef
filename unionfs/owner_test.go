package unionfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// When the upper's root could not be given the attribute by which the layer is known to have it, the first object that
// needed one failed, and all later ones were written although nobody would read them.
func TestMarkRootIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Lowers: []string{filepath.Join(dir, "lower")}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	for _, d := range []string{cfg.Lowers[0], cfg.Upper, cfg.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if err := os.WriteFile(filepath.Join(cfg.Upper, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fs.upper.override = override.Containers
	at := sys.At{Dirfd: fs.upper.fd, Name: "f"}
	root := fs.upperFd
	fs.upperFd = -1
	for n := range 2 {
		if err := fs.writeOverride(at, override.Stat{Mode: unix.S_IFREG | 0o640}); err == nil {
			t.Errorf("attempt %d without a root succeeds", n+1)
		}
	}
	fs.upperFd = root
	if err := fs.writeOverride(at, override.Stat{Mode: unix.S_IFREG | 0o640}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "f"} {
		if _, err := unix.Getxattr(filepath.Join(cfg.Upper, name), override.Containers, nil); err != nil {
			t.Errorf("upper/%s: %v", name, err)
		}
	}
}
