package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/idmap"
)

// Which containers a command takes.
func all(state string) bool     { return true }
func running(state string) bool { return state == "running" || state == "paused" }
func stopped(state string) bool { return state == "created" || state == "exited" }

// completeContainers offers names for the first n arguments, for all of them where n is negative.
func (a *app) completeContainers(cmd *cobra.Command, n int, which func(state string) bool) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if n >= 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return without(a.containerNames(which), args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages offers names for the first n arguments, for all of them where n is negative.
func (a *app) completeImages(cmd *cobra.Command, n int) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if n >= 0 && len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return without(a.imageNames(), args), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeVolumes(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return without(a.volumeNames(), args), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeObjects(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		names := slices.Concat(a.containerNames(all), a.imageNames(), a.volumeNames())
		return without(names, args), cobra.ShellCompDirectiveNoFileComp
	}
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"container", "image", "volume"},
		cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

// without leaves out what is on the command line already.
func without(names, args []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) })
}

// The lists for completion: what cannot be read is not offered.

func (a *app) containerNames(which func(state string) bool) []string {
	s, err := a.containers()
	if err != nil {
		return nil
	}
	list, err := s.List(context.Background(), container.ListOptions{All: true})
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range list {
		if !which(string(c.State)) {
			continue
		}
		for _, n := range c.Names {
			names = append(names, strings.TrimPrefix(n, "/"))
		}
	}
	return names
}

func (a *app) volumeNames() []string {
	s, err := a.volumes()
	if err != nil {
		return nil
	}
	list, err := s.List()
	if err != nil {
		return nil
	}
	var names []string
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names
}

// enterForCompletion does what enter does, for the hidden command that shells call: cobra runs none of our hooks for
// it. It returns false where the caller goes on.
func enterForCompletion() (code int, done bool) {
	if os.Geteuid() == 0 || len(os.Args) < 2 || !strings.HasPrefix(os.Args[1], cobra.ShellCompRequestCmd) {
		return 0, false
	}
	id, err := idmap.Discover()
	if err != nil {
		return 0, false
	}
	if code, err = id.Reexec(os.Args[0]); err != nil {
		return 0, false
	}
	return code, true
}
