// Package cgroup limits, freezes, counts and ends the processes of one container.
//
// A Group is the container's cgroup, whatever this machine calls that:
//
//	v1      one directory in each hierarchy that has a controller
//	hybrid  v1, and a cgroup2 mount beside it that has no controllers of use but cgroup.kill
//	v2      one directory
//
// Where it lies depends on who asks, and is found by trying (place.go):
//
//	root, v1      <hierarchy>/lamina/<id>
//	user, v1      <delegated>/<id>: the user's own cgroup, or <hierarchy>/lamina/<user name or uid>, whichever he may
//	              write to; a hierarchy where neither is so is done without
//	v2, systemd   lamina-<id>.scope, asked for over D-Bus (of the user's manager, or the system's) with Delegate=yes;
//	              the caller moves to its child "supervisor", the container is its child "container"
//	v2, else      below the caller's own cgroup, or the nearest one above it that may be written to and holds no process;
//	              the caller's processes move to a child "supervisor" when they are in the way, for a cgroup2 has
//	              either processes or controllers for its children
//
// So limits are never written to a cgroup that systemd looks after, and systemd removes the scope by itself when all in it
// have died, also when nobody is left to ask it to.
//
// A limit that was asked for and cannot be enforced is an *Unenforceable: it names the flag and the reason. Where nothing
// can be written and nothing was asked for, New returns a Group that does nothing, and tells why (Unavailable).
//
// Limits, statistics and the freezer are github.com/opencontainers/cgroups', which runc and Docker use. Of
// github.com/containerd/cgroups/v3, the other choice, it differs in that it knows hybrid machines and rootless quirks, and
// that it is told the directories instead of deciding them. Its systemd managers are not used: they write limits to the
// scope itself, where a reload of systemd may put them back, and inside a user namespace they run busctl(1) to find out who
// the caller is. The scope is asked for through github.com/coreos/go-systemd, as those managers do.
package cgroup
