package main

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	ctr "github.com/laminafs/lamina/runtime/container"
)

type runFlags struct {
	*createFlags
	detach     bool
	sigProxy   bool
	detachKeys string
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := command("run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", nil,
		"container run, run", func(cmd *cobra.Command, args []string) error {
			made, at, err := a.makeForRun(cmd, args, &f)
			if err := a.settle(cmd, args, failed(err)); err != nil {
				return err
			}
			return failed(a.run(cmd.Context(), made, at))
		})
	cmd.Annotations[annotationTries] = "yes"
	f.createFlags = addCreateFlags(cmd)
	set := cmd.Flags()
	set.BoolVarP(&f.detach, "detach", "d", false, "Run container in background and print container ID")
	set.BoolVar(&f.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	set.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	a.completeImages(cmd, 1)
	return cmd
}

// makeForRun makes the container, with a monitor that waits for its start.
func (a *app) makeForRun(cmd *cobra.Command, args []string, f *runFlags) (made *ctr.Container, at attachment, err error) {
	c, err := f.parse(cmd, args)
	if err != nil {
		return nil, at, err
	}
	if f.detach && cmd.Flags().Changed("attach") {
		return nil, at, wrongUsage(cmd, exitLamina, "conflicting options: cannot specify both --attach and --detach")
	}
	keys, err := ctr.ParseKeys(f.detachKeys)
	if err != nil {
		return nil, at, err
	}
	if f.detach {
		c.Config.AttachStdin, c.Config.AttachStdout, c.Config.AttachStderr, c.Config.StdinOnce = false, false, false, false
	}
	at = attachmentOf(c.Config)
	at.sigProxy, at.keys = f.sigProxy, keys
	if err := a.checkTerminal(at); err != nil {
		return nil, at, err
	}
	s, err := a.containers()
	if err != nil {
		return nil, at, err
	}
	s.Expect()
	defer func() {
		if err != nil {
			s.Unexpect()
		}
	}()
	made, err = a.create(cmd.Context(), f.createFlags, c)
	return made, at, err
}

// run starts a container that was made, in the foreground where it is attached to anything.
func (a *app) run(ctx context.Context, made *ctr.Container, at attachment) error {
	if !at.stdin && !at.stdout && !at.stderr {
		if _, err := made.Start(ctx, ctr.StartOptions{}); err != nil {
			return a.notStarted(ctx, made, err)
		}
		a.println(made.ID())
		return nil
	}
	started := false
	code, err := a.session(ctx, at, func() (*ctr.Session, error) {
		s, err := made.Start(ctx, ctr.StartOptions{Streams: a.streams(at), Foreground: true, ConsoleSize: a.consoleSize()})
		started = err == nil
		return s, err
	})
	switch {
	case err != nil && !started:
		return a.notStarted(ctx, made, err)
	case err != nil:
		return err
	}
	return status(code)
}

// attachmentOf is what a container's configuration says about streams.
func attachmentOf(c *container.Config) attachment {
	return attachment{tty: c.Tty, stdin: c.AttachStdin, stdout: c.AttachStdout, stderr: c.AttachStderr}
}

// notStarted removes a container with --rm that never ran.
func (a *app) notStarted(ctx context.Context, c *ctr.Container, err error) error {
	if !c.HostConfig().AutoRemove {
		return err
	}
	if e := c.Remove(ctx, ctr.RemoveOptions{Force: true, Volumes: true}); e != nil && !errors.Is(e, ctr.ErrNotFound) && !errors.Is(e, ctr.ErrLeft) {
		return errors.Join(err, e)
	}
	return err
}
