package bench

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// fioPath is empty where fio is not installed.
var fioPath = sync.OnceValue(func() string {
	path, err := exec.LookPath("fio")
	if err != nil {
		return ""
	}
	return path
})

// fio runs one job on a file, and returns the time between its first and its last operation, which leaves out its own
// start of some tenths of a second.
//
// invalidate=0: what it would drop is the pages of a lower file for overlayfs, and for FUSE only the mount's own.
func fio(path, rw string, block, io, size int64) (time.Duration, error) {
	cmd := exec.Command(fioPath(), "--name=bench", "--output-format=json", "--filename="+path, "--rw="+rw, "--ioengine=psync",
		fmt.Sprintf("--bs=%d", block), fmt.Sprintf("--size=%d", size), fmt.Sprintf("--io_size=%d", io),
		"--invalidate=0", "--randrepeat=1", "--randseed=1", "--buffer_pattern=0x1a2b3c4d", "--thread", "--fallocate=none")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("fio: %w: %s", err, tail([]byte(complaints.String())))
	}
	return fioTime(out, io)
}

// fioTime reads fio's report of one job that was to move so many bytes.
func fioTime(text []byte, want int64) (time.Duration, error) {
	type side struct {
		Bytes int64 `json:"io_bytes"`
		Ns    struct {
			N    int64   `json:"N"`
			Mean float64 `json:"mean"`
		} `json:"lat_ns"`
	}
	var r struct {
		Jobs []struct {
			Error       int
			Read, Write side
		}
	}
	if i := strings.IndexByte(string(text), '{'); i > 0 {
		text = text[i:] // messages come first
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return 0, fmt.Errorf("fio: %w", err)
	}
	if len(r.Jobs) != 1 || r.Jobs[0].Error != 0 {
		return 0, fmt.Errorf("fio: %d jobs, %+v", len(r.Jobs), r.Jobs)
	}
	j := r.Jobs[0]
	if moved := j.Read.Bytes + j.Write.Bytes; moved != want {
		return 0, fmt.Errorf("fio moved %d bytes, not %d", moved, want)
	}
	// One after the other: the sum of their latencies, where "runtime" has milliseconds.
	total := float64(j.Read.Ns.N)*j.Read.Ns.Mean + float64(j.Write.Ns.N)*j.Write.Ns.Mean
	return time.Duration(total), nil
}
