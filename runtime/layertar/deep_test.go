package layertar_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// TestDeeperThanAPath: each directory on the way down holds the name of all that it is in, so that a tree that a container
// may well make would take any amount of memory.
func TestDeeperThanAPath(t *testing.T) {
	upper, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer upper.Close()
	name := strings.Repeat("n", 250)
	at := int(upper.Fd())
	for range 20 {
		err := sys.Mkdir(sys.At{Dirfd: at, Name: name}, 0o755)
		if err == nil {
			at, err = sys.Open(sys.At{Dirfd: at, Name: name}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(at)
	}
	if _, err := layertar.Changes(upper, nil); !errors.Is(err, unix.ENAMETOOLONG) || len(err.Error()) > 1000 {
		t.Errorf("changes: %v", err)
	}
	if err := layertar.Pack(context.Background(), io.Discard, upper, nil, layertar.PackOptions{}); !errors.Is(err, unix.ENAMETOOLONG) || len(err.Error()) > 1000 {
		t.Errorf("pack: %v", err)
	}
}
