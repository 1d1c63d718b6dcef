package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// shared runs fn while nobody changes the store.
func (s *Store) shared(fn func() error) error {
	for {
		unlock, err := s.lock(unix.LOCK_SH)
		if err != nil {
			return err
		}
		left, err := s.journals()
		if err == nil && len(left) == 0 {
			defer unlock()
			return fn()
		}
		unlock()
		if err != nil {
			return err
		}
		if err := s.exclusive(func() error { return nil }); err != nil { // does what the journals say
			return err
		}
	}
}

// exclusive runs fn while nobody else reads or changes the store.
func (s *Store) exclusive(fn func() error) error {
	unlock, err := s.lock(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	left, err := s.journals()
	if err != nil {
		return err
	}
	for _, id := range left {
		if err := s.replay(id); err != nil {
			return fmt.Errorf("complete an interrupted change of the image store: %w", err)
		}
	}
	return fn()
}

func (s *Store) lock(how int) (unlock func(), err error) {
	f, err := os.OpenFile(s.path("image.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock image store: %w", err)
	}
	if err := flock(f, how); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("lock image store: %s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// journals lists the transactions that were interrupted while they were shown. Whoever holds the lock and finds one
// knows that its process is dead or gave up: a journal is there under the exclusive lock only.
func (s *Store) journals() ([]string, error) {
	ids, err := s.names("tmp")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, id := range ids {
		if s.exists(transactionPath(id) + "/" + journalName) {
			left = append(left, id)
		}
	}
	return left, nil
}

// cleanUp completes or removes what dead processes left in tmp. What cannot be removed is nobody's and hinders nobody:
// Left tells of it.
func (s *Store) cleanUp() error {
	ids, err := s.names("tmp")
	if err != nil || len(ids) == 0 {
		return err
	}
	var dead []*txn
	err = s.exclusive(func() error { // begin takes it shared: no folder is seen before it is held
		for _, id := range ids {
			if t := s.adopt(id); t != nil {
				dead = append(dead, t)
			}
		}
		return nil
	})
	var left []error
	for _, t := range dead {
		left = append(left, t.end())
	}
	s.left = errors.Join(left...)
	if err == nil && errors.Is(s.left, fs.ErrPermission) && os.Geteuid() != 0 {
		return s.left
	}
	return err
}

// adopt takes over a transaction whose process is dead, or returns nil.
func (s *Store) adopt(id string) *txn {
	t := &txn{s: s, id: id, dir: s.path(transactionPath(id))}
	var err error
	if t.held, err = os.Open(t.dir); err != nil {
		return nil
	}
	if err := flock(t.held, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = t.held.Close() // read only
		return nil
	}
	return t
}
