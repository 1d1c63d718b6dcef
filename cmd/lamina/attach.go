package main

import (
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

func (a *app) attachCommand() *cobra.Command {
	var noStdin, sigProxy bool
	var detachKeys string
	cmd := command("attach [OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container",
		between(1, 1), "container attach, attach", func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			keys, err := container.ParseKeys(detachKeys)
			if err != nil {
				return err
			}
			at := attachment{tty: c.Config().Tty, stdin: !noStdin && c.Config().OpenStdin, stdout: true, stderr: true,
				sigProxy: sigProxy && !c.Config().Tty, keys: keys}
			if err := a.checkTerminal(at); err != nil {
				return err
			}
			code, err := a.session(cmd.Context(), at, func() (*container.Session, error) {
				s, err := c.Attach(cmd.Context(), *a.streams(at))
				if size := a.consoleSize(); err == nil && at.tty && size != [2]uint{} {
					_ = s.Resize(size[0], size[1]) // it may have ended
				}
				return s, err
			})
			if err != nil {
				return err
			}
			return status(code)
		})
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	cmd.Flags().StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	a.completeContainers(cmd, 1, running)
	return cmd
}
