#include "textflag.h"

// STEP replaces the 128 bits X by X.low * by.low + X.high * by.high + the next 16 bytes. Carry-less products are
// polynomials'.
#define STEP(X, T, D, OFF) \
	MOVO      X, T          \
	MOVOU     OFF(SI), D    \
	PCLMULQDQ $0x00, X8, T  \
	PCLMULQDQ $0x11, X8, X  \
	PXOR      D, T          \
	PXOR      T, X

// func foldBlocks(acc *[8]uint64, p []byte, by *[2]uint64)
TEXT ·foldBlocks(SB), NOSPLIT, $0-40
	MOVQ  acc+0(FP), AX
	MOVQ  p_base+8(FP), SI
	MOVQ  p_len+16(FP), CX
	MOVQ  by+32(FP), DX
	MOVOU (DX), X8
	MOVOU 0(AX), X0
	MOVOU 16(AX), X1
	MOVOU 32(AX), X2
	MOVOU 48(AX), X3
	SUBQ  $64, CX
	JLT   done

loop:
	STEP(X0, X4, X9, 0)
	STEP(X1, X5, X10, 16)
	STEP(X2, X6, X11, 32)
	STEP(X3, X7, X12, 48)
	ADDQ  $64, SI
	SUBQ  $64, CX
	JGE   loop

done:
	MOVOU X0, 0(AX)
	MOVOU X1, 16(AX)
	MOVOU X2, 32(AX)
	MOVOU X3, 48(AX)
	RET
