package containers

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"
)

// applets are the commands in the image: names of one program, busybox.
var applets = []string{
	"cat", "chgrp", "chmod", "chown", "cp", "cut", "echo", "find", "grep", "head", "id", "ln", "ls", "mkdir", "mkfifo", "mv", "printf",
	"rm", "rmdir", "seq", "sh", "sleep", "sort", "stat", "test", "touch", "tr", "true", "truncate", "wc",
}

const (
	file = tar.TypeReg
	dir  = tar.TypeDir
	sym  = tar.TypeSymlink
	link = tar.TypeLink
	fifo = tar.TypeFifo
)

// baseTree is what the lowest layer holds, besides the programs.
var baseTree = []struct {
	kind     byte
	name     string
	mode     int64
	uid, gid int
	content  string // of a file, or where a link leads to
}{
	{dir, "etc", 0o755, 0, 0, ""},
	{file, "etc/passwd", 0o644, 0, 0, "root::0:0::/:/bin/sh\nfive:x:5:6::/:/bin/sh\n"},
	{file, "etc/group", 0o644, 0, 0, "root:x:0:\nsix:x:6:\n"},
	{dir, "tmp", 0o1777, 0, 0, ""},
	{dir, "own", 0o755, 0, 0, ""},
	{file, "own/root", 0o600, 0, 0, "root\n"},
	{file, "own/five", 0o640, 5, 6, "five\n"},
	{file, "own/nobody", 0o444, 65534, 65534, "nobody\n"},
	{dir, "own/dir", 0o750, 5, 6, ""},
	{file, "own/dir/file", 0o644, 7, 8, "file\n"},
	{sym, "own/link", 0o777, 5, 6, "dir/file"},
	{fifo, "own/fifo", 0o620, 5, 6, ""},
	{dir, "set", 0o755, 0, 0, ""},
	{file, "set/uid", 0o4755, 0, 0, "uid\n"},
	{file, "set/gid", 0o2750, 3, 4, "gid\n"},
	{file, "set/both", 0o6711, 3, 4, "both\n"},
	{dir, "set/dir", 0o2775, 3, 4, ""},
	{dir, "hard", 0o755, 0, 0, ""},
	{file, "hard/a", 0o644, 0, 0, "hard\n"},
	{link, "hard/b", 0o644, 0, 0, "hard/a"},
	{dir, "hard/dir", 0o755, 0, 0, ""},
	{link, "hard/dir/c", 0o644, 0, 0, "hard/a"},
	{file, "hard/left", 0o644, 0, 0, "left\n"},
	{link, "hard/right", 0o644, 0, 0, "hard/left"},
	{dir, "gone", 0o755, 0, 0, ""},
	{file, "gone/file", 0o644, 0, 0, "gone\n"},
	{sym, "gone/link", 0o777, 0, 0, "nowhere"},
	{dir, "gone/dir", 0o755, 0, 0, ""},
	{file, "gone/dir/file", 0o644, 0, 0, "gone\n"},
	{file, "gone/later", 0o644, 0, 0, "later\n"},
	{dir, "type", 0o755, 0, 0, ""},
	{file, "type/file-dir", 0o644, 0, 0, "file\n"},
	{dir, "type/dir-file", 0o755, 0, 0, ""},
	{file, "type/dir-file/below", 0o644, 0, 0, "below\n"},
	{dir, "type/dir-link", 0o755, 0, 0, ""},
	{file, "type/dir-link/below", 0o644, 0, 0, "below\n"},
	{sym, "type/link-dir", 0o777, 0, 0, "dir-link"},
	{sym, "type/link-file", 0o777, 0, 0, "file-dir"},
	{dir, "again", 0o755, 5, 6, ""},
	{file, "again/old", 0o644, 0, 0, "old\n"},
	{dir, "again/old-dir", 0o755, 0, 0, ""},
	{file, "again/old-dir/file", 0o644, 0, 0, "old\n"},
	{dir, "move", 0o711, 5, 6, ""},
	{file, "move/file", 0o644, 5, 6, "moved\n"},
	{dir, "move/dir", 0o755, 0, 0, ""},
	{file, "move/dir/file", 0o644, 0, 0, "moved too\n"},
	{file, "grow", 0o664, 5, 6, "one\n"},
}

// baseImage is a tar file of the lowest layer.
func baseImage(t *testing.T) []byte {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("needs busybox: %v", err)
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, content []byte) {
		t.Helper()
		h.Size = int64(len(content))
		h.ModTime = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: dir, Name: "./", Mode: 0o755}, nil)
	add(tar.Header{Typeflag: dir, Name: "bin", Mode: 0o755}, nil)
	add(tar.Header{Typeflag: file, Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, a := range applets {
		add(tar.Header{Typeflag: sym, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777}, nil)
	}
	for _, o := range baseTree {
		h := tar.Header{Typeflag: o.kind, Name: o.name, Mode: o.mode, Uid: o.uid, Gid: o.gid}
		if o.kind == file {
			add(h, []byte(o.content))
			continue
		}
		h.Linkname = o.content
		add(h, nil)
	}
	// set/su is a program that only works with its set-user-id bit.
	add(tar.Header{Typeflag: file, Name: "set/su", Mode: 0o4755}, busybox)
	add(tar.Header{Typeflag: file, Name: "noted", Mode: 0o644, Uid: 5, Gid: 6, PAXRecords: map[string]string{
		"SCHILY.xattr.user.note": "kept",
		// cap_net_raw, permitted and effective, as capability.h lays it out
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}}, []byte("noted\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// importBase makes localhost/base.
func (s *store) importBase() {
	s.t.Helper()
	s.write("files/base.tar", string(baseImage(s.t)))
	s.podman("import", "files/base.tar", "localhost/base")
}

// containerfile makes a layer of each RUN and COPY.
const containerfile = `
FROM localhost/base
RUN set -e; rm gone/file gone/link; rm -r gone/dir; echo two >>grow; \
	rm type/file-dir; mkdir type/file-dir; echo in >type/file-dir/in; rm -r type/dir-file; echo file >type/dir-file; \
	rm -r type/dir-link; ln -s ../own type/dir-link; rm type/link-dir type/link-file; mkdir type/link-dir; echo file >type/link-file; \
	mv move moved; rm moved/dir/file; echo new >moved/new
RUN set -e; rm -r again; mkdir -m 700 again; echo new >again/new; \
	echo more >>hard/a; rm hard/b; ln hard/left hard/middle; mkdir hard/new; echo twice >hard/new/x; ln hard/new/x hard/new/y
RUN set -e; chown 7:8 own/root own/dir; chmod 4711 own/five; chown -h 9:9 own/link; chmod 600 set/both
COPY --chown=10:11 copied /own/copied
COPY tree/ /
USER 5:6
RUN set -e; ! echo mine >own/mine; echo three >>grow; touch tmp/mine; chmod 2755 tmp/mine; \
	set/su -c 'rm /gone/later; rmdir /gone; mkdir -p /again/old-dir; echo back >/again/old' root
`

// builtHas are lines of what the build leaves.
var builtHas = []string{
	"!gone", "type/file-dir\td 755 0:0", "type/file-dir/in\tf 644 0:0 1 3", "type/dir-file\tf 644 0:0 1 5",
	"type/dir-link\tl 777 0:0 1 6 ../own", "type/link-dir\td 755 0:0", "type/link-file\tf 644 0:0 1 5",
	"again\td 755 0:0", "again/new\tf 644 0:0 1 4", "again/old\tf 644 0:0 1 5", "again/old-dir\td", "!again/old-dir/",
	"!move\t", "!move/", "moved\td 711 5:6", "moved/file\tf 644 5:6 1 6", "moved/dir\td 755 0:0", "!moved/dir/", "moved/new\tf",
	"own/root\tf 600 7:8", "own/five\tf 4711 5:6", "own/nobody\tf 444 65534:65534", "own/dir\td 750 7:8", "own/dir/file\tf 644 7:8",
	"own/link\tl 777 9:9", "own/fifo\tp 620 5:6", "own/copied\tf 644 10:11", "tree-file\tf", "tree-dir/file\tf",
	"set/uid\tf 4755 0:0", "set/gid\tf 2750 3:4", "set/both\tf 600 3:4", "set/dir\td 2775 3:4", "set/su\tf 4755 0:0",
	"hard/dir/c\tf 644 0:0 2 10", "hard/a\tf 644 0:0 2 10", "!hard/b\t", "link ./hard/new/y ./hard/new/x", "link ./hard/dir/c ./hard/a",
	"grow\tf 664 5:6 1 14", "tmp/mine\tf 2755 5:6", "!own/mine", "user.note=0x6b657074", "security.capability=0x",
	"!.wh.",
}

// build makes localhost/built from the base.
func (s *store) build() {
	s.t.Helper()
	s.write("files/Containerfile", containerfile)
	s.write("files/copied", "copied\n")
	s.as(`cd files; mkdir -p tree/tree-dir tree/again; echo f >tree/tree-file; echo g >tree/tree-dir/file; echo h >tree/again/copied`)
	s.podman("build", "--tag=localhost/built", "files")
}
