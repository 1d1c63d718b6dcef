#include "textflag.h"

// func getrlimit(resource int, r *[2]uint64) (errno int)
TEXT ·getrlimit(SB), NOSPLIT, $0-24
	MOVD resource+0(FP), R0
	MOVD r+8(FP), R1
	MOVD $163, R8
	SVC
	MOVD R0, errno+16(FP)
	RET
