// Package bench measures union filesystems and launchers beside each other, on the same data, in the same run.
//
// A [Workload] is one thing that programs do: walk a tree, untar, compile, start a container. A [System] is somebody who
// can do it: laminafs, kernel overlayfs, fuse-overlayfs, unionfs-fuse and the plain directory are mounted and worked on;
// lamina, podman, runc, bubblewrap and tar are programs that do it themselves. Either way one system doing one
// workload is a trial, with the same steps for each sample:
//
//	begin    a new mount with an empty upper, or an empty store; warm work is done before       not measured
//	run      the work                                                                           measured
//	check    is the result that of the plain directory? What is wrong has no time               not measured
//	end      unmount                                                                            not measured
//
// "Cold" means a new mount, and so a new server, over layers whose own pages and names the kernel has in memory.
//
// Systems are interleaved: each repetition takes one sample of each workload on each system, beginning with another
// system every time, so that what else the machine does falls on all of them. A request to a server on an idle CPU costs
// several times one to a busy CPU, because it has to be woken; so a sample says how much CPU time others used
// meanwhile, and only ratios within one run mean something.
//
// What is measured is package report's to show.
package bench
