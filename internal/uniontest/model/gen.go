package model

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// poolNames are the names that objects get: few, so that operations meet, some of them awkward.
var poolNames = []string{"a", "b", "c", "d", "e", "f", "g", "new\nline", "sp ace", "\xff\xfe", strings.Repeat("n", 64)}

var xattrNames = []string{"trusted.one", "trusted.two", "user.one", "user.two", "security.lamina"}

var xattrValues = []string{"", "v", "some value", "\x00\x01binary\xff", strings.Repeat("long ", 40)}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func randomMode(r *rand.Rand) uint32 {
	return pick(r, []uint32{0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o2644, 0, 0o444})
}

// randomDirMode leaves out the sticky bit: with it, /proc/sys/fs/protected_* stop root as well.
func randomDirMode(r *rand.Rand) uint32 {
	return pick(r, []uint32{0o755, 0o755, 0o700, 0o777, 0o2755, 0o2770})
}

func randomLen(r *rand.Rand) int64 {
	switch r.IntN(6) {
	case 0:
		return 0
	case 1:
		return pageSize * r.Int64N(8)
	case 2:
		return r.Int64N(100 << 10)
	}
	return r.Int64N(5000)
}

func randomTarget(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return "/nonexistent/lamina"
	case 1, 2:
		return pick(r, poolNames) + "/" + pick(r, poolNames)
	}
	return pick(r, poolNames)
}

// Gen makes up operations for a tree: mostly such as succeed, on objects that are there.
type Gen struct {
	r    *rand.Rand
	t    *Tree
	next int // number for the next handle or mapping
	ops  []weighted
}

type weighted struct {
	weight int
	make   func(*Gen) Op
}

// NewGen returns a generator of operations on t, the same ones for the same source.
func NewGen(r *rand.Rand, t *Tree) *Gen { return &Gen{r: r, t: t, next: 1, ops: allOps} }

// NewCrashGen leaves out what a crash of the server does not keep: writes through mappings.
func NewCrashGen(r *rand.Rand, t *Tree) *Gen {
	g := NewGen(r, t)
	g.ops = slices.DeleteFunc(slices.Clone(allOps), func(w weighted) bool { return w.make(g).Kind == "mwrite" })
	return g
}

// Next makes up an operation. Apply it to the tree before the next one.
func (g *Gen) Next() Op {
	total := 0
	for _, w := range g.ops {
		total += w.weight
	}
	n := g.r.IntN(total)
	for _, w := range g.ops {
		if n -= w.weight; n >= 0 {
			continue
		}
		op := w.make(g)
		if op.Map < 0 && len(g.t.handles) > 0 {
			op = g.genMmap()
		}
		if op.H < 0 || op.H2 < 0 || op.Map < 0 {
			op = g.genOpen()
		}
		return g.t.caps.Limits.Op(op)
	}
	panic("model: weights do not add up")
}

const (
	maxHandles = 12
	maxDepth   = 5
)

// allOps are the operations by how often they are made up.
var allOps = []weighted{
	{12, (*Gen).genOpen}, {4, (*Gen).genClose},
	{5, func(g *Gen) Op { return Op{Kind: "read", H: g.handle(), Len: randomLen(g.r)} }},
	{5, func(g *Gen) Op { return Op{Kind: "pread", H: g.handle(), Off: g.off(), Len: randomLen(g.r)} }},
	{6, func(g *Gen) Op { return Op{Kind: "write", H: g.handle(), Len: randomLen(g.r), Seed: g.seed()} }},
	{6, func(g *Gen) Op {
		return Op{Kind: "pwrite", H: g.handle(), Off: g.off(), Len: randomLen(g.r), Seed: g.seed()}
	}},
	{2, func(g *Gen) Op { return Op{Kind: "seek", H: g.handle(), Off: g.off()} }},
	{2, func(g *Gen) Op {
		return Op{Kind: pick(g.r, []string{"seekdata", "seekhole"}), H: g.handle(), Off: g.off()}
	}},
	{3, (*Gen).genFallocate},
	{3, func(g *Gen) Op {
		return Op{Kind: "copy", H: g.handle(), H2: g.handle(), Off: g.off(), Off2: g.off(), Len: randomLen(g.r)}
	}},
	{2, func(g *Gen) Op { return Op{Kind: "fsync", H: g.handle()} }},
	{4, (*Gen).genMmap},
	{4, func(g *Gen) Op { return Op{Kind: "mread", Map: g.mapping(), Off: g.off(), Len: randomLen(g.r)} }},
	{4, func(g *Gen) Op {
		return Op{Kind: "mwrite", Map: g.mapping(), Off: g.off(), Len: randomLen(g.r), Seed: g.seed(),
			Flags: pick(g.r, []string{"", "sync", "sync"})}
	}},
	{2, func(g *Gen) Op { return Op{Kind: "munmap", Map: g.mapping()} }},
	{7, func(g *Gen) Op { return g.at(Op{Kind: "mkdir", Mode: randomDirMode(g.r)}, g.fresh) }},
	{2, func(g *Gen) Op {
		kind := pick(g.r, []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFREG})
		return g.at(Op{Kind: "mknod", Mode: kind | randomMode(g.r)}, g.fresh)
	}},
	{4, func(g *Gen) Op { return g.at(Op{Kind: "symlink", To: randomTarget(g.r)}, g.fresh) }},
	{6, func(g *Gen) Op { return g.at2(g.at(Op{Kind: "link"}, g.file), g.fresh) }},
	{2, func(g *Gen) Op { return g.at2(Op{Kind: "linkfd", H: g.handle()}, g.fresh) }},
	{8, func(g *Gen) Op { return g.at(Op{Kind: "unlink"}, g.file) }},
	{5, func(g *Gen) Op { return g.at(Op{Kind: "rmdir"}, g.dir) }},
	{14, (*Gen).genRename},
	{3, func(g *Gen) Op { return g.object(Op{Kind: "truncate", Len: g.off()}, g.file) }},
	{5, func(g *Gen) Op { return g.object(Op{Kind: "chmod"}, g.any) }},
	{4, func(g *Gen) Op {
		return g.object(Op{Kind: "chown", UID: g.r.IntN(4) - 1, GID: g.r.IntN(3), Flags: g.nofollow()}, g.any)
	}},
	{4, func(g *Gen) Op {
		return g.object(Op{Kind: "utimens", Off: g.r.Int64N(1 << 31), Off2: g.r.Int64N(1e9),
			Flags: pick(g.r, []string{"", "nofollow", "now", "omit", "nofollow,omit"})}, g.any)
	}},
	{4, func(g *Gen) Op {
		return g.object(Op{Kind: "setxattr", Name: pick(g.r, xattrNames), Value: pick(g.r, xattrValues),
			Flags: pick(g.r, []string{"", "", "create", "replace", "nofollow"})}, g.any)
	}},
	{3, func(g *Gen) Op {
		return g.named(g.object(Op{Kind: "getxattr", Flags: pick(g.r, []string{"", "", "size", "short"})}, g.any))
	}},
	{2, func(g *Gen) Op { return g.object(Op{Kind: "listxattr", Flags: g.nofollow()}, g.any) }},
	{2, func(g *Gen) Op {
		return g.named(g.object(Op{Kind: "removexattr", Flags: g.nofollow()}, g.any))
	}},
	{3, func(g *Gen) Op { return Op{Kind: "readdir", H: g.dirHandle()} }},
	{6, func(g *Gen) Op { return Op{Kind: "getdents", H: g.dirHandle()} }},
	{1, func(g *Gen) Op { return Op{Kind: "rewind", H: g.dirHandle()} }},
	{8, func(g *Gen) Op { return g.object(Op{Kind: "stat", Flags: g.nofollow()}, g.any) }},
	{2, func(g *Gen) Op { return g.at(Op{Kind: "readlink"}, g.symlink) }},
}

func (g *Gen) seed() uint32 { return g.r.Uint32() >> 16 }

func (g *Gen) off() int64 {
	switch g.r.IntN(12) {
	case 0, 1, 2:
		return 0
	case 3, 4:
		return pageSize * g.r.Int64N(16)
	case 5:
		if g.r.IntN(10) == 0 {
			return 1 << (30 + g.r.IntN(10)) // a file of up to half a terabyte, nearly all of it a hole
		}
	}
	return g.r.Int64N(60 << 10)
}

func (g *Gen) nofollow() string { return pick(g.r, []string{"", "nofollow"}) }

// number returns one that no handle or mapping had before.
func (g *Gen) number() int { g.next++; return g.next - 1 }

// choose returns one of the keys in an order that does not depend on the map, or a number that stands for nothing.
func choose[V any](g *Gen, m map[int]V, ok func(V) bool) int {
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(k int) bool { return !ok(m[k]) })
	if len(keys) == 0 {
		return -1
	}
	return pick(g.r, keys)
}

func (g *Gen) handle() int {
	return choose(g, g.t.handles, func(h *handle) bool { return !h.ino.isDir() || g.r.IntN(20) == 0 })
}

func (g *Gen) dirHandle() int {
	return choose(g, g.t.handles, func(h *handle) bool { return h.ino.isDir() || g.r.IntN(20) == 0 })
}

func (g *Gen) mapping() int { return choose(g, g.t.maps, func(*mapping) bool { return true }) }

// find picks an entry below base, every depth as likely as the others. ok narrows the choice.
func (g *Gen) find(base *inode, ok func(*inode) bool) string {
	var byDepth [maxDepth + 3][]string
	t := &Tree{root: base}
	t.each(func(path string, i *inode) {
		if depth := strings.Count(path, "/"); i != base && ok(i) && depth < len(byDepth) {
			byDepth[depth] = append(byDepth[depth], path)
		}
	})
	for range 4 {
		if paths := byDepth[g.r.IntN(4)]; len(paths) > 0 {
			return pick(g.r, paths)
		}
	}
	return g.fresh(base)
}

func (g *Gen) any(base *inode) string { return g.find(base, func(*inode) bool { return true }) }

func (g *Gen) file(base *inode) string {
	return g.mostly(base, func(i *inode) bool { return !i.isDir() })
}

func (g *Gen) symlink(base *inode) string { return g.mostly(base, (*inode).isLink) }

func (g *Gen) dir(base *inode) string { return g.mostly(base, (*inode).isDir) }

func (g *Gen) mostly(base *inode, ok func(*inode) bool) string {
	if g.r.IntN(10) == 0 {
		return g.any(base)
	}
	return g.find(base, ok)
}

// fresh returns a name for something new; now and then it is taken, its directory is none, or it is too long.
func (g *Gen) fresh(base *inode) string {
	name := pick(g.r, poolNames)
	switch g.r.IntN(20) {
	case 0:
		return join(g.any0(base), name)
	case 1:
		if g.r.IntN(5) == 0 {
			return strings.Repeat("x", 256)
		}
	case 2, 3, 4:
		return name
	}
	dirs := []string{""}
	t := &Tree{root: base}
	t.each(func(path string, i *inode) {
		if i.isDir() && i != base && strings.Count(path, "/") < maxDepth-1 {
			dirs = append(dirs, path)
		}
	})
	return join(pick(g.r, dirs), name)
}

// any0 is any without the way back into fresh.
func (g *Gen) any0(base *inode) string {
	if names := base.names(); len(names) > 0 {
		return pick(g.r, names)
	}
	return pick(g.r, poolNames)
}

// start picks the directory that a path is relative to: mostly the root.
func (g *Gen) start() (int, *inode) {
	if g.r.IntN(6) == 0 {
		if h := choose(g, g.t.handles, func(h *handle) bool { return h.ino.isDir() }); h > 0 {
			return h, g.t.handles[h].ino
		}
	}
	return 0, g.t.root
}

func (g *Gen) at(op Op, path func(*inode) string) Op {
	var base *inode
	op.At, base = g.start()
	op.Path = path(base)
	return op
}

func (g *Gen) at2(op Op, path func(*inode) string) Op {
	var base *inode
	op.At2, base = g.start()
	op.To = path(base)
	return op
}

// object is op on a path, or on a handle.
func (g *Gen) object(op Op, path func(*inode) string) Op {
	if g.r.IntN(4) == 0 {
		if op.H = choose(g, g.t.handles, func(*handle) bool { return true }); op.H > 0 {
			return g.modeFor(op, g.t.handles[op.H].ino)
		}
		op.H = 0
	}
	op = g.at(op, path)
	at, _ := g.t.at(op.At, op.Path, !op.has("nofollow"))
	return g.modeFor(op, at.ino)
}

// modeFor completes a chmod: see randomDirMode.
func (g *Gen) modeFor(op Op, i *inode) Op {
	if op.Kind == "chmod" {
		if op.Mode = randomMode(g.r); i != nil && i.isDir() {
			op.Mode = randomDirMode(g.r)
		}
	}
	return op
}

// named completes an operation with the name of an attribute, mostly one that the object has.
func (g *Gen) named(op Op) Op {
	op.Name = pick(g.r, xattrNames)
	if i, errno := g.t.object(op); errno == 0 && len(i.xattrs) > 0 && g.r.IntN(4) > 0 {
		op.Name = pick(g.r, slices.Sorted(maps.Keys(i.xattrs)))
	}
	return op
}

func (g *Gen) genOpen() Op {
	if len(g.t.handles) >= maxHandles {
		return g.genClose()
	}
	op := Op{Kind: "open", H: g.number()}
	access := pick(g.r, []string{"rdonly", "wronly", "rdwr", "rdwr"})
	switch g.r.IntN(10) {
	case 0, 1:
		op.Flags = "rdonly,directory"
		return g.at(op, g.dir)
	case 2:
		op.Flags, op.Mode = access+",tmpfile"+pick(g.r, []string{"", ",excl"}), randomMode(g.r)
		return g.at(op, g.dir)
	case 3, 4:
		op.Flags, op.Mode = access+",creat"+pick(g.r, []string{"", ",excl", ",trunc", ",append"}), randomMode(g.r)
		return g.at(op, g.fresh)
	}
	op.Flags = access + pick(g.r, []string{"", "", "", "", ",append", ",trunc", ",nofollow", ",noatime"})
	return g.at(op, g.file)
}

func (g *Gen) genClose() Op {
	return Op{Kind: "close", H: choose(g, g.t.handles, func(*handle) bool { return true })}
}

func (g *Gen) genFallocate() Op {
	op := Op{Kind: "fallocate", H: g.handle(), Off: g.off(), Len: randomLen(g.r)}
	op.Flags = pick(g.r, []string{"", "keep", "punch,keep", "punch,keep", "zero", "zero,keep", "collapse", "insert"})
	if op.has("collapse") || op.has("insert") {
		op.Off, op.Len = op.Off&^(pageSize-1), op.Len&^(pageSize-1)
	}
	return op
}

func (g *Gen) genMmap() Op {
	return Op{Kind: "mmap", H: g.handle(), Map: g.number(), Off: pageSize * g.r.Int64N(4), Len: 1 + g.r.Int64N(64<<10),
		Flags: pick(g.r, []string{"", "write"})}
}

func (g *Gen) genRename() Op {
	op := Op{Kind: "rename", Flags: pick(g.r, []string{"", "", "", "", "", "noreplace", "exchange", "exchange", "whiteout",
		"noreplace,exchange"})}
	kind := g.file
	if g.r.IntN(2) == 0 {
		kind = g.dir
	}
	op = g.at(op, kind)
	if g.r.IntN(3) == 0 || op.has("exchange") {
		return g.at2(op, kind)
	}
	return g.at2(op, g.fresh)
}

// Use makes up operations for another tree from now on.
func (g *Gen) Use(t *Tree) { g.t = t }
