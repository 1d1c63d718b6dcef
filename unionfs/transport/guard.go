package transport

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// guard is the option allow_root: the kernel lets everybody in (allow_other), and we turn away whoever is neither the
// owner of the mount nor root.
//
// Most of what a stranger does would never reach us, because the kernel answers from its caches. But with
// default_permissions every path into the mount begins with a look at the attributes of the root directory. These are
// given out without a lifetime, so that the look is a request in the name of the stranger, and fails.
type guard struct{ owner uint32 }

// admits tells whether the process that a request comes from may in. The kernel's own requests come from uid 0.
func (g *guard) admits(h *fuse.InHeader) bool { return h.Uid == g.owner || h.Uid == 0 }

// expire takes the lifetime from the attributes of the root directory.
func (g *guard) expire(node uint64, out interface{ SetTimeout(time.Duration) }) {
	if node == fuse.FUSE_ROOT_ID {
		out.SetTimeout(0)
	}
}
