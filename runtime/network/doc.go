// Package network connects a container's network namespace.
//
//	host     there is none: the container uses the machine's
//	none     its own, with a loopback interface
//	private  its own, connected in user space by slirp4netns(1) or pasta(1): no privilege, no bridge, no packet filter
//
// For private, the tool is a process beside the container:
//
//	container  10.0.2.100/24 on tap0   <--- frames --->   tool   <--- sockets --->   the machine's network
//	gateway    10.0.2.2, DNS forwarder 10.0.2.3 (asks what the machine's resolv.conf names)
//
// Both tools are given the same addresses, so that hosts and resolv.conf can be written before either runs. The machine's
// own loopback cannot be reached from the container unless that is asked for, as with Docker's bridge.
//
// The tool ends with the container. Close tells it; when the process that called Start is killed, slirp4netns sees the end
// of a pipe (--exit-fd). pasta has no such thing and loses its parent-death signal when it sandboxes itself, so it runs in
// a pid namespace whose first process is a shell that has one.
package network
