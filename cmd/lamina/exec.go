package main

import (
	"context"
	"fmt"

	"github.com/docker/cli/opts"
	api "github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

type execFlags struct {
	detachKeys  string
	interactive bool
	tty         bool
	detach      bool
	user        string
	privileged  bool
	env         opts.ListOpts
	envFile     opts.ListOpts
	workdir     string
}

func (a *app) execCommand() *cobra.Command {
	f := execFlags{env: opts.NewListOpts(opts.ValidateEnv), envFile: opts.NewListOpts(nil)}
	cmd := command("exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", between(2, -1),
		"container exec, exec", func(cmd *cobra.Command, args []string) error {
			return a.exec(cmd.Context(), args[0], args[1:], &f)
		})
	set := cmd.Flags()
	set.SetInterspersed(false)
	set.StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	set.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	set.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	set.BoolVarP(&f.detach, "detach", "d", false, "Detached mode: run command in the background")
	set.StringVarP(&f.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	set.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to the command")
	set.VarP(&f.env, "env", "e", "Set environment variables")
	set.Var(&f.envFile, "env-file", "Read in a file of environment variables")
	set.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	a.completeContainers(cmd, 1, running)
	return cmd
}

func (a *app) exec(ctx context.Context, name string, argv []string, f *execFlags) error {
	env, err := opts.ReadKVEnvStrings(f.envFile.GetSlice(), f.env.GetSlice())
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	keys, err := container.ParseKeys(f.detachKeys)
	if err != nil {
		return err
	}
	c, err := a.container(name)
	if err != nil {
		return err
	}
	at := attachment{tty: f.tty, stdin: f.interactive, stdout: true, stderr: true, keys: keys}
	o := container.ExecOptions{ExecCreateRequest: api.ExecCreateRequest{
		User: f.user, Privileged: f.privileged, Tty: f.tty, Env: env, WorkingDir: f.workdir, Cmd: argv,
		AttachStdin: at.stdin, AttachStdout: true, AttachStderr: true,
	}}
	if f.detach {
		o.AttachStdin, o.AttachStdout, o.AttachStderr = false, false, false
		_, err := c.Exec(ctx, o)
		return err
	}
	if err := a.checkTerminal(at); err != nil {
		return err
	}
	if size := a.consoleSize(); f.tty && size != [2]uint{} {
		o.ConsoleSize = &size
	}
	o.Streams = a.streams(at)
	code, err := a.session(ctx, at, func() (*container.Session, error) { return c.Exec(ctx, o) })
	if err != nil {
		return err
	}
	return status(code)
}
