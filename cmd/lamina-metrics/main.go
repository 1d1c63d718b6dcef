// Lamina-metrics serves the metrics of all containers and mounts to Prometheus. "lamina metrics" executes it: it is a
// program of its own so that lamina, of which several processes take part in each container, does not start with what
// only this one needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/endpoint"
	"github.com/laminafs/lamina/internal/metrics"
	"github.com/laminafs/lamina/internal/sysmon"
	"github.com/laminafs/lamina/runtime/container"
	hostmetrics "github.com/laminafs/lamina/runtime/metrics"
	"github.com/laminafs/lamina/runtime/mounts"
)

func main() {
	sysmon.Watch(nil, nil)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("lamina-metrics", pflag.ContinueOnError)
	root := flags.String("root", "", "the store's `directory`")
	runDir := flags.String("runroot", "", "the `directory` of the monitors' sockets")
	listen := flags.String("listen", "", "the `address` to serve at, unix:PATH or ADDRESS:PORT")
	flags.Usage = func() {
		fmt.Fprintf(os.Stderr, "Usage: lamina-metrics OPTIONS\n\nCall \"lamina metrics\", which executes it.\n\n%s", flags.FlagUsages())
	}
	if err := flags.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	address, err := endpoint.Parse(*listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", *listen, err)
	}
	s, err := container.Open(*root, container.Options{RunDir: *runDir})
	if err != nil {
		return err
	}
	l, err := endpoint.Listen(address)
	if err != nil {
		return err
	}
	logger := log.New(os.Stderr, "lamina metrics: ", log.LstdFlags)
	r := metrics.NewRegistry()
	r.MustRegister(hostmetrics.NewHost(hostmetrics.Source{
		Containers: s.Containers, Bases: mounts.Bases(s.RunDir()), Log: logger,
	}))
	fmt.Println("Serving metrics at " + address.String())
	return metrics.Serve(ctx, l, metrics.Handler(r), logger)
}
