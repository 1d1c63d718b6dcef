package model

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Result is what a real filesystem answered to an Op.
type Result struct {
	Errno unix.Errno
	N     int64 // bytes, or an offset
	Data  []byte
	Stat  *Stat
	Names []Name
}

// Stat is what stat(2) shows of an object.
type Stat struct {
	Mode     uint32 // full st_mode
	UID, GID uint32
	Nlink    uint64
	Dev, Ino uint64
	Rdev     uint64
	Size     int64 // bytes
	Mtime    unix.Timespec
}

func statOf(st *unix.Stat_t) *Stat {
	return &Stat{st.Mode, st.Uid, st.Gid, uint64(st.Nlink), st.Dev, st.Ino, st.Rdev, st.Size, st.Mtim}
}

// Name is an entry of a listing.
type Name struct {
	Name string
	Type uint8 // DT_*
	Ino  uint64
}

// Want is what the model expects of an Op.
type Want struct {
	// Skip says that the Op must not be executed: it would block, or touch a device.
	Skip bool

	Errno unix.Errno

	// check says what is wrong with the rest of the result of a successful Op, "" for nothing. It looks at the
	// model as it is right after the Op.
	check func(Result) string
}

// Check compares what happened with what had to, and says what is wrong. "" is nothing.
func (w Want) Check(r Result) string {
	switch {
	case r.Errno != w.Errno:
		return fmt.Sprintf("gives %s, want %s", errnoName(r.Errno), errnoName(w.Errno))
	case w.Errno == 0 && w.check != nil:
		return w.check(r)
	}
	return ""
}

func errnoName(e unix.Errno) string {
	if e == 0 {
		return "success"
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return e.Error()
}

func fails(e unix.Errno) Want { return Want{Errno: e} }

func wantN(n int64) Want {
	return Want{check: func(r Result) string {
		if r.N != n {
			return fmt.Sprintf("gives %d, want %d", r.N, n)
		}
		return ""
	}}
}

func wantData(b []byte) Want {
	b = slices.Clone(b)
	return Want{check: func(r Result) string { return diffBytes(r.Data, b, 0) }}
}

// diffBytes names the first byte that differs. off is the file offset of both.
func diffBytes(got, want []byte, off int64) string {
	if bytes.Equal(got, want) {
		return ""
	}
	n := 0
	for n < len(got) && n < len(want) && got[n] == want[n] {
		n++
	}
	return fmt.Sprintf("%d bytes at %d, want %d; at offset %d: got % x, want % x",
		len(got), off, len(want), off+int64(n), head(got, n), head(want, n))
}

func head(b []byte, n int) []byte { return b[n:min(len(b), n+8)] }

func wantNames(names []string) Want {
	return Want{check: func(r Result) string {
		got := make([]string, 0, len(r.Names))
		for _, n := range r.Names {
			got = append(got, n.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, names) {
			return fmt.Sprintf("lists %q, want %q", got, names)
		}
		return ""
	}}
}

// diffStat compares an object with what stat(2) shows of it. The first inode number seen is the object's for life.
func (t *Tree) diffStat(i *inode, st *Stat) string {
	switch {
	case st.Mode != i.mode:
		return fmt.Sprintf("st_mode %#o, want %#o", st.Mode, i.mode)
	case st.UID != i.uid || st.GID != i.gid:
		return fmt.Sprintf("owner %d:%d, want %d:%d", st.UID, st.GID, i.uid, i.gid)
	case i.isReg() && st.Size != i.data.size:
		return fmt.Sprintf("st_size %d, want %d", st.Size, i.data.size)
	case i.isLink() && st.Size != int64(len(i.target)):
		return fmt.Sprintf("st_size %d of a link to %q", st.Size, i.target)
	case st.Rdev != i.rdev:
		return fmt.Sprintf("st_rdev %#x, want %#x", st.Rdev, i.rdev)
	case i.mtimeKnown && (!i.isDir() || t.caps.DirMtime) && st.Mtime != i.mtime:
		return fmt.Sprintf("st_mtime %d.%09d, want %d.%09d", st.Mtime.Sec, st.Mtime.Nsec, i.mtime.Sec, i.mtime.Nsec)
	case i.ino != 0 && st.Ino != i.ino:
		return fmt.Sprintf("st_ino %d, was %d", st.Ino, i.ino)
	}
	if (!i.isDir() || t.caps.DirNlink) && (st.Nlink < uint64(i.nlink) || st.Nlink > uint64(i.nlink+i.hidden)) {
		return fmt.Sprintf("st_nlink %d, want %d", st.Nlink, i.nlink)
	}
	i.ino = st.Ino
	return ""
}

// diffNames compares a whole listing with a directory: every name once, and types and numbers as stat(2) has them.
func (t *Tree) diffNames(dir *inode, got []Name) string {
	seen := map[string]bool{}
	for _, n := range got {
		i := dir.entries[n.Name]
		switch {
		case i == nil:
			return fmt.Sprintf("lists %q, which is not there", n.Name)
		case seen[n.Name]:
			return fmt.Sprintf("lists %q twice", n.Name)
		case n.Type != uint8(i.kind()>>12): // IFTODT of <dirent.h>
			return fmt.Sprintf("lists %q with d_type %d, want %d", n.Name, n.Type, i.kind()>>12)
		case t.caps.DirentIno && i.ino != 0 && n.Ino != i.ino:
			return fmt.Sprintf("lists %q with d_ino %d, st_ino is %d", n.Name, n.Ino, i.ino)
		}
		seen[n.Name] = true
	}
	for _, name := range dir.names() {
		if !seen[name] {
			return fmt.Sprintf("does not list %q", name)
		}
	}
	return ""
}
