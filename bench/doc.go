// Package bench measures union filesystems beside each other: laminafs, kernel overlayfs, fuse-overlayfs and the plain
// directory, on the same layers, in the same run.
//
// A [System] is mounted anew for each sample, with an empty upper over lowers that are made once (a [Fixtures]). A
// [Workload] prepares the mount, which is not measured, and then runs. "Cold" means a new mount, and so a new server,
// over layers whose own pages and names the kernel has in memory; "warm" that the same has been done once before.
//
// Rounds are interleaved: each round takes one sample of each workload on each system, beginning with another system
// every time, so that what else the machine does falls on all of them. Reported are medians, in wall and CPU time: of
// the client, which is this process or the program it runs, and of the server. They differ by several times between
// a machine whose cores are idle and one whose cores are busy, because a request to an idle core has to wake it; so
// a report says how busy the machine was, and only ratios within one run mean something.
//
// A [LaunchSuite] does the same for the launcher: a start of a container, and a load of an image, beside those of podman, runc,
// bubblewrap and tar. CPU time is that of all processes there, those included that outlive the command.
package bench
