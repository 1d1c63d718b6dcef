package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/beside"
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
	bin, err := beside.Find(metricsProgram, "lamina")
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
