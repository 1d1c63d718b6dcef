package crash

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/model"
)

// base is the tree that every scenario begins with: one object of every kind in the lowest layer, and what a second
// layer can do to them.
var base = []model.Entry{
	{Kind: "dir", Layer: 1, Path: "d", Mode: 0o755, Mtime: 1000, Name: "user.one", Value: "dir"},
	{Kind: "file", Layer: 1, Path: "d/a", Mode: 0o640, UID: 1, Len: 5000, Seed: 1, Mtime: 1001},
	{Kind: "dir", Layer: 1, Path: "d/s", Mode: 0o2755, GID: 2, Mtime: 1002},
	{Kind: "file", Layer: 1, Path: "d/s/x", Mode: 0o644, Len: 100, Seed: 2, Mtime: 1003},
	{Kind: "symlink", Layer: 1, Path: "d/s/l", To: "x", Mtime: 1004},
	{Kind: "file", Layer: 1, Path: "f", Mode: 0o755, UID: 1, GID: 2, Len: 10000, Seed: 3, Mtime: 1005, Name: "user.one", Value: "f"},
	{Kind: "file", Layer: 1, Path: "g", Mode: 0o600, Len: 10, Seed: 4, Mtime: 1006},
	{Kind: "file", Layer: 1, Path: "holes", Mode: 0o644, Len: 300 << 10, Hole: 300<<10 - 9000, Seed: 5, Mtime: 1007},
	{Kind: "symlink", Layer: 1, Path: "l", To: "d/a", Mtime: 1008, Name: "trusted.one", Value: "l"},
	{Kind: "fifo", Layer: 1, Path: "p", Mode: 0o600, UID: 3, Mtime: 1009},
	{Kind: "socket", Layer: 1, Path: "k", Mode: 0o600, Mtime: 1010},
	{Kind: "device", Layer: 1, Path: "c", Mode: 0o666, Mtime: 1011},
	{Kind: "file", Layer: 1, Path: "h1", Mode: 0o644, Len: 6000, Seed: 6, Mtime: 1012, Name: "user.two", Value: "h"},
	{Kind: "hardlink", Layer: 1, Path: "h2", To: "h1"},
	{Kind: "hardlink", Layer: 1, Path: "d/h3", To: "h1"},
	{Kind: "dir", Layer: 1, Path: "e", Mode: 0o700, Mtime: 1013},
	{Kind: "file", Layer: 1, Path: "w", Mode: 0o644, Len: 20, Seed: 7, Mtime: 1014},
	{Kind: "dir", Layer: 1, Path: "wd", Mode: 0o755, Mtime: 1015},
	{Kind: "file", Layer: 1, Path: "wd/in", Mode: 0o644, Len: 20, Seed: 8, Mtime: 1016},
	{Kind: "dir", Layer: 1, Path: "m", Mode: 0o755, Mtime: 1017},
	{Kind: "file", Layer: 1, Path: "m/one", Mode: 0o644, Len: 20, Seed: 9, Mtime: 1018},
	{Kind: "dir", Layer: 1, Path: "o", Mode: 0o755, Mtime: 1019},
	{Kind: "file", Layer: 1, Path: "o/gone", Mode: 0o644, Len: 20, Seed: 10, Mtime: 1020},

	{Kind: "whiteout", Layer: 0, Path: "w", Format: "wh"},
	{Kind: "whiteout", Layer: 0, Path: "wd", Format: "dev"},
	{Kind: "dir", Layer: 0, Path: "m", Mode: 0o700, Mtime: 1021},
	{Kind: "file", Layer: 0, Path: "m/two", Mode: 0o644, Len: 20, Seed: 11, Mtime: 1022},
	{Kind: "dir", Layer: 0, Path: "o", Mode: 0o755, Mtime: 1023},
	{Kind: "opaque", Layer: 0, Path: "o", Format: "wh"},
	{Kind: "file", Layer: 0, Path: "o/seen", Mode: 0o644, Len: 20, Seed: 12, Mtime: 1024},
}

// scenario is one change, in which the server dies.
type scenario struct {
	name   string
	setup  []model.Op
	change model.Op
	open   bool // the change is about a descriptor of the setup
}

// under is the scenario as somebody with the limits can do it.
func (s *scenario) under(l model.Limits) *scenario {
	c := *s
	c.setup = nil
	for _, o := range s.setup {
		c.setup = append(c.setup, l.Op(o))
	}
	c.change = l.Op(s.change)
	return &c
}

func op(kind, path string) model.Op { return model.Op{Kind: kind, Path: path} }

func mv(path, to string, flags ...string) model.Op {
	o := model.Op{Kind: "rename", Path: path, To: to}
	if len(flags) > 0 {
		o.Flags = flags[0]
	}
	return o
}

func chmod(path string) model.Op { return model.Op{Kind: "chmod", Path: path, Mode: 0o750} }
func mkdir(path string) model.Op { return model.Op{Kind: "mkdir", Path: path, Mode: 0o751} }
func rm(path string) model.Op    { return op("unlink", path) }
func rmdir(path string) model.Op { return op("rmdir", path) }
func ln(path, to string) model.Op {
	return model.Op{Kind: "link", Path: path, To: to}
}

func openAs(h int, path, flags string) model.Op {
	return model.Op{Kind: "open", H: h, Path: path, Flags: flags, Mode: 0o640}
}

func list(ops ...model.Op) []model.Op { return ops }

var emptyM = list(rm("m/one"), rm("m/two"))

var scenarios = []*scenario{
	// Copy-up, of each type and by each call that needs it.
	{name: "chmod file", change: chmod("f")},
	{name: "chown file", change: model.Op{Kind: "chown", Path: "f", UID: 5, GID: -1}},
	{name: "times of file", change: model.Op{Kind: "utimens", Path: "f", Off: 77, Off2: 88}},
	{name: "xattr of file", change: model.Op{Kind: "setxattr", Path: "f", Name: "user.two", Value: "v"}},
	{name: "truncate file", change: model.Op{Kind: "truncate", Path: "f", Len: 50}},
	{name: "open and truncate", change: openAs(1, "f", "rdwr,trunc")},
	{name: "write", setup: list(openAs(1, "f", "rdwr")), change: model.Op{Kind: "pwrite", H: 1, Off: 10, Len: 20, Seed: 9}, open: true},
	{name: "write to a name below", setup: list(openAs(1, "d/s/x", "wronly,append")), change: model.Op{Kind: "write", H: 1, Len: 20, Seed: 9}, open: true},
	{name: "chmod file with holes", change: chmod("holes")},
	{name: "chmod dir", change: chmod("d")},
	{name: "chmod merged dir", change: chmod("m")},
	{name: "chmod dir below", change: chmod("d/s")},
	{name: "chmod file below", change: chmod("d/s/x")},
	{name: "chown symlink", change: model.Op{Kind: "chown", Path: "l", UID: 5, GID: 6, Flags: "nofollow"}},
	{name: "chmod fifo", change: chmod("p")},
	{name: "chmod socket", change: chmod("k")},
	{name: "chmod device", change: chmod("c")},
	{name: "punch hole", setup: list(openAs(1, "f", "rdwr")), change: model.Op{Kind: "fallocate", H: 1, Flags: "punch,keep", Len: 5000}, open: true},

	// Hard links of a lower file.
	{name: "chmod hard link", change: chmod("h1")},
	{name: "chmod hard link below", change: chmod("d/h3")},
	{name: "chmod hard link that is up by another name", setup: list(chmod("h1")), change: model.Op{Kind: "truncate", Path: "h2", Len: 1}},
	{name: "link hard link", change: ln("h1", "n")},
	{name: "link hard link that is up", setup: list(chmod("h1")), change: ln("h2", "n")},
	{name: "unlink hard link", change: rm("h1")},
	{name: "unlink hard link that is up", setup: list(chmod("h1")), change: rm("h1")},
	{name: "unlink hard link that is up by another name", setup: list(chmod("h1")), change: rm("h2")},
	{name: "unlink the last hard link", setup: list(chmod("h1"), rm("h1"), rm("d/h3")), change: rm("h2")},
	{name: "rename hard link", change: mv("h1", "n")},
	{name: "rename hard link that is up by another name", setup: list(chmod("h1")), change: mv("h2", "d/n")},
	{name: "rename over hard link", change: mv("f", "h2")},
	{name: "rename over hard link that is up", setup: list(chmod("h1")), change: mv("f", "h2")},
	{name: "exchange with hard link", setup: list(chmod("h1")), change: mv("f", "h2", "exchange")},
	{name: "rename dir with hard link that is up", setup: list(chmod("h1")), change: mv("d", "n")},

	// Links.
	{name: "link file", change: ln("f", "n")},
	{name: "link file that is up", setup: list(chmod("f")), change: ln("f", "d/n")},
	{name: "link over whiteout", change: ln("f", "w")},
	{name: "link over own whiteout", setup: list(rm("g")), change: ln("f", "g")},
	{name: "link symlink", change: ln("l", "n")},
	{name: "link unnamed file", setup: list(openAs(1, "d", "rdwr,tmpfile")), change: model.Op{Kind: "linkfd", H: 1, To: "d/n"}, open: true},
	{name: "link unnamed file over own whiteout", setup: list(rm("g"), openAs(1, "d", "rdwr,tmpfile")), change: model.Op{Kind: "linkfd", H: 1, To: "g"}, open: true},

	// New names.
	{name: "create", change: openAs(1, "d/s/n", "rdwr,creat,excl")},
	{name: "create over whiteout", change: openAs(1, "w", "rdwr,creat,excl")},
	{name: "create over own whiteout", setup: list(rm("f")), change: openAs(1, "f", "rdwr,creat,excl")},
	{name: "mkdir", change: mkdir("d/s/n")},
	{name: "mkdir over whiteout", change: mkdir("w")},
	{name: "mkdir over whiteout of a dir", change: mkdir("wd")},
	{name: "mkdir over own whiteout", setup: list(rmdir("e")), change: mkdir("e")},
	{name: "mkdir over own whiteout of a merged dir", setup: append(emptyM, rmdir("m")), change: mkdir("m")},
	{name: "symlink over own whiteout", setup: list(rm("f")), change: model.Op{Kind: "symlink", Path: "f", To: "g"}},
	{name: "mknod over own whiteout", setup: list(rm("f")), change: model.Op{Kind: "mknod", Path: "f", Mode: unix.S_IFIFO | 0o600}},

	// Removal.
	{name: "unlink", change: rm("f")},
	{name: "unlink below", change: rm("d/s/x")},
	{name: "unlink symlink", change: rm("l")},
	{name: "unlink what is up", setup: list(chmod("f")), change: rm("f")},
	{name: "unlink what is new", setup: list(openAs(1, "n", "rdwr,creat")), change: rm("n")},
	{name: "unlink what is new over whiteout", setup: list(openAs(1, "w", "rdwr,creat")), change: rm("w")},
	{name: "unlink what is new over own whiteout", setup: list(rm("f"), openAs(1, "f", "rdwr,creat")), change: rm("f")},
	{name: "unlink what is open", setup: list(openAs(1, "f", "rdonly")), change: rm("f")},
	{name: "rmdir", change: rmdir("e")},
	{name: "rmdir of merged dir", setup: emptyM, change: rmdir("m")},
	{name: "rmdir of opaque dir", setup: list(rm("o/seen")), change: rmdir("o")},
	{name: "rmdir of what is up", setup: list(chmod("e")), change: rmdir("e")},
	{name: "rmdir of what is new", setup: list(mkdir("n")), change: rmdir("n")},
	{name: "rmdir of what is new over own whiteout", setup: list(rmdir("e"), mkdir("e")), change: rmdir("e")},

	// Files move.
	{name: "rename file", change: mv("f", "n")},
	{name: "rename file that is up", setup: list(chmod("f")), change: mv("f", "n")},
	{name: "rename file that is new", setup: list(openAs(1, "n", "rdwr,creat")), change: mv("n", "d/n")},
	{name: "rename file to another dir", change: mv("f", "d/s/n")},
	{name: "rename file from another dir", change: mv("d/s/x", "n")},
	{name: "rename file over file", change: mv("f", "g")},
	{name: "rename file that is new over file", setup: list(openAs(1, "n", "rdwr,creat")), change: mv("n", "g")},
	{name: "rename file over file that is new", setup: list(openAs(1, "n", "rdwr,creat")), change: mv("f", "n")},
	{name: "rename file over whiteout", change: mv("f", "w")},
	{name: "rename file over own whiteout", setup: list(rm("g")), change: mv("f", "g")},
	{name: "rename file away and back", setup: list(mv("f", "n")), change: mv("n", "f")},
	{name: "rename file, replacing nothing", change: mv("f", "d/n", "noreplace")},
	{name: "rename file, leaving a whiteout", change: mv("f", "n", "whiteout")},
	{name: "rename new file, leaving a whiteout", setup: list(openAs(1, "n", "rdwr,creat")), change: mv("n", "x", "whiteout")},
	{name: "rename symlink", change: mv("l", "d/n")},
	{name: "rename fifo", change: mv("p", "n")},
	{name: "exchange files", change: mv("f", "d/a", "exchange")},
	{name: "exchange with new file", setup: list(openAs(1, "n", "rdwr,creat")), change: mv("f", "n", "exchange")},
	{name: "exchange with file over own whiteout", setup: list(rm("g"), openAs(1, "g", "rdwr,creat")), change: mv("f", "g", "exchange")},

	// Directories move.
	{name: "rename dir", change: mv("d", "n")},
	{name: "rename dir that is changed", setup: list(chmod("d/a"), rm("d/s/x"), mkdir("d/n")), change: mv("d", "n")},
	{name: "rename merged dir", change: mv("m", "n")},
	{name: "rename opaque dir", change: mv("o", "n")},
	{name: "rename dir to another dir", change: mv("d", "m/n")},
	{name: "rename dir below", change: mv("d/s", "n")},
	{name: "rename dir over empty dir", change: mv("d", "e")},
	{name: "rename dir over emptied merged dir", setup: emptyM, change: mv("d", "m")},
	{name: "rename new dir over empty dir", setup: list(mkdir("n")), change: mv("n", "e")},
	{name: "rename new dir over emptied merged dir", setup: append(emptyM, mkdir("n")), change: mv("n", "m")},
	{name: "rename dir over new empty dir", setup: list(mkdir("n")), change: mv("d", "n")},
	{name: "rename dir over whiteout", change: mv("d", "wd")},
	{name: "rename dir over own whiteout", setup: list(rm("g")), change: mv("d", "g")},
	{name: "rename dir again", setup: list(mv("d", "n")), change: mv("n", "x")},
	{name: "rename dir away and back", setup: list(mv("d", "n")), change: mv("n", "d")},
	{name: "rename dir within a renamed dir", setup: list(mv("d", "n")), change: mv("n/s", "n/y")},
	{name: "rename dir out of a renamed dir", setup: list(mv("d", "n")), change: mv("n/s", "s")},
	{name: "rename empty dir", change: mv("e", "n")},
	{name: "rename dir, leaving a whiteout", change: mv("d", "n", "whiteout")},
	{name: "exchange dirs", change: mv("d", "m", "exchange")},
	{name: "exchange dir and file", change: mv("d", "f", "exchange")},
	{name: "exchange dir and new dir", setup: list(mkdir("n")), change: mv("d", "n", "exchange")},
	{name: "exchange opaque dir and file below", change: mv("o", "m/one", "exchange")},
}
