// Package container keeps containers: a record on disk for each, and one process, its monitor, while it runs.
//
// # On disk
//
//	<root>/containers/<id>/
//	    config.json     what create was told, with its defaults filled in (type record); rename and update change it
//	    state.json      what became of it (type state); written by the monitor, and by who cleans up after a dead one
//	    lock            flock(2), held by a command while it changes the container: start, rename, update, rm
//	    monitor.lock    flock(2), held by the monitor for its life; not empty from before its start to its orderly end
//	    boot            of one with --rm: a link whose target is the run of the machine that it goes with (disk.go)
//	    hosts, hostname, resolv.conf   mounted into the container
//	    <id>-json.log   what it wrote (.1, .2, ...: rotated), as Docker's json-file driver has it
//	<root>/containers.lock             flock(2), held while a name is given away
//	<run>/<first 12 of id>.sock        the monitor's socket
//
// Every file is written under another name, synced (but with --rm) and renamed. A container exists from the moment on when its
// config.json does. Before, that is called creating.json, and afterwards removing.json: a directory with one of these,
// and with a free lock, is what a killed command has left, and goes when the store is opened next, with all that the
// file names.
//
// # Who does what
//
// A container that runs belongs to its monitor: the mount of its layers is made in the monitor's mount namespace, its
// processes are children of it, and with user namespaces in play nobody else has power over them (lamina's commands
// have one of their own, or none). So a command asks, through the socket:
//
//	command                                monitor
//	flock monitor.lock, write a byte
//	fork, exec                       -->   fork, exec of laminafs, which waits to be told the layers
//	start{attach, foreground}        -->   layers, sandbox, cgroup, network
//	                                 <--   started{pid} | failed{exit code, message}
//	stdin, resize, detach            -->
//	                                 <--   stdout, stderr, exited{exit code}
//	any number of others, on the socket:
//	request{op, arguments} + fds     -->
//	                                 <--   reply{result | error} (+ frames, where the op has some)
//
// A command that makes the container too starts its monitor before that (expect.go).
//
// A command that started the container in the foreground and goes without "detach" takes the container with it.
//
// When the monitor is killed the kernel kills the container's PID 1 (PR_SET_PDEATHSIG), with it all in its PID
// namespace, and with the last process in the mount namespace goes the mount and laminafs. What the kernel does not do
// is done by the next command (reap.go): it finds monitor.lock free and not empty.
//
// # Lock order, outermost first
//
//	containers.lock
//	  <id>/lock
//	    monitor.lock
//	      the locks of runtime/image and runtime/volume
package container
