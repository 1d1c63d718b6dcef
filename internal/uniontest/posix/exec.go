package posix

import (
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// command runs a program, which must succeed.
func (t *T) command(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// execve runs the program, and returns the error of execve(2) if it could not be started.
func (t *T) execve(name string, args ...string) (string, error) {
	out, err := exec.Command(t.p(name), args...).Output()
	return string(out), err
}

var execCases = []Case{
	{"execve(2): a script runs by its interpreter line", "", `file s "#!/bin/sh\necho ran $1\n"; mode s 0755`, func(t *T) {
		out, err := t.execve("s", "it")
		t.ok(err)
		t.eq("output", out, "ran it\n")
	}},
	{"execve(2): a program runs, also once renamed and linked", "", "", func(t *T) {
		t.program("echo", "echo")
		t.link("echo", "e2")
		t.rename("echo", "e1")
		for _, p := range []string{"e1", "e2"} {
			out, err := t.execve(p, "hi")
			t.ok(err)
			t.eq("output", out, "hi\n")
		}
	}},
	{"execve(2): EACCES without execute permission, even for root, and for a directory", "", `file s "#!/bin/sh\n"; dir d`, func(t *T) {
		_, err := t.execve("s")
		t.fails(err, unix.EACCES)
		_, err = t.execve("d")
		t.fails(err, unix.EACCES)
	}},
	{"execve(2): chmod makes a script that was there executable", "", `file s "#!/bin/sh\necho ran\n"`, func(t *T) {
		t.chmod("s", 0o755)
		out, err := t.execve("s")
		t.ok(err)
		t.eq("output", out, "ran\n")
	}},
	{"execve(2): ENOENT for a missing interpreter, ENOEXEC for an unknown format", "", `file s "#!/no/such/thing\n"; mode s 0755; file x abc; mode x 0755`, func(t *T) {
		_, err := t.execve("s")
		t.fails(err, unix.ENOENT)
		_, err = t.execve("x")
		t.fails(err, unix.ENOEXEC)
	}},
	{"execve(2): ETXTBSY for a program that is open for writing", "", "", func(t *T) {
		t.program("true", "true")
		fd := t.open("true", unix.O_WRONLY)
		_, err := t.execve("true")
		t.fails(err, unix.ETXTBSY)
		t.ok(unix.Close(fd))
		_, err = t.execve("true")
		t.ok(err)
	}},
	{"execve(2): set-uid changes the effective user, set-gid the group", "root", "", func(t *T) {
		t.program("id", "id")
		t.chown("id", bob, staff)
		t.chmod("id", 0o6755)
		t.alice(func() {
			out, err := t.execve("id", "-u")
			t.ok(err)
			if out == "2001\n" {
				t.Skipf("mounted nosuid")
			}
			t.eq("id -u", out, "2002\n")
			out, err = t.execve("id", "-g")
			t.ok(err)
			t.eq("id -g", out, "3001\n")
		})
	}},
	{"execve(2): EACCES for one who may not execute", "root", "", func(t *T) {
		t.program("true", "true")
		t.chmod("true", 0o744)
		t.bob(func() {
			_, err := t.execve("true")
			t.fails(err, unix.EACCES)
		})
	}},
	{"access(2): tells what the real user may", "root", "file f; mode f 0640; file x; mode x 0711; dir d; mode d 0700", func(t *T) {
		t.ok(unix.Access(t.p("f"), unix.R_OK|unix.W_OK))
		t.fails(unix.Access(t.p("f"), unix.X_OK), unix.EACCES)
		t.ok(unix.Access(t.p("x"), unix.X_OK))
		t.bob(func() {
			t.ok(unix.Access(t.p("f"), unix.F_OK))
			t.fails(unix.Access(t.p("f"), unix.R_OK), unix.EACCES)
			t.fails(unix.Access(t.p("f"), unix.W_OK), unix.EACCES)
			t.ok(unix.Access(t.p("x"), unix.X_OK))
			t.fails(unix.Access(t.p("d"), unix.R_OK), unix.EACCES)
			t.fails(unix.Access(t.p("d/f"), unix.F_OK), unix.EACCES)
		})
		t.as(bob, 0, nil, func() {
			t.ok(unix.Access(t.p("f"), unix.R_OK))
			t.fails(unix.Access(t.p("f"), unix.W_OK), unix.EACCES)
		})
	}},
	{"fexecve(3): through a descriptor, of an unlinked program too", "", "", func(t *T) {
		t.program("echo", "echo")
		fd := t.open("echo", unix.O_RDONLY)
		t.unlink("echo")
		cmd := exec.Command("/proc/self/fd/" + itoa(fd))
		cmd.Args = []string{"echo", "hi"}
		// O_CLOEXEC would take the descriptor away before the child looks it up by path.
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		t.ok(err)
		out, err := cmd.Output()
		t.ok(err)
		t.eq("output", string(out), "hi\n")
	}},
}
