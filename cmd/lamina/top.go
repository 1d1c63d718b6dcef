package main

import (
	"fmt"
	"strings"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/spf13/cobra"
)

func (a *app) topCommand() *cobra.Command {
	cmd := command("top CONTAINER [ps OPTIONS]", "Display the running processes of a container", between(1, -1),
		"container top, top", func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			list, err := c.Top(cmd.Context(), args[1:])
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
			fmt.Fprintln(w, strings.Join(list.Titles, "\t"))
			for _, p := range list.Processes {
				fmt.Fprintln(w, strings.Join(p, "\t"))
			}
			return w.Flush()
		})
	cmd.Flags().SetInterspersed(false)
	a.completeContainers(cmd, 1, running)
	return cmd
}
