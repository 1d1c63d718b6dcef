package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/runtime/idmap"
	"github.com/laminafs/lamina/runtime/image"
)

// union is a mounted rootfs.
type union struct {
	target string
	server process
	pidfd  int // of laminafs, our child
}

// laminafs finds the program that mounts.
func (s *Store) laminafs() (string, error) {
	if s.o.Laminafs != "" {
		return s.o.Laminafs, nil
	}
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), "laminafs")
		if unix.Access(beside, unix.X_OK) == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("laminafs")
	if err != nil {
		return "", errors.New("laminafs not found: it belongs beside the lamina executable, or in a folder of $PATH")
	}
	return path, nil
}

// mount mounts the container's layers on the merged directory, in the mount namespace of this process, which is to be
// one of our own: nobody else sees the mount, and it ends with us.
//
// The layers are named relative to the folder that has the short links: 127 of them fit the option.
//
// laminafs goes to the background when the mount answers. We are its reaper (PR_SET_CHILD_SUBREAPER), and can tell
// when it has ended: not before that all is written to the upper.
func (c *Container) mount() (*union, error) {
	m, err := c.s.images.Mount(c.r.ID)
	if err != nil {
		return nil, err
	}
	bin, err := c.s.laminafs()
	if err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of laminafs: %w", err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(bin, "-o", unionOptions(m, c.r), "lamina", m.Merged)
	cmd.Dir = m.LayersDir
	cmd.Stderr = &stderr
	if os.Getenv("XDG_RUNTIME_DIR") == "" {
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+c.s.o.RunDir) // so that it is told of the mount, for Mounts to find
	}
	before := children()
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return nil, errors.New(text)
		}
		return nil, fmt.Errorf("%s: %w", bin, err)
	}
	u := &union{target: m.Merged, pidfd: -1}
	for pid := range children() {
		if before[pid] || comm(pid) != "laminafs" {
			continue
		}
		u.server = identify(pid)
		if u.pidfd, err = u.server.open(); err == nil {
			return u, nil
		}
	}
	return nil, errors.Join(errors.New("laminafs ended as soon as it had mounted"), unix.Unmount(m.Merged, unix.MNT_DETACH))
}

// unionOptions is what -o gets. An owner in the store is shown as what the container's user namespace makes of it: ID
// ContainerID of the container, which the store knows by that number, is HostID outside of it.
func unionOptions(m *image.Mount, r *record) string {
	lowers := append(append([]string{}, m.Lowers...), r.Rootfs...)
	for i, l := range lowers {
		lowers[i] = escapeOption(l)
	}
	o := []string{
		"lowerdir=" + strings.Join(lowers, ":"),
		"upperdir=" + escapeOption(m.Upper),
		"workdir=" + escapeOption(m.Work),
		// A layer that is committed holds what is in the upper, and cannot say that a name of a lower is a link to it. So a
		// file that is changed leaves its other names behind, as under Docker.
		"index=0",
	}
	if s := idOption(r.UIDMap); s != "" {
		o = append(o, "uidmapping="+s)
	}
	if s := idOption(r.GIDMap); s != "" {
		o = append(o, "gidmapping="+s)
	}
	if identity().Kind == idmap.Single {
		// Nobody but us exists here, and the kernel lets nobody touch what belongs to nobody: not even read a directory of
		// mode 0700 (EACCES), or change an owner (EOVERFLOW). What owners the layers record stays in them.
		o = append(o, "squash_to_root=1")
	}
	return strings.Join(o, ",")
}

func idOption(m []specs.LinuxIDMapping) string {
	var s []string
	for _, e := range m {
		s = append(s, fmt.Sprintf("%d:%d:%d", e.ContainerID, e.HostID, e.Size))
	}
	return strings.Join(s, ":")
}

// escapeOption takes the meaning from what separates options and layers: docs/CLI.md.
var escapeOption = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace

// unmount takes the mount away and waits until laminafs has ended. What still uses it, which nothing should, does so
// no longer.
func (u *union) unmount() error {
	err := unix.Unmount(u.target, 0)
	if err == unix.EBUSY {
		err = unix.Unmount(u.target, unix.MNT_DETACH)
	}
	if err == unix.EINVAL {
		err = nil // it has gone with its server
	}
	if err != nil {
		err = fmt.Errorf("unmount %s: %w", u.target, err)
	}
	if u.pidfd < 0 {
		return err
	}
	if waitPidfd(u.pidfd, reapPatience) != nil {
		err = errors.Join(err, u.server.kill())
	}
	var info unix.Siginfo
	_ = unix.Waitid(unix.P_PIDFD, u.pidfd, &info, unix.WEXITED, nil) // it is a zombie of ours
	_ = unix.Close(u.pidfd)
	u.pidfd = -1
	return err
}

// children are the PIDs of our children. A process that has lost its parent becomes the child of any of our threads.
func children() map[int]bool {
	pids := map[int]bool{}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		return childrenByParent()
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // the thread is gone
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids[pid] = true
			}
		}
	}
	return pids
}

// childrenByParent is children on a kernel without CONFIG_PROC_CHILDREN.
func childrenByParent() map[int]bool {
	pids := map[int]bool{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return pids
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f := statFields(pid); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			pids[pid] = true
		}
	}
	return pids
}

// comm is the process's name.
func comm(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
