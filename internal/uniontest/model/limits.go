package model

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits leave out what the process may not do, or what is the business of tests of permissions: the model knows of no
// permission that is denied. The zero value is that of root of the machine.
type Limits struct {
	// InNamespace: no devices, no attributes but those of user., and no set-id bits on files, of which a process other
	// than root of the machine cannot keep the kernel from taking them away.
	InNamespace bool

	// Own: all objects are the process's own, and it may always read and write them.
	Own bool

	// UID and GID own what the process makes.
	UID, GID int
}

// LimitsHere are those of this process.
func LimitsHere() Limits {
	l := Limits{UID: os.Getuid(), GID: os.Getgid()}
	b, err := os.ReadFile("/proc/self/uid_map")
	l.InNamespace = err == nil && !strings.HasSuffix(strings.TrimSpace(string(b)), " 4294967295")
	if l.UID != 0 {
		l.InNamespace, l.Own = true, true
	}
	return l
}

func (l Limits) mode(mode uint32, dir bool) uint32 {
	if l.Own {
		mode |= 0o700
	}
	if l.InNamespace && !dir {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	return mode
}

// name is an attribute that the process may set, of an object of any type.
func (l Limits) name(name string) string {
	if !l.InNamespace {
		return name
	}
	if _, bare, ok := strings.Cut(name, "."); ok && !strings.HasPrefix(name, "user.") {
		return "user." + bare
	}
	return name
}

// Entries are the entries of layers as the process can make them.
func (l Limits) Entries(entries []Entry) []Entry {
	if !l.InNamespace {
		return entries
	}
	out := slices.Clone(entries)
	for n := range out {
		e := &out[n]
		if l.Own {
			e.UID, e.GID = l.UID, l.GID
		}
		e.Mode = l.mode(e.Mode, e.Kind == "dir")
		if e.Kind == "symlink" {
			e.Mode = 0
		}
		if e.Kind == "device" {
			e.Kind = "fifo"
		}
		if e.Name = l.name(e.Name); e.Name != "" && e.Kind != "file" && e.Kind != "dir" {
			e.Name = ""
		}
		switch e.Kind + " " + e.Format {
		case "whiteout xattr":
			e.Format = "dev"
		case "opaque trusted":
			e.Format = "user"
		}
	}
	return out
}

// Op is the operation as the process can do it.
func (l Limits) Op(op Op) Op {
	if !l.InNamespace {
		return op
	}
	switch op.Kind {
	case "open", "mkdir", "chmod":
		// A descriptor tells not what it is of; directories may lose a set-group-ID bit by it.
		op.Mode = l.mode(op.Mode, op.Kind == "mkdir")
	case "mknod":
		if op.Mode&unix.S_IFMT == unix.S_IFCHR {
			op.Mode = op.Mode&^unix.S_IFMT | unix.S_IFIFO
		}
		op.Mode = l.mode(op.Mode, false)
	case "chown":
		if l.Own {
			op.UID, op.GID = l.UID, l.GID
		}
	case "setxattr", "getxattr", "removexattr":
		op.Name = l.name(op.Name)
	}
	return op
}
