package main

import (
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/laminafs/lamina/bench"
)

// peers are the programs whose versions matter.
func (c *config) peers() []string {
	if c.launch {
		return []string{"podman", "runc", "bwrap", "tar"}
	}
	return []string{bench.FuseOverlayfs}
}

// launcher measures the launcher, as root and as the user.
func (c *config) launcher(match *regexp.Regexp, f *bench.Fixtures) (*bench.Launch, error) {
	s := bench.LaunchSuite{
		Bin: filepath.Dir(c.binary), Callers: []bench.Caller{{Name: "root"}}, Match: match, Rounds: c.rounds, Fixtures: f,
		Progress: os.Stderr,
	}
	if c.user != "" {
		u, err := user.Lookup(c.user)
		if err != nil {
			return nil, err
		}
		caller := bench.Caller{Name: u.Username}
		for text, id := range map[string]*uint32{u.Uid: &caller.UID, u.Gid: &caller.GID} {
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return nil, err
			}
			*id = uint32(n)
		}
		s.Callers = append(s.Callers, caller)
	}
	return s.Run()
}
