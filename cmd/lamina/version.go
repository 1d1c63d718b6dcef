package main

import (
	"fmt"
	goruntime "runtime"
	"runtime/debug"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/internal/version"
)

// build is which lamina this is.
type build struct {
	Version   string
	GoVersion string
	GitCommit string
	BuildTime string // of the commit, RFC 3339
	Os, Arch  string
}

// versionInfo is what version --format sees: as with Docker's, .Client.Version is there.
type versionInfo struct {
	Client build
}

func thisBuild() build {
	b := build{Version: version.Module(), GoVersion: goruntime.Version(), Os: goruntime.GOOS, Arch: goruntime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.GitCommit = s.Value
		case "vcs.time":
			b.BuildTime = s.Value
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	cmd := command("version [OPTIONS]", "Show the version information", noArgs, "",
		func(cmd *cobra.Command, _ []string) error {
			if format != "" {
				return a.showOne(format, versionInfo{thisBuild()})
			}
			b := thisBuild()
			w := tabwriter.NewWriter(a.out, 20, 1, 1, ' ', 0)
			fmt.Fprintf(w, "lamina:\n Version:\t%s\n Go version:\t%s\n", b.Version, b.GoVersion)
			if b.GitCommit != "" {
				fmt.Fprintf(w, " Git commit:\t%s\n Built:\t%s\n", b.GitCommit, b.BuildTime)
			}
			fmt.Fprintf(w, " OS/Arch:\t%s/%s\n", b.Os, b.Arch)
			return w.Flush()
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Annotations[annotationNoStore] = "yes"
	return cmd
}

// showOne shows one object by a template, or as JSON.
func (a *app) showOne(format string, v any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	s, err := newShow(format)
	if err != nil {
		return &exitStatus{64, err} // EX_USAGE, as Docker
	}
	if err := s.add(v); err != nil {
		return err
	}
	return s.flush(a.out)
}
