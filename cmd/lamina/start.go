package main

import (
	"context"
	"errors"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

type startFlags struct {
	attach, interactive bool
	all                 bool
	filter              *opts.FilterOpt
	detachKeys          string
}

func (a *app) startCommand() *cobra.Command {
	f := startFlags{filter: filterFlag()}
	cmd := command("start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", between(0, -1),
		"container start, start", func(cmd *cobra.Command, args []string) error {
			switch {
			case f.all:
				if len(args) > 0 || f.attach || f.interactive {
					return wrongUsage(cmd, exitError, "lamina: '%s --all' takes no container, and is attached to none", cmd.CommandPath())
				}
				return a.startAll(cmd.Context(), filters(f.filter))
			case len(args) == 0:
				return between(1, -1)(cmd, args)
			case !f.attach && !f.interactive:
				return a.each(args, func(name string) error { return a.startOne(cmd.Context(), name) })
			case len(args) > 1:
				return errors.New("you cannot start and attach multiple containers at once")
			}
			return a.startAttached(cmd.Context(), args[0], &f)
		})
	set := cmd.Flags()
	set.BoolVarP(&f.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	set.BoolVarP(&f.interactive, "interactive", "i", false, "Attach container's STDIN")
	set.BoolVar(&f.all, "all", false, "Start all containers that do not run, but for those that restart unless stopped and were stopped")
	set.VarP(f.filter, "filter", "f", `With --all, those of them that match (e.g. "restart-policy=always")`)
	set.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	a.completeContainers(cmd, -1, stopped)
	return cmd
}

// startAll is what brings containers back after the machine was started anew: see docs/LAMINA.md.
func (a *app) startAll(ctx context.Context, filters map[string][]string) error {
	s, err := a.containers()
	if err != nil {
		return err
	}
	list, err := s.List(ctx, container.ListOptions{All: true, Filters: filters})
	if err != nil {
		return err
	}
	var names []string
	for _, sum := range list {
		c, err := s.Get(sum.ID)
		if errors.Is(err, container.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		start, err := c.Startable()
		if err != nil {
			return err
		}
		if start {
			names = append(names, c.Name())
		}
	}
	return a.each(names, func(name string) error { return a.startOne(ctx, name) })
}

func (a *app) startOne(ctx context.Context, name string) error {
	c, err := a.container(name)
	if err != nil {
		return err
	}
	_, err = c.Start(ctx, container.StartOptions{})
	return err
}

func (a *app) startAttached(ctx context.Context, name string, f *startFlags) error {
	c, err := a.container(name)
	if err != nil {
		return err
	}
	keys, err := container.ParseKeys(f.detachKeys)
	if err != nil {
		return err
	}
	at := attachment{tty: c.Config().Tty, stdin: f.interactive && c.Config().OpenStdin, stdout: true, stderr: true,
		sigProxy: !c.Config().Tty, keys: keys}
	if err := a.checkTerminal(at); err != nil {
		return err
	}
	code, err := a.session(ctx, at, func() (*container.Session, error) {
		return c.Start(ctx, container.StartOptions{Streams: a.streams(at), ConsoleSize: a.consoleSize()})
	})
	if err != nil {
		return err
	}
	return status(code)
}

// container is the one with that name or ID.
func (a *app) container(name string) (*container.Container, error) {
	s, err := a.containers()
	if err != nil {
		return nil, err
	}
	return s.Get(name)
}
