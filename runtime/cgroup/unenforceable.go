package cgroup

import "fmt"

// Unenforceable is returned when a limit was asked for that this machine, or this user on it, cannot have.
type Unenforceable struct {
	Flag string // as given on the command line: "--memory"
	Why  string // one sentence, without a full stop
	Err  error  // what the kernel said, or nil
}

func (e *Unenforceable) Error() string {
	return fmt.Sprintf("%s cannot be enforced: %s", e.Flag, e.Why)
}

func (e *Unenforceable) Unwrap() error { return e.Err }

// Unavailable is returned by what needs a cgroup, where there is none.
type Unavailable struct {
	Op  string // "pause", "stats", ...
	Why string // one sentence, without a full stop
}

func (e *Unavailable) Error() string {
	return fmt.Sprintf("%s needs a cgroup: %s", e.Op, e.Why)
}
