// Laminafs-metrics serves the figures of one mount to Prometheus. Laminafs starts it for a mount with the option metrics=,
// and it ends with the server: cmd/laminafs/exporter.go has what they say to each other.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/endpoint"
	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/internal/metrics"
	"github.com/laminafs/lamina/internal/sysmon"
)

// The descriptors that it is started with.
const (
	serverFD = 3 // a socket to the server of the mount
	lifeFD   = 4 // a pipe that is closed when it is to end
)

func main() {
	sysmon.Watch(nil, nil)
	os.Exit(run())
}

func run() int {
	server, life, err := inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, "laminafs-metrics: laminafs starts it, for a mount with the option metrics=")
		return 1
	}
	// A signal to all processes of a terminal, or of a service, is the server's business.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	l, err := listen(os.Args[1:])
	if err != nil {
		_, _ = fmt.Fprintln(server, strings.ReplaceAll(err.Error(), "\n", `\n`)) // a server that has gone does not care
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, life) // it ends, however
		cancel()
	}()
	if _, err := fmt.Fprintln(server); err != nil {
		_ = l.Close() // nobody has come to it
		return 1
	}
	r := metrics.NewRegistry()
	r.MustRegister(mount{figures.NewClient(server), metrics.NewMounts()})
	logger := log.New(io.Discard, "", 0)
	if err := metrics.Serve(ctx, l, metrics.Handler(r), logger); err != nil {
		return 1
	}
	return 0
}

// inherited are the socket and the pipe.
func inherited() (net.Conn, *os.File, error) {
	unix.CloseOnExec(serverFD)
	unix.CloseOnExec(lifeFD)
	f := os.NewFile(serverFD, "server")
	if f == nil {
		return nil, nil, errors.New("no socket")
	}
	c, err := net.FileConn(f)
	_ = f.Close() // the connection has one of its own
	if err != nil {
		return nil, nil, err
	}
	return c, os.NewFile(lifeFD, "life"), nil
}

func listen(args []string) (net.Listener, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("%d arguments, want an address", len(args))
	}
	a, err := endpoint.Parse(args[0])
	if err != nil {
		return nil, err
	}
	return listenAt(a)
}

// addressPatience is how long a mount waits for an address: one that was unmounted this moment may be about to give it up. It is
// less than laminafs waits for us.
const addressPatience = 8 * time.Second

// listenAt listens at an address that may be in use for a moment still.
func listenAt(a endpoint.Address) (net.Listener, error) {
	for deadline := time.Now().Add(addressPatience); ; time.Sleep(10 * time.Millisecond) {
		l, err := endpoint.Listen(a)
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return l, err
		}
	}
}

// mount is the collector of the one mount.
type mount struct {
	client *figures.Client
	mounts *metrics.Mounts
}

func (m mount) Describe(ch chan<- *prometheus.Desc) { m.mounts.Describe(ch) }

func (m mount) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metrics.Patience)
	defer cancel()
	f, _ := m.client.Get(ctx, true) // without an answer laminafs_up is 0
	m.mounts.Collect(ch, f)
}
