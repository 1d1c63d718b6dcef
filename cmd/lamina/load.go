package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/laminafs/lamina/runtime/image"
)

func (a *app) loadCommand() *cobra.Command {
	var input string
	var quiet bool
	cmd := command("load [OPTIONS]", "Load an image from a tar archive, an OCI layout or STDIN", noArgs, "image load, load",
		func(cmd *cobra.Command, _ []string) error {
			o := image.LoadOptions{Path: input}
			if input == "" || input == "-" {
				if term.IsTerminal(int(a.in.Fd())) {
					return errors.New("requested load from stdin, but stdin is empty")
				}
				o.Path, o.Stdin = "", a.in
			}
			s, err := a.images()
			if err != nil {
				return err
			}
			p := a.progress(quiet)
			if p != nil {
				o.Progress = p
			}
			images, err := s.Load(cmd.Context(), o)
			p.Close()
			for _, i := range images {
				a.loaded(i)
			}
			return err
		})
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, or the directory of an OCI layout, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	return cmd
}

// progress is shown on stderr. It is nil with --quiet.
func (a *app) progress(quiet bool) *progress {
	if quiet {
		return nil
	}
	return newProgress(a.err)
}

func (a *app) loaded(i image.Loaded) {
	for _, t := range i.Tags {
		if old, ok := i.Renamed[t]; ok {
			fmt.Fprintf(a.err, "The image %s already exists, renaming the old one with ID %s to empty string\n", t, old)
		}
		a.println("Loaded image: " + t)
	}
	if len(i.Tags) == 0 {
		a.println("Loaded image ID: " + string(i.ID))
	}
}
