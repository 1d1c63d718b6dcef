package packet_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
)

// pair makes two ends; those that the test does not close are closed at its end.
func pair(t *testing.T) (ours, theirs int) {
	t.Helper()
	ours, theirs, err := packet.Pair()
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func send(t *testing.T, sock int, msg string) {
	t.Helper()
	if err := packet.Send(sock, []byte(msg), -1); err != nil {
		t.Fatalf("send %q: %v", msg, err)
	}
}

// An end is one of both kinds.
type end interface {
	Receive(buf []byte) (n, fd int, err error)
	Send(msg []byte, fd int) error
}

type blocking int

func (b blocking) Receive(buf []byte) (n, fd int, err error) { return packet.Receive(int(b), buf) }
func (b blocking) Send(msg []byte, fd int) error             { return packet.Send(int(b), msg, fd) }

// ends runs a test with an end of each kind, which is ours.
func ends(t *testing.T, test func(t *testing.T, ours end, theirs int)) {
	t.Run("blocking", func(t *testing.T) {
		ours, theirs := pair(t)
		defer unix.Close(ours)
		test(t, blocking(ours), theirs)
	})
	t.Run("waited for", func(t *testing.T) {
		ours, theirs := pair(t)
		c, err := packet.New(ours)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		test(t, c, theirs)
	})
	t.Run("inherited", func(t *testing.T) {
		ours, theirs := pair(t)
		c := packet.Inherited(ours)
		defer c.Close()
		test(t, c, theirs)
	})
}

// TestLastWords: who ends without having read what it was told has been heard nevertheless.
func TestLastWords(t *testing.T) {
	ends(t, func(t *testing.T, ours end, theirs int) {
		if err := ours.Send([]byte("go on"), -1); err != nil {
			t.Fatal(err)
		}
		send(t, theirs, "it cannot")
		send(t, theirs, "be done")
		if err := unix.Close(theirs); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		for _, want := range []string{"it cannot", "be done"} {
			if n, fd, err := ours.Receive(buf); err != nil || string(buf[:n]) != want || fd != -1 {
				t.Errorf("received %q, %d, %v; want %q", buf[:n], fd, err, want)
			}
		}
		for range 2 {
			if n, _, err := ours.Receive(buf); err != io.EOF {
				t.Errorf("then %q, %v; want %v", buf[:n], err, io.EOF)
			}
		}
	})
}

func TestSendToNobody(t *testing.T) {
	ends(t, func(t *testing.T, ours end, theirs int) {
		if err := ours.Send([]byte("unread"), -1); err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(theirs); err != nil {
			t.Fatal(err)
		}
		for range 2 { // reset, and then a broken pipe
			if err := ours.Send([]byte("x"), -1); !packet.Gone(err) {
				t.Errorf("%v, want an error that says so", err)
			}
		}
	})
}

func TestDescriptor(t *testing.T) {
	ends(t, func(t *testing.T, ours end, theirs int) {
		defer unix.Close(theirs)
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := packet.Send(theirs, []byte("null"), int(f.Fd())); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		n, fd, err := ours.Receive(buf)
		if err != nil || string(buf[:n]) != "null" || fd < 0 {
			t.Fatalf("received %q, %d, %v", buf[:n], fd, err)
		}
		defer unix.Close(fd)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v; want FD_CLOEXEC", flags, err)
		}
		var got, want unix.Stat_t
		if err := errors.Join(unix.Fstat(fd, &got), unix.Fstat(int(f.Fd()), &want)); err != nil || got.Rdev != want.Rdev {
			t.Errorf("device %d, %v; want %d", got.Rdev, err, want.Rdev)
		}
	})
}

// TestTooLong: a message is whole or an error, and the next one is the next.
func TestTooLong(t *testing.T) {
	ends(t, func(t *testing.T, ours end, theirs int) {
		defer unix.Close(theirs)
		before := descriptors(t)
		if err := packet.Send(theirs, []byte("12345"), theirs); err != nil {
			t.Fatal(err)
		}
		send(t, theirs, "1234")
		buf := make([]byte, 4)
		if n, fd, err := ours.Receive(buf); err != unix.EMSGSIZE || n != 0 || fd != -1 {
			t.Errorf("received %d bytes, descriptor %d, %v; want %v", n, fd, err, unix.EMSGSIZE)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
		if n, _, err := ours.Receive(buf); err != nil || string(buf[:n]) != "1234" {
			t.Errorf("received %q, %v", buf[:n], err)
		}
	})
}

// descriptors counts those that are open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
