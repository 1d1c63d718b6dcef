package image

import "encoding/binary"

// isoCRC is the CRC-64 of ISO 3309, as crc64.ISO: the sum of a file's data that tar-split keeps. Package hash/crc64
// takes as long for it as sha256 for the whole layer. The zero value is that of nothing.
//
// Its polynomial is x^64 + x^4 + x^3 + x + 1, so x^64 = x^4 + x^3 + x + 1, and, squared twice, x^256 = x^16 + x^12 + x^4 + 1:
// a product with either is a few shifts. So four words of the data are taken at a time, and need not wait for each
// other: word i of all groups of four is a sum of its own, each of which moves up by x^256 at the next group.
//
// A polynomial's coefficients are in the bits of a word from the highest, which is that of x^0, to the lowest, x^63: a
// product with x is a shift to the right.
type isoCRC struct{ crc uint64 }

func (c *isoCRC) sum() uint64 { return c.crc }

func (c *isoCRC) write(p []byte) {
	if canFold && len(p) >= 128 {
		c.crc = ^folded(^c.crc, p)
		p = p[len(p)&^63:]
	}
	c.writeShifts(p)
}

func (c *isoCRC) writeShifts(p []byte) {
	crc := ^c.crc
	if len(p) >= 64 {
		a, b, d, e := crc^word(p), word(p[8:]), word(p[16:]), word(p[24:])
		for p = p[32:]; len(p) >= 32; p = p[32:] {
			q := p[:32]
			a = times256(a) ^ word(q)
			b = times256(b) ^ word(q[8:])
			d = times256(d) ^ word(q[16:])
			e = times256(e) ^ word(q[24:])
		}
		crc = times64(times64(times64(times64(a)^b)^d) ^ e)
	}
	for ; len(p) >= 8; p = p[8:] {
		crc = times64(crc ^ word(p))
	}
	for _, b := range p {
		crc ^= uint64(b)
		for range 8 {
			crc = timesX(crc)
		}
	}
	c.crc = ^crc
}

func word(p []byte) uint64 { return binary.LittleEndian.Uint64(p) }

// times64 is v times x^64.
func times64(v uint64) uint64 {
	return v ^ v>>1 ^ v>>3 ^ v>>4 ^ fold(v<<63^v<<61^v<<60)
}

// times256 is v times x^256.
func times256(v uint64) uint64 {
	return v ^ v>>4 ^ v>>12 ^ v>>16 ^ fold(v<<60^v<<52^v<<48)
}

// fold is over times x^64, where over has no coefficients from x^60 on: what was shifted out of a word.
func fold(over uint64) uint64 { return over ^ over>>1 ^ over>>3 ^ over>>4 }

// folded is the register after all blocks of 64 bytes of p, by the processor's own products of polynomials. Each word
// stays where it is in its block, and moves up by x^512 with every block.
//
// Source: Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009.
func folded(crc uint64, p []byte) uint64 {
	var acc [8]uint64
	for i := range acc {
		acc[i] = word(p[8*i:])
	}
	acc[0] ^= crc
	foldBlocks(&acc, p[64:], &foldBy)
	crc = 0
	for _, w := range acc {
		crc = times64(crc ^ w)
	}
	return crc
}

// foldBy are x^(512+64) and x^512, less the x that a product of words in this order of bits has too many.
var foldBy = [2]uint64{power(512 + 64 - 1), power(512 - 1)}

// power is x^n.
func power(n int) uint64 {
	v := uint64(1) << 63
	for range n {
		v = timesX(v)
	}
	return v
}

func timesX(v uint64) uint64 { return v>>1 ^ -(v&1)&0xd800000000000000 }
