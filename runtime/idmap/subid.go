package idmap

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxID is the number of ids there are: 2^32-1 means "no id" (chown(2)).
const maxID = 1<<32 - 1

// A subRange is one line of subuid(5): count ids from start on.
type subRange struct{ start, count int64 }

// readSubIDs returns the ranges that file gives the user, by name or by number. A file that does not exist gives
// none. Lines that make no sense are left out, as shadow's own programs do.
func readSubIDs(file, user string, uid int) ([]subRange, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ranges of ids: %w", err)
	}
	defer f.Close()
	var ranges []subRange
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		who, r, ok := parseSubID(lines.Text())
		if ok && (who == user && user != "" || who == strconv.Itoa(uid)) {
			ranges = append(ranges, r)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("ranges of ids: read %s: %w", file, err)
	}
	return ranges, nil
}

func parseSubID(line string) (who string, r subRange, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) != 3 || strings.HasPrefix(fields[0], "#") {
		return "", r, false
	}
	start, err1 := strconv.ParseInt(fields[1], 10, 64)
	count, err2 := strconv.ParseInt(fields[2], 10, 64)
	if err1 != nil || err2 != nil || start < 0 || count <= 0 || start+count > maxID {
		return "", r, false
	}
	return fields[0], subRange{start, count}, true
}

// rangesToMap maps 0 to self, and 1 and up to the ranges, one after the other.
func rangesToMap(self int, ranges []subRange) []specs.LinuxIDMapping {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(self), Size: 1}}
	next := int64(1)
	for _, r := range ranges {
		// A range must not hold the caller's own id again, and the map must stay within 32 bits.
		if int64(self) >= r.start && int64(self) < r.start+r.count || next+r.count > maxID {
			continue
		}
		m = append(m, specs.LinuxIDMapping{ContainerID: uint32(next), HostID: uint32(r.start), Size: uint32(r.count)})
		next += r.count
	}
	return m
}
