package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/platforms"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/cmd/lamina/createopts"
	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/image"
)

// createFlags are those that run and create have besides what becomes the container's configuration.
type createFlags struct {
	options  *createopts.Flags
	name     string
	pull     string
	quiet    bool
	platform string
}

func addCreateFlags(cmd *cobra.Command) *createFlags {
	f := &createFlags{}
	set := cmd.Flags()
	set.SetInterspersed(false)
	set.StringVar(&f.name, "name", "", "Assign a name to the container")
	set.StringVar(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	set.StringVar(&f.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Pull the image for this platform (os/arch[/variant])")
	f.options = createopts.Add(set)
	return f
}

// parse reads all of the command line. A mistake ends with 125.
func (f *createFlags) parse(cmd *cobra.Command, args []string) (*createopts.Config, error) {
	if f.pull != "always" && f.pull != "missing" && f.pull != "never" {
		return nil, wrongUsage(cmd, exitLamina, "invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", f.pull)
	}
	if len(args) == 0 && !cmd.Flags().Changed("rootfs") {
		return nil, between(1, -1)(cmd, args)
	}
	c, err := f.options.Parse(args)
	if err != nil {
		return nil, wrongUsage(cmd, exitLamina, "%s", err)
	}
	return c, nil
}

// create makes the container, with its image, which is pulled where that is asked for, and writes --cidfile.
func (a *app) create(ctx context.Context, f *createFlags, c *createopts.Config) (*container.Container, error) {
	file, err := newCIDFile(c.HostConfig.ContainerIDFile)
	if err != nil {
		return nil, err
	}
	defer file.close()
	if c.Config.Image != "" {
		if err := a.provide(ctx, f, c.Config.Image); err != nil {
			return nil, err
		}
	}
	s, err := a.containers()
	if err != nil {
		return nil, err
	}
	ctr, warnings, err := s.Create(ctx, container.CreateOptions{
		Name: f.name, Config: c.Config, HostConfig: c.HostConfig, Rootfs: c.Rootfs, UIDMap: c.UIDMap, GIDMap: c.GIDMap,
	})
	a.warn(warnings)
	if err != nil {
		return nil, err
	}
	if err := file.write(ctr.ID()); err != nil {
		return nil, errors.Join(err, ctr.Remove(ctx, container.RemoveOptions{Force: true, Volumes: true}))
	}
	return ctr, nil
}

// provide pulls the image as --pull says.
func (a *app) provide(ctx context.Context, f *createFlags, name string) error {
	s, err := a.images()
	if err != nil {
		return err
	}
	if f.pull != "always" {
		found, err := s.Get(name)
		missing := errors.Is(err, image.ErrNotFound)
		if err == nil {
			missing, err = unsuitable(found, name, f.platform)
		}
		if err == nil && f.platform == "" {
			a.warnForeign(found)
		}
		if !missing || f.pull == "never" {
			return err
		}
	}
	if a.trying {
		return errors.New("the files of an image belong to many IDs")
	}
	if f.pull != "always" && !f.quiet {
		fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", familiar(name))
	}
	return a.pull(ctx, name, pullFlags{quiet: f.quiet, platform: f.platform, out: a.err})
}

// warnForeign tells of an image that is for another kind of processor, which only an emulator runs.
func (a *app) warnForeign(img *image.Image) {
	if img.Spec.Architecture == "" || platforms.Default().Match(platforms.Normalize(img.Spec.Platform)) {
		return
	}
	a.warn([]string{fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
		platforms.Format(img.Spec.Platform), platforms.Format(platforms.DefaultSpec()))})
}

// unsuitable tells of an image that is for another platform than the one asked for, if any; err says so.
func unsuitable(img *image.Image, name, platform string) (bool, error) {
	if platform == "" || img.Spec.Architecture == "" {
		return false, nil
	}
	want, err := platforms.Parse(platform)
	if err != nil {
		return false, fmt.Errorf("platform: %w", err)
	}
	if platforms.OnlyStrict(want).Match(platforms.Normalize(img.Spec.Platform)) {
		return false, nil
	}
	return true, fmt.Errorf("image with reference %s was found but does not provide the specified platform (%s)",
		familiar(name), platforms.Format(want))
}

func (a *app) createCommand() *cobra.Command {
	var f *createFlags
	cmd := command("create [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", nil, "container create, create",
		func(cmd *cobra.Command, args []string) error {
			c, err := f.parse(cmd, args)
			if err != nil {
				return err
			}
			ctr, err := a.create(cmd.Context(), f, c)
			if err != nil {
				return err
			}
			a.println(ctr.ID())
			return nil
		})
	f = addCreateFlags(cmd)
	a.completeImages(cmd, 1)
	return cmd
}

// cidFile is what --cidfile names. It is made before the container, so that a path that cannot be written costs none.
type cidFile struct {
	path    string
	file    *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{path: path, file: f}, nil
}

func (f *cidFile) write(id string) error {
	if f.file == nil {
		return nil
	}
	if _, err := f.file.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID to the file: %w", err)
	}
	f.written = true
	return nil
}

// close takes an empty file away: there is no container.
func (f *cidFile) close() {
	if f.file == nil {
		return
	}
	_ = f.file.Close()
	if !f.written {
		_ = os.Remove(f.path)
	}
}
