package main

import (
	"context"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/image"
)

func (a *app) dfCommand() *cobra.Command {
	var verbose bool
	var format string
	cmd := command("df [OPTIONS]", "Show lamina's disk usage", noArgs, "",
		func(cmd *cobra.Command, _ []string) error {
			d, err := a.diskUsage(cmd.Context())
			if err != nil {
				return err
			}
			if format == "" {
				format = formatter.TableFormatKey
			}
			d.Output, d.Verbose = a.out, verbose
			d.Format = formatter.NewDiskUsageFormat(format, verbose)
			return d.Write()
		})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&format, "format", "", formatHelp)
	return cmd
}

// diskUsage counts bytes. There is no build cache; Docker's table has a line for it.
func (a *app) diskUsage(ctx context.Context) (*formatter.DiskUsageContext, error) {
	d := &formatter.DiskUsageContext{}
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	i, err := images.DiskUsage()
	if err != nil {
		return nil, err
	}
	d.ImageDiskUsage = client.ImagesDiskUsage{ActiveCount: i.ActiveCount, TotalCount: i.TotalCount, TotalSize: i.TotalSize,
		Reclaimable: i.Reclaimable, Items: i.Items}
	if d.ContainerDiskUsage, err = a.containerUsage(ctx); err != nil {
		return nil, err
	}
	d.VolumeDiskUsage, err = a.volumeUsage()
	return d, err
}

// containerUsage counts what containers have changed. What does not run can be reclaimed.
func (a *app) containerUsage(ctx context.Context) (u client.ContainersDiskUsage, err error) {
	s, err := a.containers()
	if err != nil {
		return u, err
	}
	list, err := s.List(ctx, container.ListOptions{All: true, Size: true})
	if err != nil {
		return u, err
	}
	u.Items, u.TotalCount = list, int64(len(list))
	for _, c := range list {
		u.TotalSize += c.SizeRw
		if running(string(c.State)) || c.State == "restarting" {
			u.ActiveCount++
		} else {
			u.Reclaimable += c.SizeRw
		}
	}
	return u, nil
}

func (a *app) systemPruneCommand() *cobra.Command {
	var force, everything, volumes bool
	filter := filterFlag()
	cmd := command("prune [OPTIONS]", "Remove unused data", noArgs, "",
		func(cmd *cobra.Command, _ []string) error {
			if !force {
				if err := a.confirm(systemPruneWarning(everything, volumes), "system prune"); err != nil {
					return err
				}
			}
			return a.systemPrune(cmd.Context(), everything, volumes, filters(filter))
		})
	set := cmd.Flags()
	set.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	set.BoolVarP(&everything, "all", "a", false, "Remove all unused images not just dangling ones")
	set.BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	set.Var(filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

func systemPruneWarning(everything, volumes bool) string {
	text := "WARNING! This will remove:\n  - all stopped containers\n"
	if volumes {
		text += "  - all anonymous volumes not used by at least one container\n"
	}
	if everything {
		return text + "  - all images without at least one container associated to them\n"
	}
	return text + "  - all dangling images\n"
}

// systemPrune removes containers first: images and volumes may be free then.
func (a *app) systemPrune(ctx context.Context, everything, volumes bool, f map[string][]string) error {
	total, err := a.pruneContainers(ctx, f)
	if err != nil {
		return err
	}
	if volumes {
		n, err := a.pruneVolumes(false, withoutKey(f, "until"))
		if err != nil {
			return err
		}
		total += n
	}
	n, err := a.pruneImages(image.PruneOptions{All: everything, Filters: f})
	if err != nil {
		return err
	}
	return a.reclaimed(total + n)
}

// withoutKey leaves out a filter that one of those who are asked does not have.
func withoutKey(f map[string][]string, key string) map[string][]string {
	m := map[string][]string{}
	for k, v := range f {
		if k != key {
			m[k] = v
		}
	}
	return m
}
