package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

func (a *app) rmCommand() *cobra.Command {
	var o container.RemoveOptions
	cmd := command("rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers", between(1, -1),
		"container rm, container remove, rm", func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				err := a.remove(cmd.Context(), strings.Trim(name, "/"), o)
				switch {
				case err == nil:
					a.println(name)
				case o.Force && errors.Is(err, container.ErrNotFound):
					fmt.Fprintln(a.err, "Error: "+oneLine(err)) // said, but with --force no failure
				default:
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		})
	cmd.Aliases = []string{"remove"}
	cmd.Flags().BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	a.completeContainers(cmd, -1, all)
	return cmd
}

// remove removes a container, with force one whose record is damaged too.
func (a *app) remove(ctx context.Context, name string, o container.RemoveOptions) error {
	s, err := a.containers()
	if err != nil {
		return err
	}
	c, err := s.Get(name)
	if err == nil {
		err = c.Remove(ctx, o)
	}
	var damaged *container.DamagedError
	switch {
	case !errors.As(err, &damaged):
		return err
	case o.Force:
		return s.RemoveDamaged(ctx, damaged.ID, o)
	}
	return fmt.Errorf("%w (--force removes it)", err)
}

func (a *app) renameCommand() *cobra.Command {
	cmd := command("rename CONTAINER NEW_NAME", "Rename a container", between(2, 2), "container rename, rename",
		func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			return c.Rename(cmd.Context(), args[1])
		})
	a.completeContainers(cmd, 1, all)
	return cmd
}

func (a *app) containerPruneCommand() *cobra.Command {
	var force bool
	filter := filterFlag()
	cmd := command("prune [OPTIONS]", "Remove all stopped containers", noArgs, "",
		func(cmd *cobra.Command, _ []string) error {
			if !force {
				if err := a.confirm("WARNING! This will remove all stopped containers.", "container prune"); err != nil {
					return err
				}
			}
			n, err := a.pruneContainers(cmd.Context(), filters(filter))
			if err != nil {
				return err
			}
			return a.reclaimed(n)
		})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}
