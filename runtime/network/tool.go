package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
)

// The tools that connect a private network, in the order in which they are preferred: slirp4netns ends by itself with
// its caller, and needs no route on the machine.
const (
	Slirp4netns = "slirp4netns"
	Pasta       = "pasta"
)

// Device is what a private network is made with.
const Device = "/dev/net/tun"

// ErrNoTool is returned when a private network is asked for and neither tool is installed.
var ErrNoTool = errors.New("neither slirp4netns nor pasta is installed (Debian: apt-get install slirp4netns)")

// choose finds the tool to use; name is one that is asked for, or empty.
func choose(name string) (path string, err error) {
	if name != "" && name != Slirp4netns && name != Pasta {
		return "", fmt.Errorf("%s is no network tool (slirp4netns, pasta)", name)
	}
	for _, tool := range []string{Slirp4netns, Pasta} {
		if name != "" && name != tool {
			continue
		}
		if path, err = exec.LookPath(tool); err == nil {
			return path, tunUsable(Device)
		}
	}
	if name != "" {
		return "", fmt.Errorf("%s is not installed", name)
	}
	return "", ErrNoTool
}

// tunUsable says why the device that makes the container's interface cannot be used.
func tunUsable(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is missing: as root, modprobe tun", device)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be opened by this user: as root, chmod 0666 %s", device, device)
	}
	return fmt.Errorf("%s cannot be used: %w", device, err)
}

// Info is what networks this user can have here, for `lamina info`.
type Info struct {
	Default Mode     // of a container whose network nobody chose
	Tools   []string // the paths of those that are installed, the one that is used first
	Missing []string // sentences: what is missing, and how to get it
}

// Probe finds out without starting anything.
func Probe() Info {
	info := Info{Default: None}
	for _, tool := range []string{Slirp4netns, Pasta} {
		if path, err := exec.LookPath(tool); err == nil {
			info.Tools = append(info.Tools, path)
		}
	}
	if _, err := choose(""); err != nil {
		info.Missing = append(info.Missing, fmt.Sprintf("No private networks: %v.", err))
	} else {
		info.Default = Private
	}
	return info
}
