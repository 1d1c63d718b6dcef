package model

import "maps"

// Clone returns a tree that is the same and changes alone. What is open stays with the original.
func (t *Tree) Clone() *Tree {
	c := &Tree{caps: t.caps}
	copies := map[*inode]*inode{}
	var clone func(i *inode) *inode
	clone = func(i *inode) *inode {
		if done := copies[i]; done != nil {
			return done
		}
		n := *i
		n.data, n.xattrs, n.listings, n.parent = i.data.clone(), maps.Clone(i.xattrs), nil, nil
		copies[i] = &n
		if i.entries != nil {
			n.entries = map[string]*inode{}
		}
		for name, child := range i.entries {
			n.entries[name] = clone(child)
			if child.isDir() {
				n.entries[name].parent = &n
			}
		}
		return &n
	}
	c.root = clone(t.root)
	c.closeAll()
	return c
}

// Reopen gives t, a clone of from as it is now, the handles that are open in from.
func (t *Tree) Reopen(from *Tree) {
	same := map[*inode]*inode{}
	from.each(func(path string, i *inode) { same[i] = t.lookup(path) })
	for n, h := range from.handles {
		c := *h
		if c.ino = same[h.ino]; c.ino == nil {
			i := *h.ino // open, and without a name
			i.data, i.xattrs = h.ino.data.clone(), maps.Clone(h.ino.xattrs)
			c.ino, same[h.ino] = &i, &i
		}
		t.handles[n] = &c
	}
}

// ForgetDirTimes gives up comparing st_mtime of directories: after a crash they may be those of a moment in which
// something came and went there.
func (t *Tree) ForgetDirTimes() {
	t.each(func(_ string, i *inode) {
		if i.isDir() {
			i.touch()
		}
	})
}

// Torn reports whether s is t but for file contents that are a mixture of old's and t's: a write, which is no
// transaction, was cut off in the middle. The contents are then t's from now on.
func (t *Tree) Torn(old *Tree, s Snapshot) bool {
	for n := range s {
		o := &s[n]
		was, is := old.lookup(o.Path), t.lookup(o.Path)
		if was == nil || is == nil || !was.isReg() || !is.isReg() || len(o.Data) != 1 {
			continue
		}
		got := o.Data[0]
		a, b := was.data.read(0, was.data.size), is.data.read(0, is.data.size)
		if int64(len(got)) != o.Stat.Size || len(got) < min(len(a), len(b)) || len(got) > max(len(a), len(b)) {
			continue
		}
		mixed := true
		for i, c := range got {
			mixed = mixed && (i < len(a) && c == a[i] || i < len(b) && c == b[i] || c == 0 && i >= min(len(a), len(b)))
		}
		if mixed && (diffBytes(got, b, 0) != "") {
			is.data = data{}
			is.data.write(0, got)
			is.touch()
		}
	}
	return len(t.Diff(s)) == 0
}
