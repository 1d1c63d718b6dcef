package main

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
)

// TestCommandLine: what a mounter says to a server that it has started before it knew what to serve.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		name, said string
		want       []string
		err        string
	}{
		{"options", "-o\x00lowerdir=a b:c\nd\x00lamina\x00/merged\x00", []string{"-o", "lowerdir=a b:c\nd", "lamina", "/merged"}, ""},
		{"an empty argument", "-o\x00\x00/m\x00", []string{"-o", "", "/m"}, ""},
		{"cut off", "-o\x00lowerdir=a", nil, "mounter: want a command line, of at most 212992 bytes"},
		{"nothing", "", nil, errGone.Error()},
	} {
		ours, theirs, err := packet.Pair()
		if err != nil {
			t.Fatal(err)
		}
		if c.said != "" {
			if err := unix.Send(theirs, []byte(c.said), 0); err != nil {
				t.Fatal(err)
			}
		}
		_ = unix.Close(theirs)
		got, err := commandLine(ours)
		if !slices.Equal(got, c.want) || c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: %q, %v; want %q, %q", c.name, got, err, c.want, c.err)
		}
		_ = unix.Close(ours)
	}
}
