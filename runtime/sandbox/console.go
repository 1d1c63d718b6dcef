package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// makeConsole makes the container's terminal, if it is to have one, and shows it as /dev/console too.
func (in *initProcess) makeConsole() (master int, err error) {
	if !in.config.Process.Terminal {
		return -1, nil
	}
	master, slave, err := in.config.Process.openTerminal(in.root)
	if err != nil {
		return -1, err
	}
	defer sys.Close(slave)
	tree, err := unix.OpenTree(slave, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("/dev/console: %w", err)
	}
	defer sys.Close(tree)
	target, err := in.root.ensure("/dev/console", false)
	if err != nil {
		return -1, fmt.Errorf("/dev/console: %w", err)
	}
	defer sys.Close(target)
	if err := in.cover(tree, target, "/dev/console"); err != nil {
		return -1, fmt.Errorf("/dev/console: %w", err)
	}
	return master, in.config.Process.useTerminal(slave)
}

// openTerminal makes a terminal in the devpts of the container. Its ptmx is in the container's hands when exec asks
// for it, so it is looked at closely: it must be the one of a devpts.
func (c *processConfig) openTerminal(r root) (master, slave int, err error) {
	master, err = r.open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return -1, -1, fmt.Errorf("/dev/pts/ptmx: %w", err)
	}
	defer func() {
		if err != nil {
			sys.Close(master)
		}
	}()
	var fs unix.Statfs_t
	st, err := sys.Stat(sys.Fd(master))
	if err == nil {
		err = unix.Fstatfs(master, &fs)
	}
	if err != nil {
		return -1, -1, fmt.Errorf("/dev/pts/ptmx: %w", err)
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Rdev != unix.Mkdev(5, 2) {
		return -1, -1, errors.New("/dev/pts/ptmx is not a multiplexer of terminals")
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, -1, fmt.Errorf("unlock the terminal: %w", err)
	}
	// By descriptor: /dev/pts/N could be another's by the time it is opened (ioctl_tty(2), TIOCGPTPEER).
	slave, err = sys.OpenPeer(master, unix.O_RDWR|unix.O_NOCTTY)
	if err != nil {
		return -1, -1, fmt.Errorf("open the terminal: %w", err)
	}
	if c.Rows != 0 || c.Cols != 0 {
		err = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: c.Rows, Col: c.Cols})
	}
	return master, slave, err
}

// useTerminal makes the terminal standard input, output and error, and that which controls the session.
func (c *processConfig) useTerminal(slave int) error {
	// The group is devpts' to choose (its option gid), the owner is the user (grantpt(3)).
	if err := unix.Fchown(slave, int(c.UID), -1); err != nil && err != unix.EINVAL && err != unix.EPERM {
		return fmt.Errorf("owner of the terminal: %w", err)
	}
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("controlling terminal: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("dup3: %w", err)
		}
	}
	return nil
}
