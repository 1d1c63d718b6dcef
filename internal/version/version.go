// Package version tells which version of the module a program is.
package version

import "runtime/debug"

// Devel is the version of a program that was built without one: outside a repository, or with -buildvcs=false.
const Devel = "(devel)"

// Module is the version that go build found of the main module: a tag, or the pseudo-version of a commit
// (https://go.dev/ref/mod#pseudo-versions), or Devel.
func Module() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return Devel
}
