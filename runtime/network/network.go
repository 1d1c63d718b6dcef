package network

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/network"
)

// Options say which network to connect, and how.
type Options struct {
	Mode Mode

	Pid   int    // a process in the container's network namespace, which waits meanwhile
	NetNS string // or a path to the namespace; wins over Pid

	Ports        network.PortMap // private only: what to publish; an empty HostPort is any free one
	MTU          int             // private only: bytes; 0 is 65520
	Tool         string          // private only: Slirp4netns or Pasta; empty is the first that is installed
	HostLoopback bool            // private only: the machine's 127.0.0.1 can be reached as PrivateGateway
}

// startTimeout bounds a tool's setting up, which takes milliseconds.
const startTimeout = 30 * time.Second

// Network is a container's network, connected.
type Network struct {
	Mode    Mode
	Tool    string          // Slirp4netns, Pasta or empty
	IP      netip.Addr      // of the container; invalid unless private
	Gateway netip.Addr      // likewise
	Ports   network.PortMap // what is published, with the ports that were found

	relays  []*relay       // of published UDP ports
	serving sync.WaitGroup // of what uses in
	in      *inside        // where the relays' sockets are made; nil without relays

	stop func() // lets the tool go on its own
	done chan struct{}
	out  *tail
	proc *os.Process
	once sync.Once
}

// Start connects the network of a container that is about to start.
//
// Errors: none leave a process behind. A port that is taken, a tool that is missing and a device that may not be opened are
// named.
func Start(ctx context.Context, o Options) (*Network, error) {
	switch o.Mode {
	case Host:
		return &Network{Mode: Host, Ports: network.PortMap{}}, nil // Docker discards ports there, too
	case None:
		if err := noPorts(&o); err != nil {
			return nil, err
		}
		ns, err := openNamespace(&o)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		if err := loopbackUp(ns); err != nil {
			return nil, err
		}
		return &Network{Mode: None, Ports: network.PortMap{}}, nil
	case Private:
		return startPrivate(ctx, &o)
	}
	return nil, fmt.Errorf("network %q: no such mode", o.Mode)
}

// noPorts refuses to publish ports where nothing can listen for anybody.
func noPorts(o *Options) error {
	for p, b := range o.Ports {
		if len(b) > 0 {
			return fmt.Errorf("port %s cannot be published: the container has no network", p)
		}
	}
	return nil
}

// portTries is how often ports are chosen. A tool binds them a moment after it was seen that they are free, and somebody else may
// have been faster; any other will do then.
const portTries = 3

func startPrivate(ctx context.Context, o *Options) (*Network, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	path, err := choose(o.Tool)
	if err != nil {
		return nil, fmt.Errorf("private network: %w", err)
	}
	ns, err := openNamespace(o)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if o.MTU == 0 {
		o.MTU = defaultMTU
	}
	for try := 1; ; try++ {
		forwards, err := planPorts(ctx, o.Ports)
		if err != nil {
			return nil, err
		}
		n := &Network{Mode: Private, Tool: filepath.Base(path), IP: PrivateIP, Gateway: PrivateGateway, Ports: bound(forwards)}
		if err = n.connect(ctx, path, o, ns, forwards); err == nil {
			return n, nil
		}
		if try == portTries || !slices.ContainsFunc(forwards, func(f forward) bool { return f.lost(ctx) }) {
			return nil, err
		}
	}
}

// connect starts the tool, with the relays that are needed beside it. Without success nothing is left.
func (n *Network) connect(ctx context.Context, path string, o *Options, ns *os.File, forwards []forward) (err error) {
	if forwards, err = n.startRelays(ctx, ns, forwards); err == nil {
		if n.Tool == Pasta {
			err = n.startPasta(ctx, path, o, ns, forwards)
		} else {
			err = n.startSlirp(ctx, path, o, ns, forwards)
		}
	}
	if err != nil {
		n.Close()
		return err
	}
	for _, r := range n.relays {
		n.serving.Go(r.serve)
	}
	return nil
}

// run starts the tool on a thread that stays as long as the tool does: its parent-death signal is that of the thread.
func (n *Network) run(cmd *exec.Cmd) error {
	n.out = &tail{}
	cmd.Stdout, cmd.Stderr = n.out, n.out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // the terminal's signals are the container's
	n.done = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		err := cmd.Start()
		n.proc = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // Failure and Done tell
		}
		close(n.done)
	}()
	return <-started
}

// failure is the error of a tool that ended, or did not become ready: the last of what it said.
func (n *Network) failure(ctx context.Context) error {
	said := n.out.last()
	if ctx.Err() != nil {
		return fmt.Errorf("%s is not ready: %w: %s", n.Tool, ctx.Err(), said)
	}
	return fmt.Errorf("%s failed: %s", n.Tool, said)
}

// Done is closed when the tool has ended: after Close, or by itself, which cuts the container off. It is nil where there is
// none.
func (n *Network) Done() <-chan struct{} { return n.done }

// Failure is what the tool said last.
func (n *Network) Failure() error {
	if n.done == nil {
		return nil
	}
	return n.failure(context.Background())
}

// Close disconnects the network and returns when the tool has ended.
func (n *Network) Close() {
	n.once.Do(func() {
		for _, r := range n.relays {
			r.close()
		}
		n.serving.Wait()
		if n.in != nil {
			n.in.leave()
		}
		if n.done == nil {
			return
		}
		if n.stop != nil {
			n.stop()
		}
		if n.proc == nil {
			<-n.done
			return
		}
		select {
		case <-n.done:
		case <-time.After(2 * time.Second):
			_ = n.proc.Kill() // may have ended meanwhile
			<-n.done
		}
	})
}

// tail keeps the end of what a tool says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - 4096; n > 0 {
		t.b = t.b[n:]
	}
	return len(p), nil
}

// last is the last line that says something.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.b), []byte("\n"))
	var said []string
	for _, l := range lines {
		s := strings.TrimSpace(string(l))
		// pasta tells on stderr that there is no syslog; slirp4netns that its filter is an experiment.
		if s == "" || strings.HasSuffix(s, "bytes to syslog") || strings.HasPrefix(s, "WARNING: Support for seccomp") {
			continue
		}
		said = append(said, s)
	}
	if len(said) == 0 {
		return "it ended without a word"
	}
	return strings.Join(said[max(0, len(said)-3):], "; ")
}

// waitReady waits for a byte from the tool, or its end.
func (n *Network) waitReady(ctx context.Context, ready *os.File) error {
	got := make(chan error, 1)
	go func() {
		_, err := ready.Read(make([]byte, 1))
		got <- err
	}()
	select {
	case err := <-got:
		if err == nil {
			return nil
		}
		select { // let it finish its sentence
		case <-n.done:
		case <-ctx.Done():
		}
		return n.failure(ctx)
	case <-ctx.Done():
		return n.failure(ctx)
	}
}
