package compression

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// usualWindow is what all levels of zstd(1) but the "ultra" ones are content with, in bytes. The largest that we take, Window,
// is what it takes itself without being asked to (--long).
const usualWindow = 8 << 20

func openZstd(ctx context.Context, r io.Reader, head []byte) (io.ReadCloser, error) {
	window := uint64(usualWindow) // for a frame that is not the first
	var h zstd.Header
	if h.Decode(head) == nil && !h.Skippable {
		window = max(window, h.WindowSize)
	}
	if window > Window {
		return nil, fmt.Errorf("zstd: needs a window of %d bytes, more than %d", window, Window)
	}
	share := int64(usualWindow)
	if window > usualWindow {
		share = Window // alone
	}
	let, err := hold(ctx, share)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		let()
		return nil, name("zstd", err)
	}
	n := &named{Reader: z, name: "zstd"}
	n.Closer = closer(func() {
		z.Close()
		n.Reader, z = nil, nil
		let()
	})
	return n, nil
}
