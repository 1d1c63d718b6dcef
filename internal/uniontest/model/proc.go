package model

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Proc is a process that executes operations: this test binary, executed again. So runs have several real
// processes, and an operation that a broken server never answers does not hang the test.
type Proc struct {
	cmd  *exec.Cmd
	in   io.Closer
	enc  *gob.Encoder
	dec  *gob.Decoder
	out  bytes.Buffer // what the process says on stderr
	dead error
}

// procEnv in the environment makes a test binary a Proc.
const procEnv = "LAMINA_MODEL_PROC"

// opLimit is how long any operation may take on the slowest machine.
const opLimit = 90 * time.Second

// call is a request to a Proc: what of it is not zero is done, in this order.
type call struct {
	Close    bool
	Open     string // directory to work in from now on
	Op       *Op
	Snapshot string // directory
	Pages    map[string][]int64
	Shared   *sharedCall
}

type answer struct {
	Err      string
	Result   Result
	Snapshot Snapshot
	Shared   *sharedLog
}

func init() {
	if os.Getenv(procEnv) != "" {
		os.Unsetenv(procEnv)
		procMain()
		os.Exit(0)
	}
}

// procMain answers calls until standard input ends.
func procMain() {
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	var e *Exec
	for {
		var c call
		if err := dec.Decode(&c); err != nil {
			return
		}
		var a answer
		if err := c.answer(&e, &a); err != nil {
			a.Err = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return
		}
	}
}

func (c *call) answer(e **Exec, a *answer) (err error) {
	if c.Close && *e != nil {
		(*e).Close()
		*e = nil
	}
	if c.Open != "" {
		if *e, err = NewExec(c.Open); err != nil {
			return err
		}
	}
	if c.Op != nil {
		a.Result = (*e).Do(*c.Op)
	}
	if c.Snapshot != "" {
		a.Snapshot, err = TakeSnapshot(c.Snapshot, c.Pages)
	}
	if c.Shared != nil {
		a.Shared, err = c.Shared.run()
	}
	return err
}

// StartProc starts a process that lives until the test ends.
func StartProc(t testing.TB) *Proc {
	t.Helper()
	p := &Proc{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), procEnv+"=1")
	p.cmd.Stderr = &p.out
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.in, p.enc, p.dec = in, gob.NewEncoder(in), gob.NewDecoder(out)
	t.Cleanup(func() {
		_ = p.in.Close() // it ends by that
		timer := time.AfterFunc(opLimit, func() { _ = p.cmd.Process.Kill() })
		defer timer.Stop()
		if err := p.cmd.Wait(); err != nil && p.dead == nil {
			t.Errorf("model process: %v\n%s", err, p.out.Bytes())
		}
	})
	return p
}

var errHangs = errors.New("no answer")

func (p *Proc) call(c call) (answer, error) {
	if p.dead != nil {
		return answer{}, p.dead
	}
	done := make(chan error, 1)
	var a answer
	go func() {
		err := p.enc.Encode(c)
		if err == nil {
			err = p.dec.Decode(&a)
		}
		done <- err
	}()
	limit := time.NewTimer(opLimit)
	defer limit.Stop()
	select {
	case err := <-done:
		if err != nil {
			p.dead = fmt.Errorf("model process: %w", err)
			return a, p.dead
		}
	case <-limit.C:
		p.dead = fmt.Errorf("%w for %v", errHangs, opLimit)
		_ = p.cmd.Process.Kill() // it ends when what hangs does
		return answer{}, p.dead
	}
	if a.Err != "" {
		return a, errors.New(a.Err)
	}
	return a, nil
}

// Open makes dir the directory that the operations to come work in.
func (p *Proc) Open(dir string) error {
	_, err := p.call(call{Close: true, Open: dir})
	return err
}

// Close closes all that is open below the directory.
func (p *Proc) Close() error {
	_, err := p.call(call{Close: true})
	return err
}

// Do executes one operation.
func (p *Proc) Do(op Op) (Result, error) {
	a, err := p.call(call{Op: &op})
	return a.Result, err
}

// Snapshot is TakeSnapshot in the process.
func (p *Proc) Snapshot(dir string, pages map[string][]int64) (Snapshot, error) {
	a, err := p.call(call{Snapshot: dir, Pages: pages})
	return a.Snapshot, err
}
