#include "textflag.h"

// func getrlimit(resource int, r *[2]uint64) (errno int)
TEXT ·getrlimit(SB), NOSPLIT, $0-24
	MOVQ $97, AX
	MOVQ resource+0(FP), DI
	MOVQ r+8(FP), SI
	SYSCALL
	MOVQ AX, errno+16(FP)
	RET
