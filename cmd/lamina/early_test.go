package main

import (
	"strings"
	"testing"
)

func TestGlance(t *testing.T) {
	for _, c := range []struct {
		args, root, runDir string
		is                 bool
	}{
		{args: "run --rm x", is: true},
		{args: "container run x", is: true},
		{args: "--root /a --runroot=/b run x", root: "/a", runDir: "/b", is: true},
		{args: "--root=/a=b run x", root: "/a=b", is: true},
		{args: "container ls run"},
		{args: "ps run"},
		{args: "--debug run x"},
		{args: "--root"},
		{args: "--root run"},
		{args: ""},
	} {
		a := &app{}
		is := a.glance(strings.Fields(c.args))
		if is != c.is || is && (a.root != c.root || a.runDir != c.runDir) {
			t.Errorf("%q: %v, root %q, runroot %q", c.args, is, a.root, a.runDir)
		}
	}
}
