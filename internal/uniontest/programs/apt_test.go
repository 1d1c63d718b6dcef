package programs

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// debian is the path of a tar file with a minimal Debian system made by mmdebstrap from the machine's own package
// sources. The packages that the test installs are in its cache, so that the test itself needs no network.
var debian = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lamina-debian-")
	if err != nil {
		return "", err
	}
	made = append(made, dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := dir + "/debian.tar"
	cmd := exec.Command("timeout", "-k", "10", "900", "mmdebstrap", "--quiet", "--variant=apt", "--skip=cleanup/apt",
		"--customize-hook=chroot \"$1\" apt-get --yes --quiet --no-install-recommends --download-only install "+aptPackages,
		"--customize-hook=rm -f \"$1\"/var/lib/apt/lists/partial/*",
		codename(), path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, shell.Tail(string(out)))
	}
	return path, os.Chmod(path, 0o644)
})

// codename is the release that the machine's package sources are for.
func codename() string {
	b, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return "stable"
}

// aptPackages run maintainer scripts, divert, register alternatives, make users and rebuild caches as they come and go.
const aptPackages = "vim-tiny python3-minimal openssh-client man-db"

// inDebian runs a command in the union with its own /dev and /proc, which end with it.
const inDebian = `
unshare --mount --propagation private bash -eEuo pipefail -c '
	root=$1; shift
	for d in null zero urandom random full tty; do
		[ -e "$root/dev/$d" ] || : >"$root/dev/$d"
	done
	mount --bind /proc "$root/proc"
	for d in null zero urandom random full tty; do mount --bind "/dev/$d" "$root/dev/$d"; done
	exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C HOME=/root "$@"
' sh "$@"
`

const aptInstall = `apt-get --yes --quiet --no-download --no-install-recommends -o APT::Sandbox::User=root install ` + aptPackages

// debianState says what is installed, whether its files are what the packages say, and what is there besides. What
// bears the time or a random number is left out.
const debianState = `
dpkg --audit
dpkg --verify || true
dpkg-query -W -f '${Package} ${Version} ${Status}\n'
update-alternatives --get-selections
find / -xdev \( -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /dev -o -path /proc -o -path /tmp \) -prune -o \
	-type d -printf '%p %y %m %u:%g\n' -o -printf '%p %y %m %u:%g %n %l\n' | sort
`

// once holds what is worked out for the first place of an identity, for the others.
type once struct {
	mu   sync.Mutex
	done map[uniontest.Identity]string
}

func (o *once) of(who uniontest.Identity, work func() string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done[who] == "" {
		o.done[who] = work()
	}
	return o.done[who]
}

func TestAptInstall(t *testing.T) {
	uniontest.NeedRoot(t)
	plain := once{done: map[uniontest.Identity]string{}}
	need(t, "mmdebstrap", "unshare", "chroot")
	path, err := debian()
	if err != nil {
		t.Fatal(err)
	}
	everywhere(t, onlyRoot, nil, func(t *testing.T, p place) {
		if p.who == uniontest.User {
			t.Skip("needs root, at least of a user namespace: chroot")
		}
		l := uniontest.NewLayers(t, 1, uniontest.As(t, p.who))
		h := l.Helper()
		// A user namespace cannot make devices: they are bound later.
		shell.Run(t, h, l.Lowers[0], `tar --numeric-owner --exclude='./dev/*' -xpf "$1"`, path)
		in := func(dir string, argv ...string) string {
			return shell.Run(t, h, "/", inDebian, append([]string{dir}, argv...)...)
		}
		do := func(dir string) string {
			in(dir, "bash", "-euc", aptInstall)
			state := in(dir, "bash", "-euc", debianState)
			state += in(dir, "bash", "-euc", `python3 -c 'print(1 + 1)'; ssh -V 2>&1; vi --version | head -n 1`)
			in(dir, "bash", "-euc", `apt-get --yes --quiet purge `+aptPackages+`; apt-get --yes --quiet autoremove --purge; apt-get clean`)
			return state + in(dir, "bash", "-euc", debianState)
		}
		// Before the mount, since copying the lower moves its access times.
		want := plain.of(p.who, func() string { return do(outside(t, l, ".")) })
		m := p.mount(t, l)
		if !strings.Contains(want, "\nvim-tiny ") || !strings.Contains(want, "/usr/bin/python3 ") {
			t.Fatalf("nothing was installed: %s", shell.Tail(want))
		}
		shell.Same(t, "Debian on the mount and in the plain directory", do(m.Dir()), want)
		before := in(m.Dir(), "bash", "-euc", debianState)
		m.Remount()
		shell.Same(t, "Debian after a remount", in(m.Dir(), "bash", "-euc", debianState), before)
	})
}
