package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/laminafs/lamina/runtime/container"
)

func (a *app) diffCommand() *cobra.Command {
	cmd := command("diff CONTAINER", "Inspect changes to files or directories on a container's filesystem", between(1, 1),
		"container diff, diff", func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			changes, err := c.Diff(cmd.Context())
			if err != nil {
				return err
			}
			for _, ch := range changes {
				if _, err := fmt.Fprintf(a.out, "%s %s\n", ch.Kind, ch.Path); err != nil {
					return err
				}
			}
			return nil
		})
	a.completeContainers(cmd, 1, all)
	return cmd
}

func (a *app) commitCommand() *cobra.Command {
	var o container.CommitOptions
	pause := true
	changes := opts.NewListOpts(nil)
	cmd := command("commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes",
		between(1, 2), "container commit, commit", func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				o.Reference = args[1]
			}
			o.NoPause = o.NoPause || !pause
			o.Changes = changes.GetSlice()
			id, err := c.Commit(cmd.Context(), o)
			if err != nil {
				return err
			}
			a.println(id)
			return nil
		})
	set := cmd.Flags()
	set.SetInterspersed(false)
	set.BoolVar(&o.NoPause, "no-pause", false, "Disable pausing container during commit")
	set.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	set.Lookup("pause").Hidden = true // the older name
	set.StringVarP(&o.Message, "message", "m", "", "Commit message")
	set.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	set.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	a.completeContainers(cmd, 1, all)
	return cmd
}

func (a *app) exportCommand() *cobra.Command {
	var output string
	cmd := command("export [OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", between(1, 1),
		"container export, export", func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			return a.writeArchive(output, func(w io.Writer) error { return c.Export(cmd.Context(), w) })
		})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	a.completeContainers(cmd, 1, all)
	return cmd
}

// writeArchive writes to a file, which appears complete or not at all, or to stdout where path is empty: not to a
// terminal.
func (a *app) writeArchive(path string, write func(w io.Writer) error) error {
	if path == "" {
		if term.IsTerminal(int(a.out.Fd())) {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return write(a.out)
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return a.writeThrough(path, write)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".lamina-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o600)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// writeThrough writes to what is no file: a pipe, /dev/null.
func (a *app) writeThrough(path string, write func(w io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = write(f)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
