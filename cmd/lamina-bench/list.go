package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/bench"
)

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List systems and workloads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "systems\t\t%s (unions)\n\t\t%s (launchers)\n", strings.Join(bench.Unions, ", "), strings.Join(bench.Launchers, ", "))
			group := ""
			for _, wl := range bench.Workloads() {
				if wl.Group != group {
					group = wl.Group
					fmt.Fprintf(w, "\n%s\t\t\n", group)
				}
				fmt.Fprintf(w, "  %s\t\t%s\n", wl.Name, wl.About)
			}
			return w.Flush()
		},
	}
}
