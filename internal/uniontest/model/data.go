package model

import "bytes"

const pageSize = 4096 // bytes; also the block size that FALLOC_FL_COLLAPSE_RANGE is tried with

// data is what a regular file holds. A page that is not in the map is zeros, so a file of terabytes costs nothing.
type data struct {
	size  int64
	pages map[int64]*[pageSize]byte // by offset / pageSize
}

func (d *data) clone() data {
	c := data{size: d.size, pages: make(map[int64]*[pageSize]byte, len(d.pages))}
	for n, p := range d.pages {
		q := *p
		c.pages[n] = &q
	}
	return c
}

// read returns the bytes in [off, off+n) that lie before the end of the file.
func (d *data) read(off, n int64) []byte {
	n = min(n, d.size-off)
	if n <= 0 {
		return []byte{}
	}
	b := make([]byte, n)
	for i := int64(0); i < n; {
		page, in := (off+i)/pageSize, (off+i)%pageSize
		l := min(pageSize-in, n-i)
		if p := d.pages[page]; p != nil {
			copy(b[i:i+l], p[in:])
		}
		i += l
	}
	return b
}

func (d *data) write(off int64, b []byte) {
	if d.pages == nil {
		d.pages = map[int64]*[pageSize]byte{}
	}
	for i := 0; i < len(b); {
		page, in := (off+int64(i))/pageSize, (off+int64(i))%pageSize
		p := d.pages[page]
		if p == nil {
			p = new([pageSize]byte)
			d.pages[page] = p
		}
		i += copy(p[in:], b[i:])
	}
	if len(b) > 0 {
		d.size = max(d.size, off+int64(len(b)))
	}
}

// zero clears [off, off+n) and does not change the size.
func (d *data) zero(off, n int64) {
	for n > 0 {
		page, in := off/pageSize, off%pageSize
		l := min(pageSize-in, n)
		if p := d.pages[page]; p != nil {
			if clear(p[in : in+l]); *p == [pageSize]byte{} {
				delete(d.pages, page)
			}
		} else if next := d.nextPage(page); next < 0 {
			return
		} else if next > page {
			l = min(n, next*pageSize-off)
		}
		off, n = off+l, n-l
	}
}

// nextPage is the first page at or after page that is not a hole, or -1.
func (d *data) nextPage(page int64) int64 {
	next := int64(-1)
	for n := range d.pages {
		if n >= page && (next < 0 || n < next) {
			next = n
		}
	}
	return next
}

func (d *data) truncate(size int64) {
	if size < d.size {
		d.zero(size, d.size-size)
	}
	d.size = size
}

// collapse removes [off, off+n), both multiples of pageSize, and insert makes room there.
func (d *data) collapse(off, n int64) {
	d.zero(off, n)
	d.shift(off+n, -n)
}

func (d *data) insert(off, n int64) { d.shift(off, n) }

func (d *data) shift(off, by int64) {
	moved := make(map[int64]*[pageSize]byte, len(d.pages))
	for n, p := range d.pages {
		if n*pageSize >= off {
			n += by / pageSize
		}
		moved[n] = p
	}
	d.pages = moved
	d.size += by
}

// isZero reports whether every byte in [off, end) is zero.
func (d *data) isZero(off, end int64) bool {
	for n, p := range d.pages {
		lo, hi := max(off-n*pageSize, 0), min(end-n*pageSize, pageSize)
		if lo < hi && len(bytes.Trim(p[lo:hi], "\x00")) > 0 {
			return false
		}
	}
	return true
}

// windows are the ranges to be read when a whole file is compared: all of a small file; of a large one the
// neighbourhood of its data, its beginning and its end.
func windows(size int64, pages []int64) [][2]int64 {
	const small = 1 << 20
	if size <= small {
		return [][2]int64{{0, size}}
	}
	ws := [][2]int64{{0, 2 * pageSize}, {size - 2*pageSize, size}}
	for _, n := range pages {
		ws = append(ws, [2]int64{max(0, n-1) * pageSize, min(size, (n+2)*pageSize)})
	}
	return ws
}

// pattern is what the operations write: n bytes that tell where they were meant to be and who wrote them.
func pattern(seed uint32, off, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		x := uint64(off+int64(i)+1)*0x9E3779B97F4A7C15 ^ uint64(seed)*0xD6E8FEB86659FD93
		b[i] = byte((x^x>>29)>>16) | 1 // never zero: a hole is told from data
	}
	return b
}
