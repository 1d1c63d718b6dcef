package idmap

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// A host is where Discover looks; tests have one of their own.
type host struct {
	root     string // prefix of /etc and /proc
	uid, gid int
	lookPath func(string) (string, error)
}

var thisHost = host{uid: os.Geteuid(), gid: os.Getegid(), lookPath: exec.LookPath}

// Discover finds out what the caller may map. It changes nothing and needs no privilege.
//
// Errors: a subuid(5) file that exists and cannot be read. That nothing can be mapped is no error: see Missing, and
// the error of Reexec.
func Discover() (*Identity, error) { return thisHost.discover() }

func (h host) discover() (*Identity, error) {
	id := &Identity{UID: h.uid, GID: h.gid}
	if h.uid == 0 {
		id.Kind = Root
		id.User = "root"
		return id, nil
	}
	id.User = h.userName()
	id.Kind = Single
	id.UIDs = rangesToMap(h.uid, nil)
	id.GIDs = rangesToMap(h.gid, nil)

	uids, err := readSubIDs(h.path("/etc/subuid"), id.User, h.uid)
	if err != nil {
		return nil, err
	}
	gids, err := readSubIDs(h.path("/etc/subgid"), id.User, h.uid)
	if err != nil {
		return nil, err
	}
	id.Missing = append(id.Missing, h.missingRanges(id, uids, gids)...)
	id.Missing = append(id.Missing, h.missingTools()...)
	if len(id.Missing) == 0 {
		id.Kind = SubIDs
		id.UIDs = rangesToMap(h.uid, uids)
		id.GIDs = rangesToMap(h.gid, gids)
	}
	id.Missing = append(id.Missing, h.missingUserns()...)
	return id, nil
}

func (h host) path(p string) string { return filepath.Join(h.root, p) }

func (h host) userName() string {
	users, err := user.ParsePasswdFileFilter(h.path("/etc/passwd"), func(u user.User) bool { return u.Uid == h.uid })
	if err != nil || len(users) == 0 {
		return ""
	}
	return users[0].Name
}

// missingRanges says which of the two files has no range for the caller.
func (h host) missingRanges(id *Identity, uids, gids []subRange) []string {
	who := id.User
	if who == "" {
		who = strconv.Itoa(h.uid)
	}
	var missing []string
	for _, f := range []struct {
		file   string
		ranges []subRange
		option string
	}{{"/etc/subuid", uids, "--add-subuids"}, {"/etc/subgid", gids, "--add-subgids"}} {
		if len(f.ranges) == 0 {
			missing = append(missing, fmt.Sprintf(
				"%s gives no range of ids to %s; root can add one with: usermod %s 100000-165535 %s (choose numbers that nobody has yet)",
				f.file, who, f.option, who))
		}
	}
	return missing
}

// missingTools says which of newuidmap and newgidmap is not there, or there without the right to map.
func (h host) missingTools() []string {
	var missing []string
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		path, err := h.lookPath(tool)
		if err != nil {
			missing = append(missing, fmt.Sprintf(
				"%s is not in $PATH, and only it can map a range of ids; it comes with the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora, SUSE)", tool))
			continue
		}
		if !privileged(path) {
			missing = append(missing, fmt.Sprintf(
				"%s has neither the set-user-id bit nor file capabilities; root can give it back with: chmod u+s %s", path, path))
		}
	}
	return missing
}

// privileged reports whether the program gets rights when it is executed.
func privileged(path string) bool {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false
	}
	if st.Mode&unix.S_ISUID != 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// missingUserns says which switch keeps the caller from making user namespaces at all.
func (h host) missingUserns() []string {
	var missing []string
	for _, s := range []struct {
		file   string
		off    func(int64) bool
		advice string
	}{
		{"user/max_user_namespaces", func(n int64) bool { return n == 0 },
			"user namespaces are off (user.max_user_namespaces is 0); root can turn them on with: sysctl user.max_user_namespaces=15000"},
		{"kernel/unprivileged_userns_clone", func(n int64) bool { return n == 0 },
			"user namespaces are for root only (kernel.unprivileged_userns_clone is 0); root can change that with: sysctl kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", func(n int64) bool { return n != 0 },
			"AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1); root can give lamina a profile that allows userns, or lift it for all with: sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		b, err := os.ReadFile(h.path("/proc/sys/" + s.file))
		if err != nil {
			continue // a kernel without this switch
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && s.off(n) {
			missing = append(missing, s.advice)
		}
	}
	return missing
}

// explain adds to the kernel's refusal what is known about its reason.
func (h host) explain(err error) error {
	if reasons := h.missingUserns(); len(reasons) > 0 {
		return fmt.Errorf("make a user namespace: %w: %s", err, strings.Join(reasons, "; "))
	}
	switch {
	case isErrno(err, unix.EPERM):
		return fmt.Errorf("make a user namespace: %w (a seccomp filter or a security module, such as a container around this one, may forbid it)", err)
	case isErrno(err, unix.ENOSPC), isErrno(err, unix.EUSERS):
		return fmt.Errorf("make a user namespace: %w (there are too many of them, or they are nested too deeply: see user.max_user_namespaces)", err)
	case isErrno(err, unix.EINVAL), isErrno(err, unix.ENOSYS):
		return fmt.Errorf("make a user namespace: %w (the kernel was built without CONFIG_USER_NS)", err)
	}
	return fmt.Errorf("make a user namespace: %w", err)
}
