package transport

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
)

// commFd is the descriptor on which fusermount3 sends the /dev/fuse descriptor, told in the variable _FUSE_COMMFD.
const commFd = 3

// helper finds the set-id program that mounts for ordinary users. PATH may be empty where we are started from.
func helper() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "/usr/bin/fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("fusermount3: not found; is the package fuse3 installed?")
}

// mountByHelper mounts by fusermount3, which may what an ordinary user may not, and checks that the mount point
// belongs to the user.
//
//	we                                   fusermount3
//	socketpair, exec with _FUSE_COMMFD  -->  open /dev/fuse, mount(2)
//	recvmsg                             <--  SCM_RIGHTS: the descriptor
//	wait                                <--  exit 0
func mountByHelper(path string, o *Options) (fd int, err error) {
	prog, err := helper()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	remote := os.NewFile(uintptr(pair[1]), "fusermount3 socket")
	defer remote.Close()

	cmd := exec.Command(prog, "-o", o.helperOptions(), "--", path)
	cmd.Args[0] = "fusermount3" // which it puts before what it says
	cmd.Env = append(os.Environ(), fmt.Sprintf("_FUSE_COMMFD=%d", commFd))
	cmd.ExtraFiles = []*os.File{remote}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return -1, helperError("fusermount3", err, stderr.String())
	}
	_ = remote.Close() // so that a helper which sent nothing is an end of file, not a wait for ever
	if _, fd, err = packet.Receive(pair[0], make([]byte, 1)); err == nil && fd < 0 {
		err = errors.New("it sent no descriptor")
	}
	if err != nil {
		return -1, fmt.Errorf("fusermount3: %w", err)
	}
	return fd, nil
}

// helperOptions is what fusermount3 is to mount with. It escapes with a backslash, as we do.
func (o *Options) helperOptions() string {
	list := append(o.common(false), "subtype="+Subtype, "fsname="+o.fsName())
	for i := range list {
		list[i] = strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(list[i])
	}
	flags := o.flags(false, false)
	for _, f := range mountFlags {
		if flags&f.flag != 0 && f.flag&helperFlags != 0 {
			list = append(list, f.name)
		}
	}
	return strings.Join(list, ",")
}

// helperFlags are the flags that fusermount3 knows; it refuses a mount over any other. suid and dev it would
// ignore with a warning.
const helperFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_SYNCHRONOUS |
	unix.MS_DIRSYNC | unix.MS_NOATIME

// unmountByHelper unmounts what mountByHelper has mounted.
func unmountByHelper(target string, lazy bool) error {
	prog, err := helper()
	if err != nil {
		return err
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	cmd := exec.Command(prog, append(args, "--", target)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return helperError("fusermount3 -u", err, stderr.String())
	}
	return nil
}

// helperError makes one line of what the helper says.
func helperError(what string, err error, stderr string) error {
	if s := strings.TrimSpace(stderr); s != "" {
		return errors.New(strings.ReplaceAll(s, "\n", "; "))
	}
	return fmt.Errorf("%s: %w", what, err)
}
