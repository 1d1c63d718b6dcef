package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/version"
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
				a.println("lamina version " + version.Module())
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
// whose status this one ends. Root goes on, and so does what may well need no other IDs than the user's own: it calls inside when it
// finds that it does.
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
	if a.trying = tries(root, cmd, args); a.trying {
		return nil
	}
	return a.inside(root, cmd, args)
}

// tries tells whether a command may happen outside, and then once more inside: what an option reads may be a pipe. A store
// that is not there yet has no image, and is not made for a user who may not be able to have a container.
func tries(root string, cmd *cobra.Command, args []string) bool {
	set := cmd.Flags()
	if cmd.Annotations[annotationTries] == "" || set.Changed("env-file") || set.Changed("label-file") || set.Changed("security-opt") {
		return false
	}
	if _, err := os.Stat(filepath.Join(root, "containers")); err != nil {
		return false
	}
	beside, err := besides(root, cmd, args)
	return beside == 0 && err == nil
}

// inside is the command as root of a user namespace. What was tried outside has left nothing behind.
func (a *app) inside(root string, cmd *cobra.Command, args []string) error {
	a.expected.Drop()
	if err := container.ReapOutside(root); err != nil {
		return err
	}
	beside, err := besides(root, cmd, args)
	if err != nil {
		return &exitStatus{exitLamina, err}
	}
	id, err := idmap.Discover()
	if err != nil {
		return err
	}
	slog.Debug("enter a user namespace", "store", root, "identity", id.Kind, "uids", id.UIDs, "gids", id.GIDs)
	if err := sys.KeepInherited(true); err != nil { // the monitor was not to get it, we are: --env-file /dev/fd/5
		return err
	}
	reexec := id.Reexec
	if beside != 0 {
		reexec = func(argv0 string) (int, error) { return id.ReexecBeside(argv0, beside) }
	}
	code, err := reexec(os.Args[0])
	if err != nil {
		return &exitStatus{exitLamina, err}
	}
	return &exitStatus{code: code}
}

// settle ends what was tried outside: err is why it did not work, nil where it did. A command that did not work happens once
// more, inside, where all IDs are at hand, and tells from there what is wrong with it.
func (a *app) settle(cmd *cobra.Command, args []string, err error) error {
	if !a.trying {
		return err
	}
	a.trying = false
	if err == nil {
		a.warn(a.held)
		return nil
	}
	slog.Debug("not without a user namespace", "reason", err)
	root, err := a.rootDir()
	if err != nil {
		return err
	}
	return a.inside(root, cmd, args)
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
