package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

type startFlags struct {
	attach, interactive bool
	detachKeys          string
}

func (a *app) startCommand() *cobra.Command {
	var f startFlags
	cmd := command("start [OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", between(1, -1),
		"container start, start", func(cmd *cobra.Command, args []string) error {
			switch {
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
	set.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	a.completeContainers(cmd, -1, stopped)
	return cmd
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
