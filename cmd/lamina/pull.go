package main

import (
	"context"
	"fmt"
	"os"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/image"
)

type pullFlags struct {
	allTags  bool
	quiet    bool
	insecure bool
	platform string
	out      screen // for what is said
}

func (a *app) pullCommand() *cobra.Command {
	f := pullFlags{out: a.out}
	cmd := command("pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", between(1, 1), "image pull, pull",
		func(cmd *cobra.Command, args []string) error {
			if f.allTags {
				return a.pullAll(cmd.Context(), args[0], f)
			}
			return a.pull(cmd.Context(), args[0], f)
		})
	set := cmd.Flags()
	set.BoolVarP(&f.allTags, "all-tags", "a", false, "Download all tagged images in the repository")
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress verbose output")
	set.StringVar(&f.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Take the image for this platform (os[/arch[/variant]])")
	addInsecure(set, &f.insecure)
	return cmd
}

// pull downloads one image and says so in Docker's words.
func (a *app) pull(ctx context.Context, nameOfImage string, f pullFlags) error {
	s, err := a.images()
	if err != nil {
		return err
	}
	ref, err := reference.ParseNormalizedNamed(nameOfImage)
	if err != nil {
		return err
	}
	o := image.PullOptions{Platform: f.platform, RegistryOptions: image.RegistryOptions{Insecure: f.insecure}}
	var p *progress
	if !f.quiet {
		tagged := reference.TagNameOnly(ref)
		if reference.IsNameOnly(ref) {
			fmt.Fprintln(f.out, "Using default tag: latest")
		}
		fmt.Fprintf(f.out, "%s: Pulling from %s\n", tagOrDigest(tagged), reference.Path(tagged))
		p = newProgress(f.out)
		o.Progress = p
	}
	got, err := s.Pull(ctx, nameOfImage, o)
	p.Close()
	if err != nil {
		return err
	}
	if !f.quiet {
		fmt.Fprintf(f.out, "Digest: %s\n", got.Digest)
		status := "Downloaded newer image for "
		if got.UpToDate {
			status = "Image is up to date for "
		}
		fmt.Fprintf(f.out, "Status: %s%s\n", status, reference.FamiliarString(got.Ref))
	}
	if f.out == a.out {
		a.println(got.Ref.String())
	}
	return nil
}

// pullAll downloads what has a tag in the repository.
func (a *app) pullAll(ctx context.Context, repository string, f pullFlags) error {
	ref, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return err
	}
	if !reference.IsNameOnly(ref) {
		return fmt.Errorf("tag can't be used with --all-tags/-a")
	}
	s, err := a.images()
	if err != nil {
		return err
	}
	tags, err := s.Tags(ctx, repository, image.RegistryOptions{Insecure: f.insecure})
	if err != nil {
		return err
	}
	for _, t := range tags {
		if err := a.pull(ctx, repository+":"+t, f); err != nil {
			return err
		}
	}
	return nil
}

func tagOrDigest(ref reference.Named) string {
	switch r := ref.(type) {
	case reference.Digested:
		return r.Digest().String()
	case reference.Tagged:
		return r.Tag()
	}
	return ""
}

func addInsecure(set interface {
	BoolVar(p *bool, name string, value bool, usage string)
}, insecure *bool) {
	set.BoolVar(insecure, "insecure", false, "Allow plain HTTP, and HTTPS with any certificate (a registry on loopback always may)")
}
