package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/image"
)

func (a *app) saveCommand() *cobra.Command {
	var output, format string
	cmd := command("save [OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)",
		between(1, -1), "image save, save", func(cmd *cobra.Command, args []string) error {
			s, err := a.images()
			if err != nil {
				return err
			}
			return a.writeArchive(output, func(w io.Writer) error {
				return s.Save(cmd.Context(), image.SaveOptions{Images: args, Format: image.Format(format), Output: w})
			})
		})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&format, "format", string(image.DockerArchive), `Format of the archive ("docker-archive", "oci-archive")`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(
		[]string{string(image.DockerArchive), string(image.OCIArchive)}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	a.completeImages(cmd, -1)
	return cmd
}
