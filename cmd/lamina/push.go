package main

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/image"
)

func (a *app) pushCommand() *cobra.Command {
	var o image.PushOptions
	var quiet bool
	cmd := command("push [OPTIONS] NAME[:TAG]", "Upload an image to a registry", between(1, 1), "image push, push",
		func(cmd *cobra.Command, args []string) error {
			s, err := a.images()
			if err != nil {
				return err
			}
			ref, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				return err
			}
			var p *progress
			if !quiet {
				if !o.AllTags && reference.IsNameOnly(ref) {
					a.println("Using default tag: latest")
				}
				fmt.Fprintf(a.out, "The push refers to repository [%s]\n", reference.TrimNamed(ref))
				p = newProgress(a.out)
				o.Progress = p
			}
			pushed, err := s.Push(cmd.Context(), args[0], o)
			p.Close()
			for _, r := range pushed {
				if quiet {
					a.println(r.Ref)
					continue
				}
				fmt.Fprintf(a.out, "%s: digest: %s size: %d\n", r.Ref.Tag(), r.Digest, r.Size)
			}
			return err
		})
	set := cmd.Flags()
	set.BoolVarP(&o.AllTags, "all-tags", "a", false, "Push all tags of an image to the repository")
	set.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	addInsecure(set, &o.Insecure)
	a.completeImages(cmd, 1)
	return cmd
}
