// Lamina-bench measures laminafs and lamina beside those that do the same, and compares what was measured.
//
// Exit status: 0; 1 where a result of ours was wrong or something became slower; 2 where it could not be done; 130 where it
// was interrupted.
package main

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/internal/sysmon"
	"github.com/laminafs/lamina/internal/version"
)

// The exit statuses that scripts may rely on.
const (
	exitWorse       = 1 // errWorse
	exitFailed      = 2
	exitInterrupted = 130 // errInterrupted
)

// errWorse says that the work was done and its outcome is bad.
var errWorse = errors.New("")

// errInterrupted says that a signal has ended it: ^C, SIGTERM or SIGHUP.
var errInterrupted = errors.New("interrupted")

func main() {
	// Children die with the thread that started them (Pdeathsig in prctl(2)): with this one, which lives as long as we.
	goruntime.LockOSThread()
	sysmon.Watch(nil, nil) // a pause of ours would be a figure of theirs
	if code, ours := takeStage(); ours {
		os.Exit(code)
	}
	err := rootCommand().Execute()
	os.Exit(status(err))
}

// status is the exit status for an error, which it tells.
func status(err error) int {
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "lamina-bench:", text)
	}
	switch {
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, errWorse):
		return exitWorse
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "lamina-bench",
		Short:         "Measure union filesystems and container launchers beside each other",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Module(),
	}
	cmd.AddCommand(runCommand(), compareCommand(), showCommand(), listCommand())
	return cmd
}
