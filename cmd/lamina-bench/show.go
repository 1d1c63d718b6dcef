package main

import (
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/bench/report"
)

func showCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "show REPORT.json",
		Short: "Write the tables, the page and the chart of a report again, or its entry for the ledger",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := report.Load(args[0])
			switch {
			case err != nil:
				return err
			case o.out != "":
				if err := r.WriteFiles(o.out); err != nil {
					return err
				}
				return o.text(cmd.OutOrStdout(), r)
			case o.ledger != "":
				return r.Ledger(cmd.OutOrStdout(), o.ledger)
			}
			return r.Markdown(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.out, "out", "", "`directory` for the files (default none: only the tables are shown)")
	cmd.Flags().StringVar(&o.ledger, "ledger", "", "show an entry for bench/RESULTS.md; the `text` says what changed")
	return cmd
}
