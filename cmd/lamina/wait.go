package main

import (
	"context"
	"errors"

	api "github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func (a *app) waitCommand() *cobra.Command {
	cmd := command("wait CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes",
		between(1, -1), "container wait, wait", func(cmd *cobra.Command, args []string) error {
			return a.waitFor(cmd.Context(), args)
		})
	a.completeContainers(cmd, -1, running)
	return cmd
}

// waitFor prints the exit status of each container once it does not run any more.
func (a *app) waitFor(ctx context.Context, names []string) error {
	var errs []error
	for _, n := range names {
		c, err := a.container(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		code, err := c.Wait(ctx, api.WaitConditionNotRunning)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.println(code)
	}
	return errors.Join(errs...)
}
