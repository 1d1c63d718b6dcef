package container

import (
	"time"

	api "github.com/moby/moby/api/types/container"
)

// Sample is what a container does, for those who watch many of them.
type Sample struct {
	State     api.ContainerState
	Image     string // its name, as ps has it
	ExitCode  int    // of the last run
	OOMKilled bool   // the last run
	Restarts  int    // by its restart policy
	Started   time.Time
	Finished  time.Time
	Server    int // pid of its laminafs; 0 where it has none
}

// Sample looks at what is on disk, and waits for nobody. Errors: fs.ErrNotExist when it was removed meanwhile.
func (c *Container) Sample() (*Sample, error) {
	st, err := c.state()
	if err != nil {
		return nil, err
	}
	return &Sample{
		State: st.Status, Image: c.imageName(), ExitCode: st.ExitCode, OOMKilled: st.OOMKilled, Restarts: st.RestartCount,
		Started: st.StartedAt, Finished: st.FinishedAt, Server: st.Laminafs.Pid,
	}, nil
}

// RunDir is the directory of the monitors' sockets.
func (s *Store) RunDir() string { return s.o.RunDir }
