// Package mounts asks the live mounts of this user, of containers or not, what they do.
//
// Nothing that is dead or hangs holds up the rest: a mount that does not answer in time is told of as one that does not.
package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/internal/livemount"
)

const (
	// Patience bounds what one mount is waited for.
	Patience = time.Second

	// AtOnce bounds how many are asked at the same time. It is more than hang together as a rule: those wait out their patience
	// before others have their turn.
	AtOnce = 64
)

// Mount is a mount of this user, and what it has told.
type Mount struct {
	livemount.Info
	Figures *figures.Mount // nil with Err
	Err     error          // why it has told nothing
}

// Bases are where mounts are told of, those of containers also where the user has no directory for it. runDir is that of
// the store.
func Bases(runDir string) []string {
	bases := append(livemount.Bases(), filepath.Join(runDir, "laminafs"))
	slices.Sort(bases)
	return slices.Compact(bases)
}

// All asks all mounts of this user in the bases. timed asks them to time requests from now on.
//
// Errors: of a base that cannot be read, besides the mounts of the others.
func All(ctx context.Context, bases []string, timed bool) ([]Mount, error) {
	var all []Mount
	var errs []error
	for _, base := range bases {
		list, err := livemount.List([]string{base})
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			errs = append(errs, fmt.Errorf("mounts in %s: %w", base, err))
		}
		for _, info := range list {
			if ours(info.Path) {
				all = append(all, Mount{Info: info})
			}
		}
	}
	Each(len(all), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		m := &all[i]
		m.Figures, m.Err = figures.Get(ctx, filepath.Join(m.Path, "figures"), timed)
	})
	return all, errors.Join(errs...)
}

// ours tells whether the directory of a mount is this user's, or root's of a user namespace whose root we are.
func ours(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && int(st.Uid) == os.Geteuid()
}

// Each calls f for 0 to n-1, AtOnce at a time.
func Each(n int, f func(i int)) {
	var wg sync.WaitGroup
	tickets := make(chan struct{}, AtOnce)
	for i := range n {
		tickets <- struct{}{}
		wg.Go(func() {
			defer func() { <-tickets }()
			f(i)
		})
	}
	wg.Wait()
}
