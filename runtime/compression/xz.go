package compression

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/therootcompany/xz"
)

// maxDictionary is what the highest level of xz(1) asks for, in bytes.
const maxDictionary = 64 << 20

// xzMemory is what the program is to make do with meanwhile, in bytes: each block says anew how large its dictionary is, and a
// larger one is made beside the last. The garbage is collected, and given back, while the new one is filled.
const xzMemory = 80 << 20

// openXZ reads alone.
func openXZ(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	free, err := hold(ctx, Window)
	if err != nil {
		return nil, err
	}
	limit := debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(limit, xzMemory))
	let := func() {
		debug.SetMemoryLimit(limit)
		free()
	}
	z, err := xz.NewReader(r, maxDictionary)
	if err != nil {
		let()
		return nil, name("xz", sized(err))
	}
	n := &named{Reader: xzReader{z}, name: "xz"}
	n.Closer = closer(func() {
		n.Reader, z = nil, nil
		let()
	})
	return n, nil
}

type xzReader struct{ *xz.Reader }

func (x xzReader) Read(p []byte) (int, error) {
	n, err := x.Reader.Read(p)
	return n, sized(err)
}

// sized says how large a dictionary may be.
func sized(err error) error {
	if errors.Is(err, xz.ErrMemlimit) {
		return fmt.Errorf("needs a dictionary of more than %d bytes", maxDictionary)
	}
	return err
}
