package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/endpoint"
)

const (
	// defaultMetrics is where metrics are served unless told otherwise.
	defaultMetrics = "127.0.0.1:9477"

	// metricsProgram serves them: see its package comment.
	metricsProgram = "lamina-metrics"
)

func (a *app) metricsCommand() *cobra.Command {
	var listen string
	cmd := command("metrics [OPTIONS]", "Serve the metrics of all containers and mounts to Prometheus", noArgs, "",
		func(*cobra.Command, []string) error { return a.metrics(listen) })
	cmd.Flags().StringVar(&listen, "listen", defaultMetrics, "Where to serve them, ADDRESS:PORT or unix:PATH")
	return cmd
}

// metrics goes on as the program that serves them.
func (a *app) metrics(listen string) error {
	address, err := endpoint.Parse(listen)
	if err == nil {
		address, err = address.Abs()
	}
	if err != nil {
		return fmt.Errorf("--listen %s: %w", listen, err)
	}
	if !address.Local() {
		a.warn([]string{"--listen " + listen + ": whoever reaches this machine can read the metrics"})
	}
	bin, err := findMetrics()
	if err != nil {
		return err
	}
	root, err := a.rootDir()
	if err != nil {
		return err
	}
	argv := []string{metricsProgram, "--root=" + root, "--runroot=" + a.runDir, "--listen=" + address.String()}
	err = unix.Exec(bin, argv, os.Environ())
	return fmt.Errorf("execute %s: %w", bin, err)
}

// findMetrics finds the program beside our own, or in $PATH.
func findMetrics() (string, error) {
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), metricsProgram)
		if unix.Access(beside, unix.X_OK) == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(metricsProgram)
	if err != nil {
		return "", errors.New(metricsProgram + " not found: it belongs beside the lamina executable, or in a folder of $PATH")
	}
	return path, nil
}
