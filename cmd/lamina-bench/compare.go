package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/bench/report"
)

func compareCommand() *cobra.Command {
	var of, ours []string
	c := report.Compare{}
	cmd := &cobra.Command{
		Use:   "compare OLD.json NEW.json",
		Short: "Compare two reports, as benchstat does; exit status 1 on a significant regression",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range of {
				if !slices.Contains(report.Ofs, report.Of(name)) {
					return fmt.Errorf("--of %q: there are %v", name, report.Ofs)
				}
				c.Of = append(c.Of, report.Of(name))
			}
			for _, p := range ours {
				if _, err := match(p, ""); err != nil {
					return fmt.Errorf("--ours %q: %w", p, err)
				}
			}
			c.Ours = func(system string) bool {
				return slices.ContainsFunc(ours, func(p string) bool { ok, _ := match(p, system); return ok })
			}
			switch {
			case !(c.Alpha > 0 && c.Alpha < 1): // nor is it NaN
				return fmt.Errorf("--alpha %g: want a number between 0 and 1", c.Alpha)
			case !(c.Threshold >= 0):
				return fmt.Errorf("--threshold %g: want a fraction, 0 or more", c.Threshold)
			}
			return compare(cmd, c, args[0], args[1])
		},
	}
	names := make([]string, len(report.Ofs))
	for i, o := range report.Ofs {
		names[i] = string(o)
	}
	set := cmd.Flags()
	set.StringSliceVar(&of, "of", []string{"wall", "cpu"}, "`what` to compare, of "+strings.Join(names, ", "))
	set.Float64Var(&c.Alpha, "alpha", 0.05, "`p-value` of the Mann-Whitney test below which a difference is one")
	set.Float64Var(&c.Threshold, "threshold", 0.05, "`fraction` by which a median has to be worse for a regression")
	set.StringSliceVar(&ours, "ours", []string{"lamina*"}, "`patterns` of the systems of which a regression counts")
	return cmd
}

// match is path.Match for the names of systems, in whose options a slash is a character as any other.
func match(pattern, system string) (bool, error) {
	plain := strings.NewReplacer("/", "\x00")
	return path.Match(plain.Replace(pattern), plain.Replace(system))
}

func compare(cmd *cobra.Command, c report.Compare, before, after string) error {
	a, err := report.Load(before)
	if err != nil {
		return err
	}
	b, err := report.Load(after)
	if err != nil {
		return err
	}
	changes, err := c.Run(a, b)
	if err != nil {
		return fmt.Errorf("compare %s and %s: %w", before, after, err)
	}
	if err := changes.Text(cmd.OutOrStdout(), before, after); err != nil {
		return err
	}
	if n, m := len(changes.Regressions()), len(changes.Broken); n+m > 0 {
		return fmt.Errorf("slower or larger: %d, broken: %d%w", n, m, errWorse)
	}
	return nil
}
