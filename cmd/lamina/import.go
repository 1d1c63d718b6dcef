package main

import (
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/image"

	"github.com/containerd/platforms"
)

func (a *app) importCommand() *cobra.Command {
	var o image.ImportOptions
	var platform string
	changes := opts.NewListOpts(nil)
	cmd := command("import [OPTIONS] file|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image",
		between(1, 2), "image import, import", func(cmd *cobra.Command, args []string) error {
			o.Path = args[0]
			if o.Path == "-" {
				o.Path, o.Stdin = "", a.in
			}
			if len(args) > 1 {
				o.Ref = args[1]
			}
			if platform != "" {
				p, err := platforms.Parse(platform)
				if err != nil {
					return err
				}
				o.Platform = p
			}
			if err := container.ApplyChanges(&o.Config, changes.GetSlice()); err != nil {
				return err
			}
			s, err := a.images()
			if err != nil {
				return err
			}
			img, err := s.Import(cmd.Context(), o)
			if err != nil {
				return err
			}
			a.println(img.ID)
			return nil
		})
	cmd.Flags().VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	cmd.Flags().StringVar(&platform, "platform", "", "Set platform of the image (os[/arch[/variant]])")
	return cmd
}
