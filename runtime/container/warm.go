package container

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/sandbox"
)

// warmSize is how much of a program is read ahead, in bytes.
const warmSize = 4 << 20

// warm has the kernel read the program that the container executes, while its namespaces are made. A program reads itself in pieces, as
// it comes to them, and waits for laminafs each time. It is a matter of speed only: what is not found here the container looks for itself,
// and says what is wrong.
func (m *monitor) warm(p *specs.Process) {
	root, err := m.rootForRequest()
	if err != nil {
		return
	}
	defer unix.Close(root)
	for _, name := range programs(p) {
		if readAhead(root, name) == nil {
			return
		}
	}
}

// programs are the paths at which the container looks for the command.
func programs(p *specs.Process) []string {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil
	}
	names := []string{p.Args[0]}
	if !strings.Contains(p.Args[0], "/") {
		names = sandbox.SearchPath(p.Args[0], p.Env)
	}
	for i, name := range names {
		if !path.IsAbs(name) {
			names[i] = path.Join("/", p.Cwd, name)
		}
	}
	return names
}

// readAhead has the kernel read the beginning of a regular file below root, and does not wait for it.
func readAhead(root int, name string) error {
	at, err := openIn(root, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	st, err := sys.Stat(sys.Fd(at))
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // to open a device may do something
		return unix.EACCES
	}
	fd, err := sys.Open(sys.Fd(at), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fadvise(fd, 0, min(st.Size, warmSize), unix.FADV_WILLNEED)
}
