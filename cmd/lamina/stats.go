package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/mounts"
)

// statsPause is between two samples: what the rates are taken over.
const statsPause = time.Second

type statsFlags struct {
	all, noStream, noTrunc bool
	fs                     bool
	format                 string
}

// wantsFS tells whether the figures of the filesystem are shown.
func (f *statsFlags) wantsFS() bool {
	return f.fs || strings.Contains(f.format, ".FS") || f.format == formatter.JSONFormatKey
}

func (a *app) statsCommand() *cobra.Command {
	var f statsFlags
	cmd := command("stats [OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics", nil,
		"container stats, stats", func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return a.stats(ctx, args, &f)
		})
	set := cmd.Flags()
	set.BoolVarP(&f.all, "all", "a", false, "Show all containers (default shows just running)")
	set.BoolVar(&f.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	set.BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate output")
	set.BoolVar(&f.fs, "fs", false, "Show what the containers' filesystems do")
	set.StringVar(&f.format, "format", "", formatHelp)
	a.completeContainers(cmd, -1, running)
	return cmd
}

func (a *app) stats(ctx context.Context, names []string, f *statsFlags) error {
	clear := !f.noStream && f.format == "" && term.IsTerminal(int(a.out.Fd()))
	for {
		list, err := a.measured(ctx, names, f.all)
		if err != nil {
			return err
		}
		// The first sample of a container has none before it to take a rate from.
		entries, rates := a.sample(ctx, list, f.wantsFS())
		if !rates || f.noStream {
			if !pause(ctx) {
				return nil
			}
			entries, _ = a.sample(ctx, list, f.wantsFS())
		}
		var text strings.Builder
		if clear {
			text.WriteString("\x1b[H\x1b[2J") // to the corner, and empty the screen
		}
		err = statsWrite(formatter.Context{Output: &text, Format: statsFormat(f.format, f.fs), Trunc: !f.noTrunc}, entries)
		if err == nil {
			_, err = io.WriteString(a.out, text.String())
		}
		if err != nil || f.noStream || !pause(ctx) {
			return err
		}
	}
}

// pause is until the next sample is worth it; false where the user has enough.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(statsPause):
		return true
	}
}

// measured are the containers that were named, or those that run.
func (a *app) measured(ctx context.Context, names []string, all bool) ([]*container.Container, error) {
	s, err := a.containers()
	if err != nil {
		return nil, err
	}
	var list []*container.Container
	for _, n := range names {
		c, err := s.Get(n)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(l *container.Container) bool { return l.ID() == c.ID() }) {
			list = append(list, c)
		}
	}
	if len(names) > 0 {
		return list, nil
	}
	summaries, err := s.List(ctx, container.ListOptions{All: all})
	if err != nil {
		return nil, err
	}
	for _, sum := range summaries {
		c, err := s.Get(sum.ID)
		if errors.Is(err, container.ErrNotFound) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// sample asks all at once, and with fs the mounts too. rates tells whether each that runs had a sample before.
func (a *app) sample(ctx context.Context, list []*container.Container, fs bool) (entries []statsEntry, rates bool) {
	entries = make([]statsEntry, len(list))
	before := make([]bool, len(list))
	var wg sync.WaitGroup
	var told map[int]*figures.Mount
	if fs {
		wg.Go(func() { told = a.figures(ctx) })
	}
	for i, c := range list {
		wg.Go(func() { entries[i], before[i] = sampleOne(ctx, c) })
	}
	wg.Wait()
	for i, c := range list {
		if now, err := c.Sample(); err == nil && now.Server != 0 {
			entries[i].fs = told[now.Server]
		}
	}
	rates = true
	for _, b := range before {
		rates = rates && b
	}
	return entries, rates
}

// figures are what mounts have told, by the pid of the server. What does not answer is left out.
func (a *app) figures(ctx context.Context) map[int]*figures.Mount {
	told := map[int]*figures.Mount{}
	s, err := a.containers()
	if err != nil {
		return told // the list that we are asked for came from it
	}
	live, _ := mounts.All(ctx, mounts.Bases(s.RunDir()), false)
	for _, m := range live {
		told[m.PID] = m.Figures
	}
	return told
}

func sampleOne(ctx context.Context, c *container.Container) (e statsEntry, rate bool) {
	e = statsEntry{id: c.ID(), name: c.Name()}
	ctx, cancel := context.WithTimeout(ctx, mounts.Patience)
	defer cancel()
	st, err := c.Stats(ctx)
	if err != nil {
		return e, true // shown as "--", as what does not answer is
	}
	e.fill(st)
	return e, st.Read.IsZero() || !st.PreRead.IsZero()
}
