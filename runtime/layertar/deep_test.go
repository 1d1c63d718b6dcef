package layertar_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/deep"
	"github.com/laminafs/lamina/runtime/layertar"
)

// TestDeeperThanAPath: each directory on the way down holds the name of all that it is in, so that a tree that a container
// may well make would take any amount of memory.
func TestDeeperThanAPath(t *testing.T) {
	dir := t.TempDir()
	deep.Descend(t, dir, strings.Repeat("n", 250), 20, true)
	upper, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer upper.Close()
	if _, err := layertar.Changes(upper, nil); !errors.Is(err, unix.ENAMETOOLONG) || len(err.Error()) > 1000 {
		t.Errorf("changes: %v", err)
	}
	if err := layertar.Pack(context.Background(), io.Discard, upper, nil, layertar.PackOptions{}); !errors.Is(err, unix.ENAMETOOLONG) || len(err.Error()) > 1000 {
		t.Errorf("pack: %v", err)
	}
}
