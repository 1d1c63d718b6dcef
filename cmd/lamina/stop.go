package main

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

// stopFlags are those of stop and restart.
type stopFlags struct {
	signal  string
	timeout int
}

func (f *stopFlags) add(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVarP(&f.signal, "signal", "s", "", "Signal to send to the container")
	set.IntVarP(&f.timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	set.IntVar(&f.timeout, "time", 0, "Seconds to wait before killing the container")
	set.Lookup("time").Hidden = true // the older name
}

func (f *stopFlags) options(cmd *cobra.Command) container.StopOptions {
	o := container.StopOptions{Signal: f.signal}
	if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
		o.Timeout = &f.timeout
	}
	return o
}

func (a *app) stopCommand() *cobra.Command {
	var f stopFlags
	cmd := command("stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers", between(1, -1),
		"container stop, stop", func(cmd *cobra.Command, args []string) error {
			o := f.options(cmd)
			return a.eachContainer(args, func(c *container.Container) error { return c.Stop(cmd.Context(), o) })
		})
	f.add(cmd)
	a.completeContainers(cmd, -1, running)
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	var f stopFlags
	cmd := command("restart [OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers", between(1, -1),
		"container restart, restart", func(cmd *cobra.Command, args []string) error {
			o := f.options(cmd)
			return a.eachContainer(args, func(c *container.Container) error { return c.Restart(cmd.Context(), o) })
		})
	f.add(cmd)
	a.completeContainers(cmd, -1, all)
	return cmd
}

func (a *app) killCommand() *cobra.Command {
	var sig string
	cmd := command("kill [OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers", between(1, -1),
		"container kill, kill", func(cmd *cobra.Command, args []string) error {
			return a.eachContainer(args, func(c *container.Container) error { return c.Kill(cmd.Context(), sig) })
		})
	cmd.Flags().StringVarP(&sig, "signal", "s", "", "Signal to send to the container")
	a.completeContainers(cmd, -1, running)
	return cmd
}

func (a *app) pauseCommand() *cobra.Command {
	cmd := command("pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", between(1, -1),
		"container pause, pause", a.forContainers((*container.Container).Pause))
	a.completeContainers(cmd, -1, running)
	return cmd
}

func (a *app) unpauseCommand() *cobra.Command {
	cmd := command("unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", between(1, -1),
		"container unpause, unpause", a.forContainers((*container.Container).Unpause))
	a.completeContainers(cmd, -1, running)
	return cmd
}

func (a *app) forContainers(f func(c *container.Container, ctx context.Context) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return a.eachContainer(args, func(c *container.Container) error { return f(c, cmd.Context()) })
	}
}

// eachContainer calls f for all of them at once, as each of them may take its ten seconds, and prints the names for
// which it did, in the order given.
func (a *app) eachContainer(names []string, f func(c *container.Container) error) error {
	results := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() {
			c, err := a.container(n)
			if err == nil {
				err = f(c)
			}
			results[i] = err
		})
	}
	wg.Wait()
	i := -1
	return a.each(names, func(string) error { i++; return results[i] })
}
