package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	volumetypes "github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/volume"
)

func (a *app) volumeCreateCommand() *cobra.Command {
	var driver string
	options, labels := opts.NewMapOpts(nil, nil), opts.NewListOpts(opts.ValidateLabel)
	cmd := command("create [OPTIONS] [VOLUME]", "Create a volume", between(0, 1), "",
		func(cmd *cobra.Command, args []string) error {
			s, err := a.volumes()
			if err != nil {
				return err
			}
			if driver != "local" {
				return fmt.Errorf("create volume: no driver %q: there is only local", driver)
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			v, err := s.Create(name, opts.ConvertKVStringsToMap(labels.GetSlice()), options.GetAll())
			if err != nil {
				return err
			}
			a.println(v.Name)
			return nil
		})
	cmd.Flags().StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	cmd.Flags().VarP(options, "opt", "o", "Set driver specific options")
	cmd.Flags().Var(&labels, "label", "Set metadata for a volume")
	return cmd
}

func (a *app) inspectVolume(_ context.Context, name string) (any, error) {
	s, err := a.volumes()
	if err != nil {
		return nil, err
	}
	v, err := s.Get(name)
	if err != nil {
		return nil, err
	}
	return v.API(), nil
}

func (a *app) volumeInspectCommand() *cobra.Command {
	var format string
	cmd := command("inspect [OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes", between(1, -1), "",
		func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), args, format, a.inspectVolume)
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	a.completeVolumes(cmd)
	return cmd
}

func (a *app) volumeLsCommand() *cobra.Command {
	var quiet bool
	var format string
	filter := filterFlag()
	cmd := command("ls [OPTIONS]", "List volumes", noArgs, "volume ls, volume list",
		func(cmd *cobra.Command, _ []string) error {
			list, err := a.listVolumes(filters(filter))
			if err != nil {
				return err
			}
			if format == "" {
				format = formatter.TableFormatKey
			}
			return formatter.VolumeWrite(formatter.Context{Output: a.out, Format: formatter.NewVolumeFormat(format, quiet)}, list)
		})
	cmd.Aliases = []string{"list"}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	cmd.Flags().StringVar(&format, "format", "", formatHelp)
	cmd.Flags().VarP(filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

func (a *app) volumeRmCommand() *cobra.Command {
	var force bool
	cmd := command("rm [OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", between(1, -1), "volume rm, volume remove",
		func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(name string) error { return a.removeVolume(name, force) })
		})
	cmd.Aliases = []string{"remove"}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	a.completeVolumes(cmd)
	return cmd
}

// removeVolume removes a volume that no container has. With force one that is not there is no error, as in Docker.
func (a *app) removeVolume(name string, force bool) error {
	s, err := a.volumes()
	if err != nil {
		return err
	}
	if err := s.Remove(name, a.volumeUsers); err != nil && !(force && errors.Is(err, volume.ErrNotFound)) {
		return err
	}
	return nil
}

// volumeUsers are the IDs of the containers that have the volume.
func (a *app) volumeUsers(name string) ([]string, error) {
	s, err := a.containers()
	if err != nil {
		return nil, err
	}
	return s.VolumeUsers(name)
}

func (a *app) volumePruneCommand() *cobra.Command {
	var force, everything bool
	filter := filterFlag()
	cmd := command("prune [OPTIONS]", "Remove unused local volumes", noArgs, "",
		func(cmd *cobra.Command, _ []string) error {
			warning := "WARNING! This will remove anonymous local volumes not used by at least one container."
			if everything {
				warning = "WARNING! This will remove all local volumes not used by at least one container."
			}
			if !force {
				if err := a.confirm(warning, "volume prune"); err != nil {
					return err
				}
			}
			n, err := a.pruneVolumes(everything, filters(filter))
			if err != nil {
				return err
			}
			return a.reclaimed(n)
		})
	cmd.Flags().BoolVarP(&everything, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(filter, "filter", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}

// volumeUsage counts what volumes hold. What no container has can be reclaimed.
func (a *app) volumeUsage() (u client.VolumesDiskUsage, err error) {
	s, err := a.volumes()
	if err != nil {
		return u, err
	}
	list, err := s.List()
	if err != nil {
		return u, err
	}
	for _, v := range list {
		users, err := a.volumeUsers(v.Name)
		if err != nil {
			return u, err
		}
		size, err := v.Size()
		if err != nil {
			return u, err
		}
		shown := v.API()
		shown.UsageData = &volumetypes.UsageData{RefCount: int64(len(users)), Size: size}
		u.Items = append(u.Items, shown)
		u.TotalCount++
		u.TotalSize += size
		if len(users) > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	return u, nil
}
