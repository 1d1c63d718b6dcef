package main

import (
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/idmap"
)

// rootCommand is the whole command line.
func rootCommand(a *app) *cobra.Command {
	var showVersion bool
	cmd := &cobra.Command{
		Use:           "lamina [OPTIONS] COMMAND [ARG...]",
		Short:         "Run containers from layered images, without privilege",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		Annotations:   map[string]string{annotationNoStore: "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				a.println("lamina version " + version())
				return nil
			}
			return cmd.Help()
		},
		PersistentPreRunE:     func(cmd *cobra.Command, args []string) error { return a.enter(cmd, args) },
		DisableFlagsInUseLine: true,
		TraverseChildren:      true,
	}
	cmd.SetIn(a.in)
	cmd.SetOut(a.out)
	cmd.SetErr(a.err)
	cmd.SetUsageTemplate(usageTemplate)
	cmd.SetHelpTemplate("{{.UsageString}}")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return wrongUsage(cmd, exitLamina, "%s", err)
	})
	a.addGlobalFlags(cmd.PersistentFlags())
	cmd.Flags().BoolVarP(&showVersion, "version", "v", false, "Print version information and quit")
	cmd.PersistentFlags().Bool("help", false, "Print usage")
	cmd.PersistentFlags().Lookup("help").Hidden = true

	for _, c := range a.topCommands() {
		cmd.AddCommand(c)
	}
	cmd.AddCommand(
		group("container", "Manage containers", a.containerCommands()...),
		group("image", "Manage images", a.imageCommands()...),
		group("mount", "Show mounts", a.mountLsCommand()),
		group("volume", "Manage volumes", a.volumeCommands()...),
		group("system", "Manage lamina", a.dfCommand(), a.infoCommand(), a.systemPruneCommand()),
	)
	cmd.InitDefaultHelpCmd()
	cmd.InitDefaultCompletionCmd()
	withoutStore(cmd, "help", "completion")
	return cmd
}

// topCommands are those that are called without the name of a group.
func (a *app) topCommands() []*cobra.Command {
	common := []*cobra.Command{
		a.runCommand(), a.execCommand(), a.psCommand("ps"), a.pullCommand(), a.pushCommand(), a.imagesCommand("images"),
		a.loginCommand(), a.logoutCommand(), a.versionCommand(), a.infoCommand(),
	}
	order := "abcdefghij"
	for i, c := range common {
		c.Annotations[annotationCommon] = order[i : i+1]
	}
	return append(common,
		a.attachCommand(), a.commitCommand(), a.cpCommand(), a.createCommand(), a.diffCommand(), a.exportCommand(),
		a.historyCommand(), a.importCommand(), a.inspectCommand(), a.killCommand(), a.loadCommand(), a.logsCommand(), a.metricsCommand(),
		a.pauseCommand(), a.portCommand(), a.renameCommand(), a.restartCommand(), a.rmCommand(), a.rmiCommand("rmi"),
		a.saveCommand(), a.startCommand(), a.statsCommand(), a.stopCommand(), a.tagCommand(), a.topCommand(),
		a.unpauseCommand(), a.updateCommand(), a.waitCommand(),
	)
}

func (a *app) containerCommands() []*cobra.Command {
	return []*cobra.Command{
		a.attachCommand(), a.commitCommand(), a.cpCommand(), a.createCommand(), a.diffCommand(), a.execCommand(),
		a.exportCommand(), a.containerInspectCommand(), a.killCommand(), a.logsCommand(), a.psCommand("ls"), a.pauseCommand(),
		a.portCommand(), a.containerPruneCommand(), a.renameCommand(), a.restartCommand(), a.rmCommand(), a.runCommand(),
		a.startCommand(), a.statsCommand(), a.stopCommand(), a.topCommand(), a.unpauseCommand(), a.updateCommand(),
		a.waitCommand(),
	}
}

func (a *app) imageCommands() []*cobra.Command {
	return []*cobra.Command{
		a.historyCommand(), a.importCommand(), a.imageInspectCommand(), a.loadCommand(), a.imagesCommand("ls"),
		a.imagePruneCommand(), a.pullCommand(), a.pushCommand(), a.rmiCommand("rm"), a.saveCommand(), a.tagCommand(),
	}
}

func (a *app) volumeCommands() []*cobra.Command {
	return []*cobra.Command{
		a.volumeCreateCommand(), a.volumeInspectCommand(), a.volumeLsCommand(), a.volumePruneCommand(), a.volumeRmCommand(),
	}
}

// withoutStore marks commands of cobra's own, and what is below them.
func withoutStore(root *cobra.Command, names ...string) {
	var mark func(c *cobra.Command)
	mark = func(c *cobra.Command) {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[annotationNoStore] = "yes"
		for _, s := range c.Commands() {
			mark(s)
		}
	}
	for _, c := range root.Commands() {
		for _, n := range names {
			if c.Name() == n {
				mark(c)
			}
		}
	}
}

// enter makes an ordinary user's command root of a user namespace: the rest of it happens in a second process, with
// whose status this one ends. Root goes on.
func (a *app) enter(cmd *cobra.Command, args []string) error {
	if cmd.Annotations[annotationNoStore] != "" {
		return nil
	}
	a.enableDebug()
	if os.Geteuid() == 0 {
		return nil
	}
	root, err := a.rootDir()
	if err != nil {
		return err
	}
	if err := container.ReapOutside(root); err != nil {
		return err
	}
	begun := a.begun
	if begun == nil {
		begun = idmap.Begin(os.Args[0])
	}
	defer begun.Drop()
	id, err := begun.Identity()
	if err != nil {
		return err
	}
	slog.Debug("enter a user namespace", "store", root, "identity", id.Kind, "uids", id.UIDs, "gids", id.GIDs)
	beside, err := besides(root, cmd, args)
	if err != nil {
		return &exitStatus{exitLamina, err}
	}
	reexec := begun.Reexec
	if beside != 0 {
		begun.Drop()
		reexec = func() (int, error) { return id.ReexecBeside(os.Args[0], beside) }
	}
	code, err := reexec()
	if err != nil {
		return &exitStatus{exitLamina, err}
	}
	return &exitStatus{code: code}
}

// besides finds the process in whose user namespace the command has to be: that of another container, whose network or
// processes the one to be started shares. 0 is for none.
func besides(root string, cmd *cobra.Command, args []string) (pid int, err error) {
	switch cmd.Name() {
	case "run":
		var modes []string
		for _, name := range []string{"network", "net", "pid"} {
			if f := cmd.Flag(name); f != nil {
				modes = append(modes, f.Value.String())
			}
		}
		return container.Beside(root, modes, nil)
	case "start", "restart":
		return container.Beside(root, nil, args)
	}
	return 0, nil
}

// command makes a command that takes a store, called by one or several names ("docker container ls, docker ps").
func command(use, short string, args cobra.PositionalArgs, calls string, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: args, RunE: run, DisableFlagsInUseLine: true, Annotations: map[string]string{}}
	if calls != "" {
		list := strings.Split(calls, ",")
		for i := range list {
			list[i] = "lamina " + strings.TrimSpace(list[i])
		}
		c.Annotations[annotationAliases] = strings.Join(list, ", ")
	}
	return c
}
