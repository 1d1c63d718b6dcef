package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFioTime(t *testing.T) {
	const text = `fio: a warning
{"jobs": [{"error": %E, "read": {"io_bytes": 8192, "lat_ns": {"N": 2, "mean": 1500.5}}, "write": {"io_bytes": 0, "lat_ns": {"N": 0, "mean": 0}}}]}`
	fine := strings.ReplaceAll(text, "%E", "0")
	if d, err := fioTime([]byte(fine), 8192); err != nil || d != 3001*time.Nanosecond {
		t.Errorf("%v, error %v; want 3.001µs", d, err)
	}
	for name, broken := range map[string]string{
		"another size": strings.ReplaceAll(fine, "8192", "4096"), "an error": strings.ReplaceAll(text, "%E", "5"), "no job": `{"jobs": []}`, "nothing": "",
	} {
		if d, err := fioTime([]byte(broken), 8192); err == nil {
			t.Errorf("%s: %v and no error", name, d)
		}
	}
}

// The jobs do what our own loops do: as many bytes, and a write is seen afterwards.
func TestFio(t *testing.T) {
	if fioPath() == "" {
		t.Skip("needs fio")
	}
	f := &Fixtures{Dir: t.TempDir(), Scale: 0.002}
	for name, op := range map[string]fileOp{"read": seqRead, "randread": randRead, "write": seqWrite, "randwrite": randWrite} {
		j := &job{f: f, dir: filepath.Join(f.Dir, name)}
		if err := os.Mkdir(j.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "write" {
			if err := makeBig(j); err != nil {
				t.Fatal(err)
			}
		}
		before, _ := readBig(j.path("big"))
		if _, err := op.run(j); err != nil || j.took <= 0 {
			t.Errorf("%s: took %v, error %v", name, j.took, err)
		}
		after, err := readBig(j.path("big"))
		if err != nil {
			t.Error(err)
		}
		if changed := before != after; changed != strings.Contains(name, "write") {
			t.Errorf("%s changed the file: %v", name, changed)
		}
	}
}
