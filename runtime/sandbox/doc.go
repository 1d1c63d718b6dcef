// Package sandbox runs the processes of one container as a [specs.Spec] describes them: an OCI runtime without a
// state directory, for the process that calls it.
//
// A container begins as our own executable ("lamina-init", [InitMain]), or as one that has nothing but this package
// ([Options].Self, cmd/lamina-init), in new namespaces. It makes the
// container's root from what the parent has opened, gives up what the container shall not have, and becomes the
// command:
//
//	parent (Create)                    init (InitMain)
//	open rootfs, bind sources,
//	device nodes, own executable
//	clone(user mnt pid net uts ipc) -> waits in read(2), no program yet
//	uid_map, gid_map, oom_score_adj,
//	hard limits raised, a byte      -> root of its namespace; execve of our executable
//	Joined: network, cgroup v2         all mounts private; detached mounts of everything
//	                                   that does not depend on the cgroup
//	joined                          -> cgroups of v1 entered; unshare(cgroup), cgroup mount
//	                                   pivot_root, old root detached: from here on no path
//	                                   leads out of the container
//	                                   mounts attached, devices, sysctls, masks
//	                                <- ready (with the terminal's master)
//	Create returns
//	(Start)
//	release                         -> user, working directory, program found, limits,
//	                                   capabilities, seccomp, execve
//	Start returns                   <- end of file: executed
//	                                <- failed{stage, message, errno}, in place of any of the above
//
// The parent's death ends init at any point: the socket ends while it waits, and PR_SET_PDEATHSIG, set anew after
// the credentials (a change of them clears it), while it does not.
//
// What is in a rootfs is untrusted. No path in it is used by the kernel before pivot_root(2); after that every
// target is opened once, inside (openat2(2), RESOLVE_IN_ROOT, no magic links), and mounted on by descriptor. What
// comes from outside is opened once too, by the parent, and arrives as detached mounts: nothing can be swapped
// between a check and the mount. Our executable is executed from a read-only mount or a sealed copy of its own, and
// descriptors above 2 do not survive the last execve(2).
//
// The thread that has started a process is kept for as long as the process lives, for PR_SET_PDEATHSIG is sent when
// the thread ends. It may have joined namespaces, and is never given back to the Go runtime.
package sandbox
