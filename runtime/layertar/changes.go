package layertar

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Kind is what happened to an object.
type Kind byte

// The kinds, as docker diff shows them.
const (
	Added   Kind = 'A'
	Changed Kind = 'C'
	Deleted Kind = 'D'
)

// Change is one line of docker diff.
type Change struct {
	Kind Kind
	Path string // absolute, in the container
}

func (c Change) String() string { return fmt.Sprintf("%c %s", c.Kind, c.Path) }

// Changes lists what the upper directory of a union changes, by path. lowers are the directories below it, topmost
// first. The time it takes depends on what is in the upper, except for directories that were moved or replaced.
//
// An object counts as changed by what docker diff looks at: type, mode, owner, device number and file capabilities, and
// of anything but a directory size and time of modification. A directory with changes in it is changed, the root is
// never listed, and what was in a deleted directory is not listed either.
//
// Source: moby pkg/archive, changes.go (ChangesDirs) and changes_unix.go (statDifferent).
func Changes(upper *os.File, lowers []*os.File) ([]Change, error) {
	d := comparison{now: newUnion(append([]*os.File{upper}, lowers...)...), then: newUnion(lowers...)}
	now, err := d.now.root()
	if err != nil {
		return nil, fmt.Errorf("compare layers: %w", err)
	}
	defer now.close()
	var then *object
	if len(lowers) > 0 {
		if then, err = d.then.root(); err != nil {
			return nil, fmt.Errorf("compare layers: %w", err)
		}
		defer then.close()
	}
	if err := d.content("/", now, then, false); err != nil {
		return nil, fmt.Errorf("compare layers: %w", err)
	}
	slices.SortFunc(d.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return d.changes, nil
}

// comparison is one run of Changes.
type comparison struct {
	now, then *union
	changes   []Change
}

func (c *comparison) add(kind Kind, path string) { c.changes = append(c.changes, Change{kind, path}) }

// content compares what is in the directory called path, which ends in "/". then is the directory that was there, nil
// for none. full says that now does not simply lie on then, so that every name of both is looked at.
func (c *comparison) content(path string, now, then *object, full bool) error {
	if then != nil && len(now.parts) != len(then.parts)+1 || now.parts[0].marks.Redirect != "" {
		full = true
	}
	names, err := c.names(now, then, full)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, name := range names {
		if err := c.entry(path+name, now, then, name, full); err != nil {
			return err
		}
	}
	return nil
}

// names lists the names that may have changed.
func (c *comparison) names(now, then *object, full bool) ([]string, error) {
	var names []string
	var err error
	if full {
		if names, err = c.now.names(now); err == nil && then != nil {
			var old []string
			old, err = c.then.names(then)
			names = append(names, old...)
		}
	} else if now.parts[0].layer == 0 {
		err = c.now.list(&now.parts[0], func(name, deleted string) {
			if deleted != "" {
				name = deleted
			}
			names = append(names, name)
		})
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// entry compares one name.
func (c *comparison) entry(path string, nowDir, thenDir *object, name string, full bool) error {
	if len(path) > maxPath {
		return fmt.Errorf("%s: %w", quote(path), unix.ENAMETOOLONG)
	}
	now, err := c.now.lookup(nowDir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var then *object
	if thenDir != nil {
		then, err = c.then.lookup(thenDir, name)
	}
	if now != nil {
		defer now.close()
	}
	if then != nil {
		defer then.close()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	before := len(c.changes)
	switch {
	case now == nil && then == nil:
		return nil // a whiteout of nothing
	case now == nil:
		c.add(Deleted, path)
		return nil
	case then == nil:
		c.add(Added, path)
	case differ(&then.stat, &now.stat) || !sameCapability(then, now):
		c.add(Changed, path)
	}
	if !now.isDir() {
		return nil
	}
	if then != nil && !then.isDir() {
		then = nil
	}
	listed := len(c.changes)
	if err := c.content(path+"/", now, then, full); err != nil {
		return err
	}
	if listed == before && len(c.changes) > listed {
		c.add(Changed, path)
	}
	return nil
}

// differ reports whether docker diff calls an object changed.
func differ(a, b *unix.Stat_t) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return true
	}
	return a.Mode&unix.S_IFMT != unix.S_IFDIR && (a.Size != b.Size || a.Mtim != b.Mtim)
}

// sameCapability reports whether two objects have the same file capabilities. One that cannot be read is none.
func sameCapability(a, b *object) bool {
	if a.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return true
	}
	read := func(o *object) []byte {
		v, err := sys.XattrValue(o.at, capability)
		if err != nil {
			return nil
		}
		return v
	}
	return bytes.Equal(read(a), read(b))
}
