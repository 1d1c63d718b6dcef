package container

import (
	"archive/tar"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/layertar"
)

// owners are those of a container's tree that it does not show, since nobody here has them: the layers have them on record.
// nil has none.
type owners struct {
	layers  *layers
	records *layertar.Records
	dev     uint64 // of the union: volumes have no records
	name    string // what the tar calls the first that is written, and where that is below the root
	path    string
}

// owners looks for the records of the tree below root. It is to be closed.
func (c *Container) owners(root int) (*owners, error) {
	st, err := sys.Stat(sys.Fd(root))
	if err != nil {
		return nil, fmt.Errorf("stat the container's root: %w", err)
	}
	l, err := c.openLayers()
	if err != nil {
		return nil, err
	}
	records := layertar.NewRecords(l.upper, l.lowers)
	if records == nil {
		l.close()
		return nil, nil
	}
	return &owners{layers: l, records: records, dev: st.Dev}, nil
}

func (o *owners) close() {
	if o != nil {
		o.records.Close()
		o.layers.close()
	}
}

// below says that what the tar calls name is at, below root.
func (o *owners) below(root int, at sys.At, name string) error {
	if o == nil {
		return nil
	}
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", root))
	if err != nil {
		return err
	}
	where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", at.Dirfd))
	if err != nil {
		return err
	}
	o.name, o.path = name, path.Join(strings.TrimPrefix(where, top), at.Name)
	return nil
}

// give puts the owner on record into a header. A symbolic link has none.
func (o *owners) give(h *tar.Header, st *unix.Stat_t) error {
	if o == nil || st.Dev != o.dev || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	s, recorded, err := o.records.Of(path.Join(o.path, strings.TrimPrefix(h.Name, o.name)))
	if err != nil {
		return fmt.Errorf("owner of %s: %w", h.Name, err)
	}
	if recorded {
		h.Uid, h.Gid = int(s.UID), int(s.GID)
	}
	return nil
}
