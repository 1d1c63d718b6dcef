package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
)

// confirm asks whether to go on. what is the command that is cancelled otherwise.
func (a *app) confirm(warning, what string) error {
	fmt.Fprintf(a.out, "%s\nAre you sure you want to continue? [y/N] ", warning)
	answer, _ := bufio.NewReader(a.in).ReadString('\n') // the end of input is "no"
	if strings.EqualFold(strings.TrimSpace(answer), "y") {
		return nil
	}
	return errors.New(what + " has been cancelled")
}

// reclaimed tells how many bytes are free now.
func (a *app) reclaimed(n uint64) error {
	_, err := fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(n)))
	return err
}

// pruneContainers removes containers and says which. It returns the bytes that are free now.
func (a *app) pruneContainers(ctx context.Context, filter map[string][]string) (uint64, error) {
	s, err := a.containers()
	if err != nil {
		return 0, err
	}
	r, err := s.Prune(ctx, filter)
	a.deleted("Deleted Containers:", r.ContainersDeleted)
	return r.SpaceReclaimed, err
}

// deleted lists what was removed, with an empty line after it; nothing for an empty list.
func (a *app) deleted(title string, names []string) {
	if len(names) == 0 {
		return
	}
	a.println(title)
	for _, n := range names {
		a.println(n)
	}
	a.println()
}

// filterFlag is a flag like --filter name=value, which may be given several times.
func filterFlag() *opts.FilterOpt {
	f := opts.NewFilterOpt()
	return &f
}

// filters has the values by name, sorted.
func filters(f *opts.FilterOpt) map[string][]string {
	m := map[string][]string{}
	for name, values := range f.Value() {
		for v, is := range values {
			if is {
				m[name] = append(m[name], v)
			}
		}
		sort.Strings(m[name])
	}
	return m
}
