package main

import (
	"errors"
	"fmt"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/image"
)

// rmiCommand is "rmi", or "image rm".
func (a *app) rmiCommand(name string) *cobra.Command {
	var o image.RemoveOptions
	cmd := command(name+" [OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", between(1, -1),
		"image rm, image remove, rmi", func(cmd *cobra.Command, args []string) error {
			s, err := a.images()
			if err != nil {
				return err
			}
			var errs []error
			for _, n := range args {
				gone, err := s.Remove(n, o)
				for _, line := range deleteLines(gone) {
					a.println(line)
				}
				if err != nil && !(o.Force && errors.Is(err, image.ErrNotFound)) {
					errs = append(errs, err)
				} else if err != nil {
					fmt.Fprintln(a.err, "Error: "+oneLine(err)) // said, but with --force no failure
				}
			}
			return errors.Join(errs...)
		})
	if name == "rm" {
		cmd.Aliases = []string{"remove"}
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&o.NoPrune, "no-prune", false, "Do not delete untagged parents")
	a.completeImages(cmd, -1)
	return cmd
}

func deleteLines(gone []imagetypes.DeleteResponse) []string {
	var lines []string
	for _, d := range gone {
		if d.Untagged != "" {
			lines = append(lines, "Untagged: "+d.Untagged)
		}
		if d.Deleted != "" {
			lines = append(lines, "Deleted: "+d.Deleted)
		}
	}
	return lines
}

func (a *app) imagePruneCommand() *cobra.Command {
	var force bool
	o := image.PruneOptions{}
	filter := filterFlag()
	cmd := command("prune [OPTIONS]", "Remove unused images", noArgs, "",
		func(cmd *cobra.Command, _ []string) error {
			warning := "WARNING! This will remove all dangling images."
			if o.All {
				warning = "WARNING! This will remove all images without at least one container associated to them."
			}
			if !force {
				if err := a.confirm(warning, "image prune"); err != nil {
					return err
				}
			}
			o.Filters = image.Filters(filters(filter))
			n, err := a.pruneImages(o)
			if err != nil {
				return err
			}
			return a.reclaimed(n)
		})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().BoolVarP(&o.All, "all", "a", false, "Remove all unused images, not just dangling ones")
	cmd.Flags().Var(filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// pruneImages removes images and says which. It returns the bytes that are free now.
func (a *app) pruneImages(o image.PruneOptions) (uint64, error) {
	s, err := a.images()
	if err != nil {
		return 0, err
	}
	r, err := s.Prune(o)
	if err != nil {
		return 0, err
	}
	var lines []string
	for _, d := range r.ImagesDeleted {
		if d.Untagged != "" {
			lines = append(lines, "untagged: "+d.Untagged)
		}
		if d.Deleted != "" {
			lines = append(lines, "deleted: "+d.Deleted)
		}
	}
	a.deleted("Deleted Images:", lines)
	return r.SpaceReclaimed, nil
}
