package layertar

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Records finds what is recorded in the override attributes of a union's layers, by path: a mount of them shows no owner
// that its user namespace does not have. It is for one goroutine, and quick for paths in the order of a walk.
type Records struct {
	union *union
	way   []step // the directories on the way to the last path, the root first
}

type step struct {
	name string
	dir  *object
}

// NewRecords takes the directories of the layers, as Pack; they stay the caller's. nil is a union in which nothing is
// recorded.
func NewRecords(upper *os.File, lowers []*os.File) *Records {
	u := newUnion(append([]*os.File{upper}, lowers...)...)
	if !slices.ContainsFunc(u.layers, func(l layer) bool { return l.override != "" }) {
		return nil
	}
	return &Records{union: u}
}

// Close closes what is open. Nothing is asked for any more.
func (r *Records) Close() { r.back(0) }

// back leaves n directories on the way.
func (r *Records) back(n int) {
	for _, s := range r.way[n:] {
		s.dir.close()
	}
	r.way = r.way[:n]
}

// Of returns what is recorded of the object at path, which is relative to the union's root; "" is the root. It follows no
// symbolic link. recorded is false where nothing is recorded, and for what is not there.
func (r *Records) Of(path string) (s override.Stat, recorded bool, err error) {
	if len(r.way) == 0 {
		root, err := r.union.root()
		if err != nil {
			return s, false, err
		}
		r.way = []step{{"", root}}
	}
	names := strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
	for i, name := range names {
		if i+1 < len(r.way) && r.way[i+1].name == name {
			continue
		}
		r.back(i + 1)
		o, err := r.union.lookup(r.way[i].dir, name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || err == nil && o == nil {
			return s, false, nil // somebody changes the layer
		}
		if err != nil {
			return s, false, err
		}
		if o.isDir() {
			r.way = append(r.way, step{name, o})
			continue
		}
		defer o.close()
		if i < len(names)-1 {
			return s, false, nil
		}
		return r.union.recorded(o)
	}
	r.back(len(names) + 1)
	return r.union.recorded(r.way[len(names)].dir)
}

// recorded reads the record of one object.
func (u *union) recorded(o *object) (s override.Stat, recorded bool, err error) {
	attr := u.layers[o.layer].override
	if attr == "" {
		return s, false, nil
	}
	v, err := sys.XattrValue(o.at, attr)
	if err != nil {
		return s, false, nil // as for who mounts it
	}
	s, err = override.Parse(string(v))
	return s, err == nil, nil // nonsense stands for nothing
}
