package claim

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// open opens the directory once more, as another process would.
func open(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// taken opens the directory and takes hold of it.
func taken(t *testing.T, dir string) int {
	t.Helper()
	fd := open(t, dir)
	if err := Take(fd); err != nil {
		t.Fatal(err)
	}
	return fd
}

// mountHere mounts fusectl as the list of connections and returns the minor number of a device that is in it.
func mountHere(t *testing.T) (minor uint32) {
	t.Helper()
	mountList(t)
	return mountFuse(t).minor
}

func mountList(t *testing.T) {
	t.Helper()
	old := connections
	connections = t.TempDir()
	if err := unix.Mount("fusectl", connections, "fusectl", 0, ""); err != nil {
		t.Skipf("needs root, and FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(connections, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		connections = old
	})
}

// connection is a FUSE mount that nobody serves.
type connection struct {
	dir   string
	fd    int
	minor uint32
}

func mountFuse(t *testing.T) connection {
	t.Helper()
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	t.Cleanup(func() { unix.Close(fuse) })
	dir := t.TempDir()
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)
	if err := unix.Mount("claim", dir, "fuse", 0, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // a test may have done so
	mounts, err := sys.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.Path == dir {
			return connection{dir, fuse, m.Minor}
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return connection{}
}

// nowhere is a minor number that no mount has.
const nowhere = 1 << 19

func wantState(t *testing.T, dir string, want state) {
	t.Helper()
	if got := look(open(t, dir)); got != want {
		t.Errorf("state %d, want %d", got, want)
	}
}

func TestStates(t *testing.T) {
	minor := mountHere(t)
	dir := t.TempDir()
	fd := taken(t, dir)
	wantState(t, dir, unknown)
	Serving(fd, minor)
	wantState(t, dir, live)
	Ending(fd)
	wantState(t, dir, leaving)
	Release(fd)
	wantState(t, dir, unknown)

	// What the last holder has said is not said of the next.
	next := taken(t, dir)
	wantState(t, dir, unknown)
	Serving(next, nowhere)
	wantState(t, dir, leaving)
}

// The number of a device that is gone is another's soon.
func TestDeviceOfAnother(t *testing.T) {
	mountList(t)
	tick()
	before := time.Now()
	tick()
	minor := mountFuse(t).minor
	if got := stateOf(minor, time.Now()); got != live {
		t.Errorf("state %d, want live", got)
	}
	if got := stateOf(minor, before); got != leaving {
		t.Errorf("of a mount before that one: state %d, want leaving", got)
	}
}

// A list is not younger because a connection has gone.
func TestDeviceGivenOutAgain(t *testing.T) {
	mountList(t)
	tick()
	first := mountFuse(t)
	had := time.Now()
	tick()
	if err := unix.Unmount(first.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	unix.Close(first.fd)
	tick()
	if got := stateOf(mountFuse(t).minor, had); got != leaving {
		t.Errorf("state %d, want leaving", got)
	}
}

// tick lets the time go on that files are given.
func tick() { <-time.After(50 * time.Millisecond) }

// A list that was mounted after the mount says of it that it is as young as the list: its holder is not one that leaves.
func TestListMountedLater(t *testing.T) {
	minor := mountFuse(t).minor
	had := time.Now()
	tick()
	mountList(t)
	if got := stateOf(minor, had); got != seen && got != live { // live where it was mounted elsewhere before
		t.Errorf("state %d, want one that is there", got)
	}
	if got := stateOf(nowhere, had); got != leaving {
		t.Errorf("of one that is not listed: state %d, want leaving", got)
	}
}

// Without the kernel's list of connections a mount that is not here may be elsewhere.
func TestWithoutConnections(t *testing.T) {
	minor := mountHere(t)
	list := connections
	defer func() { connections = list }()
	connections = t.TempDir()
	if got := stateOf(minor, time.Now()); got != seen {
		t.Errorf("mounted here: state %d, want seen", got)
	}
	if got := stateOf(nowhere, time.Now()); got != unknown {
		t.Errorf("not mounted here: state %d, want unknown", got)
	}
}

func TestInUse(t *testing.T) {
	dir := t.TempDir()
	fd := taken(t, dir)
	Serving(fd, mountHere(t))
	err := Take(open(t, dir))
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("taken twice: %v", err)
	}
	wantState(t, dir, live) // and the one who asked has changed nothing
}

// Whoever leaves is waited for, for longer than one of whom nothing is known.
func TestWaitsForWhoLeaves(t *testing.T) {
	old := patience
	defer func() { patience = old }()
	patience = map[state]time.Duration{live: 0, unknown: 0}
	dir := t.TempDir()
	fd := taken(t, dir)
	Ending(fd)
	got := make(chan error, 1)
	next := open(t, dir)
	asked := make(chan struct{})
	go func() {
		close(asked)
		got <- Take(next)
	}()
	<-asked
	for range 20 { // each more patience than an unknown one would get
		select {
		case err := <-got:
			t.Fatalf("taken while another has it: %v", err)
		case <-time.After(pause):
		}
	}
	Release(fd)
	if err := <-got; err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// Who has waited for long for one that leaves does not take the moment of its going for somebody of whom nothing is known.
func TestTakesWhatIsLet(t *testing.T) {
	old := patience
	defer func() { patience = old }()
	patience = map[state]time.Duration{live: time.Second, unknown: time.Second}
	dir := t.TempDir()
	fd := taken(t, dir)
	Ending(fd)
	got := make(chan error, 1)
	next := open(t, dir)
	go func() { got <- Take(next) }()
	select {
	case err := <-got:
		t.Fatalf("taken while another has it: %v", err)
	case <-time.After(patience[unknown] + patience[unknown]/2):
	}
	lock(fd, unix.F_UNLCK, 0, 0) // as Release, and the end of a process, begin
	select {
	case err := <-got:
		t.Fatalf("while it lets go: %v", err)
	case <-time.After(3 * pause):
	}
	Release(fd)
	if err := <-got; err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// Closing lets go, as the end of the process does.
func TestCloseReleases(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Take(fd); err != nil {
		t.Fatal(err)
	}
	Serving(fd, nowhere)
	unix.Close(fd)
	taken(t, dir)
}
