package main

import (
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/image"
)

type imagesFlags struct {
	all, quiet, noTrunc, digests bool
	format                       string
	filter                       *opts.FilterOpt
}

// imagesCommand is "images", or "image ls".
func (a *app) imagesCommand(name string) *cobra.Command {
	f := imagesFlags{filter: filterFlag()}
	cmd := command(name+" [OPTIONS] [REPOSITORY[:TAG]]", "List images", between(0, 1), "image ls, image list, images",
		func(cmd *cobra.Command, args []string) error { return a.listImages(args, &f) })
	if name == "ls" {
		cmd.Aliases = []string{"list"}
	}
	set := cmd.Flags()
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	set.BoolVarP(&f.all, "all", "a", false, "Show all images (default hides intermediate images)")
	set.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	set.BoolVar(&f.digests, "digests", false, "Show digests")
	set.StringVar(&f.format, "format", "", formatHelp)
	set.VarP(f.filter, "filter", "f", "Filter output based on conditions provided")
	a.completeImages(cmd, 1)
	return cmd
}

func (a *app) listImages(args []string, f *imagesFlags) error {
	s, err := a.images()
	if err != nil {
		return err
	}
	o := image.ListOptions{All: f.all, Filters: image.Filters(filters(f.filter))}
	if len(args) > 0 {
		o.Filters["reference"] = append(o.Filters["reference"], args[0])
	}
	o.SharedSize = strings.Contains(f.format, ".SharedSize") || strings.Contains(f.format, ".UniqueSize")
	list, err := s.List(o)
	if err != nil {
		return err
	}
	format := f.format
	if format == "" {
		format = formatter.TableFormatKey
	}
	return formatter.ImageWrite(formatter.ImageContext{
		Context: formatter.Context{Output: a.out, Format: formatter.NewImageFormat(format, f.quiet, f.digests), Trunc: !f.noTrunc},
		Digest:  f.digests,
	}, list)
}

func (a *app) tagCommand() *cobra.Command {
	cmd := command("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		between(2, 2), "image tag, tag", func(cmd *cobra.Command, args []string) error {
			s, err := a.images()
			if err != nil {
				return err
			}
			return s.Tag(args[0], args[1])
		})
	a.completeImages(cmd, 2)
	return cmd
}

// familiar is a name as Docker shows it, with its tag. What is no name stays as it is.
func familiar(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(reference.TagNameOnly(ref))
}

// imageNames are for completion.
func (a *app) imageNames() []string {
	s, err := a.images()
	if err != nil {
		return nil
	}
	list, err := s.List(image.ListOptions{})
	if err != nil {
		return nil
	}
	var names []string
	for _, i := range list {
		for _, t := range i.RepoTags {
			if t != "<none>:<none>" {
				names = append(names, t)
			}
		}
	}
	return names
}
