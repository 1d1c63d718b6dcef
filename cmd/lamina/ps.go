package main

import (
	"context"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

type psFlags struct {
	quiet, size, all, noTrunc, latest bool
	last                              int
	format                            string
	filter                            *opts.FilterOpt
}

// psCommand is "ps", or "container ls".
func (a *app) psCommand(name string) *cobra.Command {
	f := psFlags{filter: filterFlag()}
	cmd := command(name+" [OPTIONS]", "List containers", noArgs, "container ls, container list, container ps, ps",
		func(cmd *cobra.Command, _ []string) error { return a.ps(cmd.Context(), &f) })
	if name == "ls" {
		cmd.Aliases = []string{"list", "ps"}
	}
	set := cmd.Flags()
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Only display container IDs")
	set.BoolVarP(&f.size, "size", "s", false, "Display total file sizes")
	set.BoolVarP(&f.all, "all", "a", false, "Show all containers (default shows just running)")
	set.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	set.BoolVarP(&f.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	set.IntVarP(&f.last, "last", "n", -1, "Show n last created containers (includes all states)")
	set.StringVar(&f.format, "format", "", formatHelp)
	set.VarP(f.filter, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

func (a *app) ps(ctx context.Context, f *psFlags) error {
	s, err := a.containers()
	if err != nil {
		return err
	}
	o := container.ListOptions{All: f.all, Last: max(f.last, 0), Filters: filters(f.filter),
		Size: f.size || !f.quiet && strings.Contains(f.format, ".Size")}
	if f.latest && f.last < 0 {
		o.Last = 1
	}
	list, err := s.List(ctx, o)
	if err != nil {
		return err
	}
	return formatter.ContainerWrite(formatter.Context{
		Output: a.out, Format: formatter.NewContainerFormat(f.format, f.quiet, f.size), Trunc: !f.noTrunc,
	}, list)
}
