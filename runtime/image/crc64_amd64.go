package image

import "golang.org/x/sys/cpu"

// canFold is whether foldBlocks works on this machine.
var canFold = cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE41

// foldBlocks moves acc, 512 bits of a polynomial, up by x^512 and adds 64 bytes of p, for each 64 bytes of p; what is over is
// left out. by are the products' factors, for the halves of 128 bits.
//
//go:noescape
func foldBlocks(acc *[8]uint64, p []byte, by *[2]uint64)
