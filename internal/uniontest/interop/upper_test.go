package interop

import (
	"fmt"
	"slices"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// A pair is a writer of an upper and the reader who takes over. Where back is set the reader goes on writing, and the
// writer reads that.
type pair struct {
	writer, reader format
	back           bool
}

var pairs = []pair{
	{fuseOvl, wh, true},
	{fuseOvl, overlay, true},
	{fuseOvl, redirect, false}, // which fuse-overlayfs does not follow
	{kernel, wh, false},        // whose whiteouts are files to the kernel
	{kernel, overlay, true},
	{kernel, redirect, true},
	{wh, fuseOvl, true},
	{overlay, fuseOvl, true},
	{overlay, kernel, true},
	{redirect, kernel, true},
	{wh, overlay, true},
	{wh, redirect, true},
	{redirect, wh, true},
}

var peerPairs = []pair{{kernel, fuseOvl, false}, {fuseOvl, fuseOvl, true}}

// ours reports whether both are laminafs.
func (p pair) ours() bool {
	return p.writer.sys == uniontest.Laminafs && p.reader.sys == uniontest.Laminafs
}

// each runs a test for each pair and identity that can be had.
func each(t *testing.T, test func(t *testing.T, p pair, who uniontest.Identity)) {
	list := pairs
	if *peers {
		list = peerPairs
	}
	for _, p := range list {
		for _, who := range []uniontest.Identity{uniontest.Root, uniontest.UserNS, uniontest.User} {
			systems := []uniontest.System{p.writer.sys, p.reader.sys}
			switch {
			case who == uniontest.User && slices.Contains(systems, uniontest.Overlay):
				continue // the kernel's takes root, at least of a user namespace
			case who == uniontest.UserNS && p.reader.name == "kernel" && p.writer.name == "redirect":
				continue // with userxattr the kernel follows no redirect
			case who == uniontest.Root && *peers:
				continue // the kernel writes redirects
			case who == uniontest.User && !long && p.writer.name != "fuse-overlayfs" && p.reader.name != "fuse-overlayfs":
				continue
			}
			if who == uniontest.UserNS && p.writer.name == "kernel" && p.reader.name == "redirect" {
				p.back = false
			}
			t.Run(fmt.Sprintf("%s to %s as %s", p.writer, p.reader, who), func(t *testing.T) { test(t, p, who) })
		}
	}
}

// TestUpper hands a whole union on: lowers, upper and workdir.
func TestUpper(t *testing.T) {
	each(t, func(t *testing.T, p pair, who uniontest.Identity) {
		l, plain := newLayers(t, who)
		h := l.Helper()
		script, more := changes, moreChanges
		if p.ours() {
			script += linkChanges
			more += moreLinkChanges
		}
		if p.reader.sys != uniontest.FuseOverlayfs {
			more += moreMoves
		}

		m := p.writer.mount(t, l)
		shell.Same(t, "what the writer sees of the lowers", look(t, l, m.Dir()), look(t, l, plain))
		shell.Run(t, h, m.Dir(), script)
		shell.Run(t, h, plain, script)
		want := look(t, l, plain)
		shell.Same(t, "what the writer sees of its changes", look(t, l, m.Dir()), want)
		m.Unmount()

		m = p.reader.mount(t, l)
		shell.Same(t, "what the reader sees", look(t, l, m.Dir()), want)
		if !p.back {
			return
		}
		shell.Run(t, h, m.Dir(), more)
		shell.Run(t, h, plain, more)
		want = look(t, l, plain)
		shell.Same(t, "what the reader sees of its changes", look(t, l, m.Dir()), want)
		m.Unmount()

		m = p.writer.mount(t, l)
		shell.Same(t, "what the writer sees of the reader's changes", look(t, l, m.Dir()), want)
	})
}

// TestLower makes the writer's upper a lower of the reader's, as layered stores do.
func TestLower(t *testing.T) {
	each(t, func(t *testing.T, p pair, who uniontest.Identity) {
		l, plain := newLayers(t, who)
		h := l.Helper()
		m := p.writer.mount(t, l)
		shell.Run(t, h, m.Dir(), changes)
		shell.Run(t, h, plain, changes)
		m.Unmount()

		l2 := uniontest.NewLayers(t, 0, h)
		l2.Lowers = append([]string{l.Upper}, l.Lowers...)
		shell.Run(t, nil, "/", `cp -a "$1" "$1-empty"`, l2.Work)
		m = p.reader.mount(t, l2)
		shell.Same(t, "what the reader sees", look(t, l, m.Dir()), look(t, l, plain))
		more := moreChanges
		if p.reader.sys != uniontest.FuseOverlayfs {
			more += moreMoves
		}
		shell.Run(t, h, m.Dir(), more)
		shell.Run(t, h, plain, more)
		shell.Same(t, "what the reader sees of its changes", look(t, l, m.Dir()), look(t, l, plain))
	})
}
