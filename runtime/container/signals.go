package container

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rtmin and rtmax are the real-time signals that the C library leaves to programs.
const (
	rtmin = 34
	rtmax = 64
)

// parseSignal reads "SIGTERM", "term", "15", "RTMIN+1". Empty is not one.
//
// Errors: ErrInvalid.
func parseSignal(s string) (unix.Signal, error) {
	bad := fail(ErrInvalid, "Invalid signal: %s", s)
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > rtmax {
			return 0, bad
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	base, offset := 0, 0
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, name = rtmin, strings.TrimPrefix(name, "RTMIN")
	case strings.HasPrefix(name, "RTMAX"):
		base, name = rtmax, strings.TrimPrefix(name, "RTMAX")
	default:
		if sig := unix.SignalNum("SIG" + name); sig != 0 {
			return sig, nil
		}
		return 0, bad
	}
	if name != "" {
		n, err := strconv.Atoi(name)
		if err != nil {
			return 0, bad
		}
		offset = n
	}
	if n := base + offset; n >= rtmin && n <= rtmax {
		return unix.Signal(n), nil
	}
	return 0, bad
}
