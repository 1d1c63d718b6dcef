package transport

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
)

// The opcodes of include/uapi/linux/fuse.h, enum fuse_opcode.
const (
	codeLookup      = 1
	codeForget      = 2
	codeGetAttr     = 3
	codeSetAttr     = 4
	codeReadlink    = 5
	codeSymlink     = 6
	codeMknod       = 8
	codeMkdir       = 9
	codeUnlink      = 10
	codeRmdir       = 11
	codeRename      = 12
	codeLink        = 13
	codeOpen        = 14
	codeRead        = 15
	codeWrite       = 16
	codeStatFs      = 17
	codeRelease     = 18
	codeFsync       = 20
	codeSetXAttr    = 21
	codeGetXAttr    = 22
	codeListXAttr   = 23
	codeRemoveXAttr = 24
	codeFlush       = 25
	codeInit        = 26
	codeOpenDir     = 27
	codeReadDir     = 28
	codeReleaseDir  = 29
	codeFsyncDir    = 30
	codeGetLk       = 31
	codeSetLk       = 32
	codeSetLkw      = 33
	codeAccess      = 34
	codeCreate      = 35
	codeInterrupt   = 36
	codeBmap        = 37
	codeIoctl       = 39
	codePoll        = 40
	codeNotifyReply = 41
	codeBatchForget = 42
	codeFallocate   = 43
	codeReadDirPlus = 44
	codeRename2     = 45
	codeLseek       = 46
	codeCopyFile    = 47
	codeTmpfile     = 51
	codeStatx       = 52
	codeCopyFile64  = 53 // answered ENOSYS: the kernel then asks by codeCopyFile

	codeCount = 54
)

const (
	headerSize    = 40 // struct fuse_in_header
	outHeaderSize = 16 // struct fuse_out_header
)

// inSizes has the bytes of struct fuse_in_header and of the structure that follows it in a request, by opcode. What
// has no entry has no such structure, or is not known.
var inSizes = [codeCount]int{
	codeForget:      sys.SizeOf[fuse.ForgetIn](),
	codeGetAttr:     sys.SizeOf[fuse.GetAttrIn](),
	codeSetAttr:     sys.SizeOf[fuse.SetAttrIn](),
	codeMknod:       sys.SizeOf[fuse.MknodIn](),
	codeMkdir:       sys.SizeOf[fuse.MkdirIn](),
	codeRename:      headerSize + 8, // struct fuse_rename_in
	codeLink:        sys.SizeOf[fuse.LinkIn](),
	codeOpen:        sys.SizeOf[fuse.OpenIn](),
	codeRead:        sys.SizeOf[fuse.ReadIn](),
	codeWrite:       sys.SizeOf[fuse.WriteIn](),
	codeRelease:     sys.SizeOf[fuse.ReleaseIn](),
	codeFsync:       sys.SizeOf[fuse.FsyncIn](),
	codeSetXAttr:    sys.SizeOf[fuse.SetXAttrIn](), // without CAP_SETXATTR_EXT 8 bytes less
	codeGetXAttr:    sys.SizeOf[fuse.GetXAttrIn](),
	codeListXAttr:   sys.SizeOf[fuse.GetXAttrIn](),
	codeFlush:       sys.SizeOf[fuse.FlushIn](),
	codeInit:        sys.SizeOf[fuse.InitIn](),
	codeOpenDir:     sys.SizeOf[fuse.OpenIn](),
	codeReadDir:     sys.SizeOf[fuse.ReadIn](),
	codeReleaseDir:  sys.SizeOf[fuse.ReleaseIn](),
	codeFsyncDir:    sys.SizeOf[fuse.FsyncIn](),
	codeGetLk:       sys.SizeOf[fuse.LkIn](),
	codeSetLk:       sys.SizeOf[fuse.LkIn](),
	codeSetLkw:      sys.SizeOf[fuse.LkIn](),
	codeAccess:      sys.SizeOf[fuse.AccessIn](),
	codeCreate:      sys.SizeOf[fuse.CreateIn](),
	codeInterrupt:   sys.SizeOf[fuse.InterruptIn](),
	codeBmap:        headerSize + 16, // struct fuse_bmap_in
	codeIoctl:       sys.SizeOf[fuse.IoctlIn](),
	codePoll:        headerSize + 24, // struct fuse_poll_in
	codeNotifyReply: sys.SizeOf[fuse.NotifyRetrieveIn](),
	codeBatchForget: sys.SizeOf[batchForgetIn](),
	codeFallocate:   sys.SizeOf[fuse.FallocateIn](),
	codeReadDirPlus: sys.SizeOf[fuse.ReadIn](),
	codeRename2:     sys.SizeOf[fuse.RenameIn](),
	codeLseek:       sys.SizeOf[fuse.LseekIn](),
	codeCopyFile:    sys.SizeOf[fuse.CopyFileRangeIn](),
	codeCopyFile64:  sys.SizeOf[fuse.CopyFileRangeIn](),
	codeTmpfile:     sys.SizeOf[fuse.CreateIn](),
	codeStatx:       sys.SizeOf[fuse.StatxIn](),
}

// batchForgetIn is struct fuse_batch_forget_in; Count of forgetOne, struct fuse_forget_one, follow.
type batchForgetIn struct {
	fuse.InHeader
	Count, Dummy uint32
}

type forgetOne struct{ NodeID, Nlookup uint64 }

// inSize is how many bytes of a request with this opcode are its header and its structure.
func inSize(code uint32) int {
	if code < codeCount && inSizes[code] > 0 {
		return inSizes[code]
	}
	return headerSize
}

// answered tells whether the kernel waits for an answer to such a request.
func answered(code uint32) bool {
	return code != codeForget && code != codeBatchForget && code != codeNotifyReply
}
