package scrape

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// inNamespace mounts fusectl and a union in a mount namespace of its own, says so, unmounts when it may, and waits for the end of
// the server: with the last program of its process namespace all are killed. What is on /run is nobody else's.
const inNamespace = `
mount -t tmpfs none /run && mount -t fusectl none /sys/fs/fuse/connections && "$1" -o "$2" "$3" && echo mounted
read -r line
umount "$3" || exit
while [ -e "${2##*unix:}" ]; do sleep 0.05; done`

// What the kernel has of requests is told where fusectl is mounted, also by a server that has left the mount namespace of its
// caller (which it does where that is not the one of process 1).
func TestWaiting(t *testing.T) {
	uniontest.NeedFuse(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount fusectl")
	}
	if text, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(text), "\tfusectl\n") {
		t.Skipf("needs a kernel with fusectl: %v", err)
	}
	dir := needPrograms(t)
	for name, flags := range map[string][]string{"process 1's namespace": {"--pid", "--fork", "--mount-proc"}, "another one": nil} {
		t.Run(name, func(t *testing.T) {
			l := layers(t)
			address := "unix:" + socketDir(t, l) + "/m.sock"
			options := fmt.Sprintf("lowerdir=%s,metrics=%s", l.Lowers[0], address)
			cmd := exec.Command("unshare", append(append([]string{"--mount"}, flags...),
				"sh", "-c", inNamespace, "sh", dir+"/laminafs", options, l.Merged)...)
			goOn, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = goOn.Close() // it ends
				if err := cmd.Wait(); err != nil || out.String() != "mounted\n" {
					t.Errorf("%v: %s", err, out.String())
				}
			}()
			eventually(t, "the mount answers", func() bool { _, _, err := read(address); return err == nil })
			v := scrape(t, address)
			if n, ok := v["laminafs_requests_waiting"]; !ok || n != 0 {
				t.Errorf("%v requests are waiting (told: %v), want 0", n, ok)
			}
		})
	}
}
