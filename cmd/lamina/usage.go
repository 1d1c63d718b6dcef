package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const formatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template`

const inspectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template`

// usageTemplate is Docker's, for what there is here.
const usageTemplate = `Usage:
{{- if not .HasSubCommands}}  {{.UseLine}}{{end}}
{{- if .HasSubCommands}}  {{.CommandPath}}{{if .HasAvailableFlags}} [OPTIONS]{{end}} COMMAND{{end}}

{{if ne .Long ""}}{{.Long | trimRightSpace}}{{else}}{{.Short | trimRightSpace}}{{end}}
{{- with aliases .}}

Aliases:
  {{.}}
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if and .HasParent .HasAvailableLocalFlags}}

Options:
{{flagUsages . | trimRightSpace}}
{{- end}}
{{- range subCommands . "common" "Common Commands"}}{{.}}{{end}}
{{- range subCommands . "group" "Management Commands"}}{{.}}{{end}}
{{- range subCommands . "other" "Commands"}}{{.}}{{end}}
{{- if and (not .HasParent) .HasAvailableFlags}}

Global Options:
{{flagUsages . | trimRightSpace}}
{{- end}}
{{- if .HasSubCommands}}

Run '{{.CommandPath}} COMMAND --help' for more information on a command.
{{- end}}
`

func init() {
	cobra.AddTemplateFunc("aliases", aliases)
	cobra.AddTemplateFunc("subCommands", subCommands)
	cobra.AddTemplateFunc("flagUsages", flagUsages)
}

// Annotations of commands.
const (
	annotationAliases = "aliases" // all ways to call it
	annotationCommon  = "common"  // its place among the common commands
	annotationNoStore = "nostore" // needs neither a store nor rights
	annotationTries   = "tries"   // an ordinary user's tries without a user namespace: see enter
)

func aliases(cmd *cobra.Command) string { return cmd.Annotations[annotationAliases] }

func flagUsages(cmd *cobra.Command) string {
	width := 80
	if w, _, err := term.GetSize(int(os.Stdin.Fd())); err == nil && w > 20 {
		width = w
	}
	return cmd.LocalFlags().FlagUsagesWrapped(width - 1)
}

// subCommands lists the commands below cmd of one kind, under a title: at most one text.
func subCommands(cmd *cobra.Command, kind, title string) []string {
	var lines []string
	for _, c := range cmd.Commands() {
		is := "other"
		switch {
		case c.HasAvailableSubCommands():
			is = "group"
		case c.Annotations[annotationCommon] != "" && !cmd.HasParent():
			is = "common"
		}
		if is == kind && (c.IsAvailableCommand() || c.Name() == "help") {
			lines = append(lines, fmt.Sprintf("  %-*s %s", c.NamePadding(), c.Name(), c.Short))
		}
	}
	if lines == nil {
		return nil
	}
	return []string{"\n\n" + title + ":\n" + strings.Join(lines, "\n")}
}

// wrongUsage says how the command is called; 125 for flags, 1 for arguments, as Docker has it.
func wrongUsage(cmd *cobra.Command, code int, format string, args ...any) error {
	return &exitStatus{code, &usageError{fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information",
		fmt.Sprintf(format, args...), cmd.UseLine(), cmd.CommandPath())}}
}

func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return wrongUsage(cmd, exitError, "lamina: unknown command: %s %s", cmd.CommandPath(), args[0])
	}
	return wrongUsage(cmd, exitError, "lamina: '%s' accepts no arguments", cmd.CommandPath())
}

// between wants low to high arguments; high is negative for no bound.
func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var want string
		n := low
		switch {
		case len(args) >= low && (high < 0 || len(args) <= high):
			return nil
		case high < 0:
			want = fmt.Sprintf("at least %d", low)
		case low == high:
			want = fmt.Sprint(low)
		case low == 0:
			want, n = fmt.Sprintf("at most %d", high), high
		default:
			want, n = fmt.Sprintf("at least %d and at most %d", low, high), high
		}
		plural := "s"
		if n == 1 {
			plural = ""
		}
		return wrongUsage(cmd, exitError, "lamina: '%s' requires %s argument%s", cmd.CommandPath(), want, plural)
	}
}

// group is a command that has nothing but commands.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: noArgs, DisableFlagsInUseLine: true,
		Annotations: map[string]string{annotationNoStore: "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			return cmd.Help()
		}}
	for _, c := range commands {
		c.Annotations[annotationCommon] = ""
		cmd.AddCommand(c)
	}
	return cmd
}
