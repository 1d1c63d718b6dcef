package posix

// Known says what each system is known to do otherwise than a case holds: system, case, reason. RunAt takes a case
// listed here as passed if it fails, and as failed if it holds, so that no line outlives its reason.
//
// A row may be for a system in all its forms ("laminafs"), for objects of one origin ("laminafs lower"), for those
// with whiteouts as files ("laminafs wh lower"), or for who mounted it ("laminafs userns", "laminafs user lower").
var Known = map[string]map[string]string{
	"overlay lower": overlayLower,
	"laminafs": {
		"fallocate(2): FALLOC_FL_COLLAPSE_RANGE removes a part": fuseFallocate,
		"fallocate(2): FALLOC_FL_INSERT_RANGE makes room":       fuseFallocate,

		"ioctl_iflags(2): an immutable file is not opened for writing: EPERM":                  noOpen,
		"ioctl_iflags(2): an append-only file is opened for writing with O_APPEND only: EPERM": noOpen,
		"renameat2(2): RENAME_WHITEOUT moves the file and leaves a device 0:0":                 "a device 0:0 is a whiteout to the union itself: the old name is gone",
	},
	"laminafs lower": {
		"unlink(2): moves ctime of a file that has another name":           "the other name stays in the lower, and so do its times",
		"ioctl_iflags(2): a file in an immutable directory may be written": "the copy needs a name in the upper directory, which is immutable",
	},
	"laminafs userns": {
		"write(2): set-uid and set-gid fall when the owner writes, and stay when root does": "the kernel's FUSE asks for CAP_FSETID over the whole machine (fuse_perform_write)",
	},
	"laminafs user lower": {
		"stat(2): what nobody may read is shown, listed and removed by its owner":    asUser,
		"chmod(2): of what nobody may read and was there gives it back to its owner": asUser,
		"rename(2): of what nobody may read":                                         asUser,
	},
}

const (
	fuseFallocate = "the kernel's FUSE passes on no such mode (fuse_file_fallocate in fs/fuse/file.c): EOPNOTSUPP"
	asUser        = "the server of an ordinary user reads a lower with that user's rights, and can neither copy nor look into this"
	noOpen        = "the kernel opens without asking, and FUSE tells it of no such flag; the write itself is EPERM"
)

const (
	copyMovesParent = "copy-up makes a name in the upper directory and puts back its mtime, but ctime has moved"
	twoFiles        = "what was opened or mapped before the copy-up shows the lower file (overlayfs.rst, \"Non-standard behavior\")"
	lowerNlink      = "an unlinked lower object is not changed, and shows the links it has there"
	mergedNlink     = "a directory of several layers has st_nlink 1"
)

var overlayLower = map[string]string{
	"open(2): O_CREAT|O_TRUNC of an existing file leaves its directory's times":                         copyMovesParent,
	"write(2): moves mtime and ctime of the file, not of its directory":                                 copyMovesParent,
	"chmod(2): sets all twelve bits and moves ctime alone":                                              copyMovesParent,
	"chown(2): sets owner and group and moves ctime alone":                                              copyMovesParent,
	"link(2): moves ctime of the file and the times of the new name's directory":                        copyMovesParent,
	"setxattr(2): sets, replaces and removes; ctime alone moves":                                        copyMovesParent,
	"mmap(2): a shared mapping sees write(2)":                                                           twoFiles,
	"mmap(2): a private mapping that was not written sees write(2) of its pages on Linux":               twoFiles,
	"mmap(2): a mapping beyond the end shows what is appended later":                                    twoFiles,
	"open(2): an unlinked file can be opened again through /proc/self/fd":                               "copying up what has no name any more fails: EEXIST",
	"openat(2): ENOENT for making a file in a removed directory":                                        lowerNlink,
	"rmdir(2): a removed directory that is open lists nothing and takes nothing":                        lowerNlink,
	"inode(7): st_nlink is 0 on the descriptor of an unlinked file":                                     lowerNlink,
	"inode(7): st_nlink is 0 on the descriptor of a file that rename replaced":                          lowerNlink,
	"inode(7): st_nlink is 0 on the descriptor of a removed directory, and of one that rename replaced": lowerNlink,
	"inode(7): st_nlink of an O_PATH descriptor of a symbolic link that was removed is 0":               lowerNlink,
	"rename(2): a directory between parents moves the parents' link counts":                             mergedNlink,
	"renameat2(2): RENAME_EXCHANGE across parents moves their link counts":                              mergedNlink,
}
