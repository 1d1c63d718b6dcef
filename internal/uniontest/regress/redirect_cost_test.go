package regress

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// Layers in which a deep directory was moved again and again: on the way each directory was closed, and opened anew from the
// root for the next one. Whoever looked waited for minutes, and so did all others in the directory.
func TestChainOfDeepRedirects(t *testing.T) {
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	const depth = 300
	layers := 8
	if os.Getenv("LAMINA_LONG") != "" {
		layers = 20
	}
	l := uniontest.NewLayers(t, layers)
	l.Trust = true // they are large, and there is an end to look at
	path := strings.Repeat("/a", depth)
	for n, low := range l.Lowers {
		must(t, os.MkdirAll(low+path, 0o755), os.Mkdir(low+"/d", 0o755))
		for _, dir := range []string{low + "/d", low + path} {
			must(t, unix.Setxattr(dir, "trusted.overlay.redirect", []byte(path), 0))
		}
		write(t, fmt.Sprintf("%s%s/f%d", low, path, n), "data")
	}
	m := uniontest.Start(t, uniontest.Laminafs, l)
	inTime(t, m, func() {
		names, err := os.ReadDir(l.Merged + "/d")
		if err != nil || len(names) != layers-1 {
			t.Errorf("%d names, %v", len(names), err)
		}
	})
}
