package main

import (
	"context"
	"strconv"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/mounts"
)

const mountTable = "table {{.ID}}\t{{.Container}}\t{{.Transport}}\t{{.Layers}}\t{{.Requests}}\t{{.IO}}\t{{.CopyUps}}\t{{.Nodes}}\t{{.Memory}}\t{{.Mountpoint}}"

func (a *app) mountLsCommand() *cobra.Command {
	var quiet bool
	var format string
	cmd := command("ls [OPTIONS]", "List the mounts of this user, of containers or not, and what they do", noArgs,
		"mount ls, mount list", func(cmd *cobra.Command, _ []string) error {
			return a.mountLs(cmd.Context(), quiet, format)
		})
	cmd.Aliases = []string{"list"}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display mount IDs")
	cmd.Flags().StringVar(&format, "format", "", formatHelp)
	return cmd
}

func (a *app) mountLs(ctx context.Context, quiet bool, format string) error {
	s, err := a.containers()
	if err != nil {
		return err
	}
	live, err := mounts.All(ctx, mounts.Bases(s.RunDir()), false)
	if err != nil {
		a.warn([]string{err.Error()})
	}
	names, err := servers(s)
	if err != nil {
		return err
	}
	source := formatter.Format(format)
	switch {
	case quiet && (format == "" || format == formatter.TableFormatKey):
		source = "{{.ID}}"
	case format == "" || format == formatter.TableFormatKey:
		source = mountTable
	}
	head := &mountLine{}
	head.Header = formatter.SubHeaderContext{
		"ID": "MOUNT ID", "Container": "CONTAINER", "PID": "PID", "Transport": "TRANSPORT", "Layers": "LAYERS",
		"Requests": "REQUESTS", "Errors": "ERRORS", "Latency": "LATENCY", "IO": "READ / WRITTEN", "CopyUps": "COPY-UPS",
		"Whiteouts": "WHITEOUTS", "Nodes": "NODES", "Memory": "MEMORY", "Mountpoint": "MOUNTPOINT", "Error": "ERROR",
	}
	out := formatter.Context{Output: a.out, Format: source}
	return out.Write(head, func(put func(formatter.SubContext) error) error {
		for _, m := range live {
			if err := put(&mountLine{m: m, container: names[m.PID]}); err != nil {
				return err
			}
		}
		return nil
	})
}

// servers are the names of containers by the pid of their laminafs.
func servers(s *container.Store) (map[int]string, error) {
	all, err := s.Containers()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, c := range all {
		if now, err := c.Sample(); err == nil && now.Server != 0 {
			names[now.Server] = c.Name()
		}
	}
	return names, nil
}

// mountLine has the fields that --format may name.
type mountLine struct {
	formatter.HeaderContext
	m         mounts.Mount
	container string
}

func (l *mountLine) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(l) }

func (l *mountLine) fs() fsLine         { return fsLine{l.m.Figures} }
func (l *mountLine) ID() string         { return l.m.ID }
func (l *mountLine) Container() string  { return l.container }
func (l *mountLine) PID() string        { return strconv.Itoa(l.m.PID) }
func (l *mountLine) Mountpoint() string { return l.m.Mountpoint }
func (l *mountLine) Requests() string   { return l.fs().requests() }
func (l *mountLine) Errors() string     { return l.fs().errors() }
func (l *mountLine) Latency() string    { return l.fs().latency() }
func (l *mountLine) IO() string         { return l.fs().io() }
func (l *mountLine) CopyUps() string    { return l.fs().copyUps() }
func (l *mountLine) Whiteouts() string  { return l.fs().whiteouts() }
func (l *mountLine) Nodes() string      { return l.fs().nodes() }
func (l *mountLine) Memory() string     { return l.fs().memory() }

func (l *mountLine) Transport() string {
	if l.m.Figures == nil {
		return "--"
	}
	return l.m.Figures.Modes.Transport
}

// Layers counts the lower ones, as the metric's label does. They are known also of a mount that does not answer.
func (l *mountLine) Layers() string {
	n := 0
	for _, b := range l.m.Branches {
		if !b.Writable {
			n++
		}
	}
	return strconv.Itoa(n)
}

// Error is why there are no figures.
func (l *mountLine) Error() string {
	if l.m.Err == nil {
		return ""
	}
	return l.m.Err.Error()
}
