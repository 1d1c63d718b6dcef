package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/laminafs/lamina/runtime/container"
)

func (a *app) cpCommand() *cobra.Command {
	var o container.CopyOptions
	var quiet bool
	cmd := command("cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
		"Copy files/folders between a container and the local filesystem", between(2, 2), "container cp, cp",
		func(cmd *cobra.Command, args []string) error {
			if args[0] == "" || args[1] == "" {
				return errors.New("source and destination can not be empty")
			}
			n, err := a.cp(cmd.Context(), args[0], args[1], o)
			if err == nil && !quiet && args[1] != "-" && term.IsTerminal(int(a.err.Fd())) {
				fmt.Fprintf(a.err, "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(n), 3), args[1])
			}
			return err
		})
	cmd.Long = cmd.Short + `

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.`
	set := cmd.Flags()
	set.BoolVarP(&o.FollowLink, "follow-link", "L", false, "Always follow symlinks in SRC_PATH")
	set.BoolVarP(&o.Archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	set.BoolVarP(&quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cmd
}

// cp copies one way or the other. n is bytes of content.
func (a *app) cp(ctx context.Context, src, dst string, o container.CopyOptions) (n int64, err error) {
	srcName, srcPath := splitCopy(src)
	dstName, dstPath := splitCopy(dst)
	switch {
	case srcName != "" && dstName != "":
		return 0, errors.New("copying between containers is not supported")
	case srcName == "" && dstName == "":
		return 0, errors.New("must specify at least one container source")
	case srcName != "":
		c, err := a.container(srcName)
		if err != nil {
			return 0, err
		}
		if dst == "-" && term.IsTerminal(int(a.out.Fd())) {
			return 0, errors.New("cowardly refusing to write a tar archive to a terminal")
		}
		return c.CopyOut(ctx, srcPath, dstPath, a.out, o)
	}
	c, err := a.container(dstName)
	if err != nil {
		return 0, err
	}
	return c.CopyIn(ctx, srcPath, dstPath, a.in, o)
}

// splitCopy takes CONTAINER:PATH apart. A path that is absolute, or begins with a dot, has no container: "./a:b".
func splitCopy(arg string) (name, path string) {
	if filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	name, path, found := strings.Cut(arg, ":")
	if !found {
		return "", arg
	}
	return name, path
}
