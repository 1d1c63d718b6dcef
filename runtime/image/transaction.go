package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const journalName = "journal"

// Points at which a test makes a change fail or kills the process.
var (
	faultBegun     = fault.New("image.begun")     // the folder is there and held
	faultJournal   = fault.New("image.journal")   // the journal is written, nothing is renamed
	faultRename    = fault.New("image.rename")    // one more name is in place
	faultCommitted = fault.New("image.committed") // all is in place, the folder is there still
	faultUnpacked  = fault.New("image.unpacked")  // one more layer is staged
)

// txn is one change of the store: see the package comment.
type txn struct {
	s    *Store
	id   string
	dir  string   // tmp/<id>, absolute
	held *os.File // dir, with the flock that says that we live

	moves  []move
	chain  map[digest.Digest]*stagedLayer // staged layers by chainID
	order  []*stagedLayer                 // the same, parents first
	image  map[digest.Digest]*stagedImage // staged images
	images []*stagedImage                 // the same, in the order in which they came
}

// move is one rename, both places relative to the store's root. What is at To already is a file, or is renamed by an
// earlier move.
type move struct{ From, To string }

// begin starts a transaction. under, where given, runs under the shared lock, with the transaction's folder made.
func (s *Store) begin(under func(t *txn) error) (_ *txn, err error) {
	id := randomHex(16)
	t := &txn{
		s: s, id: id, dir: s.path(transactionPath(id)),
		chain: map[digest.Digest]*stagedLayer{}, image: map[digest.Digest]*stagedImage{},
	}
	defer func() {
		if err != nil {
			_ = t.end() // err says more
		}
	}()
	err = s.shared(func() error {
		if err := os.Mkdir(t.dir, 0o700); err != nil {
			return err
		}
		if t.held, err = os.Open(t.dir); err != nil {
			return err
		}
		if err := flock(t.held, unix.LOCK_EX); err != nil {
			return fmt.Errorf("lock %s: %w", t.dir, err)
		}
		if under != nil {
			return under(t)
		}
		return nil
	})
	if err == nil {
		err = faultBegun.Hit()
	}
	return t, err
}

// place is a place in the transaction's folder, relative to the store's root.
func (t *txn) place(name string) string { return transactionPath(t.id) + "/" + name }

// stage makes a file in the transaction's folder. name is a path there.
func (t *txn) stage(name string, content []byte) error {
	path := filepath.Join(t.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o710); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

// stageSynced is stage for what the store could not be read without: it is on the disk when it returns. A layer's files
// are not synced, by Docker and podman neither: who pulls the plug while they are on their way has a layer with holes.
func (t *txn) stageSynced(name string, content []byte) error {
	f, err := os.OpenFile(filepath.Join(t.dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// move plans a rename of name, a path in the transaction's folder, to a place in the store.
func (t *txn) move(name, to string) { t.moves = append(t.moves, move{t.place(name), to}) }

// trash plans a rename of a place in the store into the transaction's folder, where it ends.
func (t *txn) trash(from string) {
	t.moves = append(t.moves, move{from, t.place(fmt.Sprintf("trash/%d", len(t.moves)))})
}

// hold keeps the layer and those below it from being removed while the transaction lasts.
//
// Preconditions: the lock is held, and the layer is there.
func (t *txn) hold(chain digest.Digest) error { return t.stage("hold/"+chain.Encoded(), nil) }

// commit shows the change. plan, under the exclusive lock, looks at what is there now and plans the renames; when it
// returns an error nothing happens.
func (t *txn) commit(plan func() error) error {
	return t.s.exclusive(func() error {
		if err := plan(); err != nil {
			return err
		}
		if len(t.moves) == 0 {
			return nil
		}
		text, err := json.Marshal(t.moves)
		if err != nil {
			return err
		}
		stage := t.stage
		if slices.ContainsFunc(t.moves, func(m move) bool { return m.To == repositoriesFile }) {
			stage = t.stageSynced // of a container's layers, which go with a start, nothing is worth the wait
		}
		if err := stage("journal.new", text); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(t.dir, "journal.new"), filepath.Join(t.dir, journalName)); err != nil {
			return err
		}
		if err := faultJournal.Hit(); err != nil {
			return err
		}
		if err := t.s.replay(t.id); err != nil {
			return err
		}
		return faultCommitted.Hit()
	})
}

// replay does the renames of a journal that are not done yet, and ends it.
//
// Preconditions: the exclusive lock is held.
func (s *Store) replay(id string) error {
	journal := s.path(transactionPath(id), journalName)
	text, err := os.ReadFile(journal)
	if err != nil {
		return err
	}
	var moves []move
	if json.Unmarshal(text, &moves) != nil {
		return os.Remove(journal) // it was never synced when the power went: nothing came of the change
	}
	for _, m := range moves {
		// The second: something may be renamed away and its place taken by the next move.
		if !s.exists(m.From) || strings.HasPrefix(m.To, "tmp/") && s.exists(m.To) {
			continue // done before
		}
		if err := rename(s.path(m.From), s.path(m.To)); err != nil {
			return err
		}
		if err := faultRename.Hit(); err != nil {
			return err
		}
	}
	return os.Remove(journal)
}

// rename is rename(2), into a folder that is made where it is not there.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if isNotExist(err) {
		if err := os.MkdirAll(filepath.Dir(to), 0o710); err != nil {
			return err
		}
		err = os.Rename(from, to)
	}
	return err
}

// end removes the transaction's folder and all in it. A journal in it, of a commit that failed half way, stays for
// the next one who takes the lock.
func (t *txn) end() error {
	if t.held == nil {
		return nil
	}
	defer func() {
		_ = t.held.Close() // unlocks
		t.held = nil
	}()
	if t.s.exists(t.place(journalName)) {
		return nil
	}
	return sys.RemovePath(t.dir)
}
