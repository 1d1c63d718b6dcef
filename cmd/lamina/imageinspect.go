package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
)

func (a *app) inspectImage(_ context.Context, name string) (any, error) {
	s, err := a.images()
	if err != nil {
		return nil, err
	}
	return s.Inspect(name)
}

func (a *app) imageInspectCommand() *cobra.Command {
	var format string
	cmd := command("inspect [OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images",
		between(1, -1), "", func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), args, format, a.inspectImage)
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	a.completeImages(cmd, -1)
	return cmd
}

type historyFlags struct {
	human, quiet, noTrunc bool
	format                string
}

func (a *app) historyCommand() *cobra.Command {
	var f historyFlags
	cmd := command("history [OPTIONS] IMAGE", "Show the history of an image", between(1, 1), "image history, history",
		func(cmd *cobra.Command, args []string) error {
			s, err := a.images()
			if err != nil {
				return err
			}
			steps, err := s.History(args[0])
			if err != nil {
				return err
			}
			return historyWrite(formatter.Context{Output: a.out, Format: historyFormat(&f), Trunc: !f.noTrunc}, f.human, steps)
		})
	set := cmd.Flags()
	set.BoolVarP(&f.human, "human", "H", true, "Print sizes and dates in human readable format")
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Only show image IDs")
	set.BoolVar(&f.noTrunc, "no-trunc", false, "Don't truncate output")
	set.StringVar(&f.format, "format", "", formatHelp)
	a.completeImages(cmd, 1)
	return cmd
}

func historyFormat(f *historyFlags) formatter.Format {
	switch {
	case f.format != "" && f.format != formatter.TableFormatKey:
		return formatter.Format(f.format)
	case f.quiet:
		return formatter.DefaultQuietFormat
	case !f.human:
		return "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	return "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
}

func historyWrite(ctx formatter.Context, human bool, steps []imagetypes.HistoryResponseItem) error {
	head := &historyLine{}
	head.Header = formatter.SubHeaderContext{"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT"}
	return ctx.Write(head, func(format func(formatter.SubContext) error) error {
		for _, s := range steps {
			if err := format(&historyLine{step: s, human: human, trunc: ctx.Trunc}); err != nil {
				return err
			}
		}
		return nil
	})
}

// historyLine has the fields that --format may name.
type historyLine struct {
	formatter.HeaderContext
	step         imagetypes.HistoryResponseItem
	human, trunc bool
}

func (l *historyLine) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(l) }

func (l *historyLine) ID() string {
	if l.trunc {
		return formatter.TruncateID(l.step.ID)
	}
	return l.step.ID
}

func (l *historyLine) CreatedAt() string { return time.Unix(l.step.Created, 0).Format(time.RFC3339) }

// CreatedSince is empty where the step bears no time.
func (l *historyLine) CreatedSince() string {
	if !l.human {
		return l.CreatedAt()
	}
	if l.step.Created <= 0 {
		return "N/A"
	}
	return units.HumanDuration(time.Since(time.Unix(l.step.Created, 0))) + " ago"
}

func (l *historyLine) CreatedBy() string {
	by := strings.ReplaceAll(l.step.CreatedBy, "\t", " ")
	if l.trunc {
		return formatter.Ellipsis(by, 45)
	}
	return by
}

func (l *historyLine) Size() string {
	if l.human {
		return units.HumanSizeWithPrecision(float64(l.step.Size), 3)
	}
	return strconv.FormatInt(l.step.Size, 10)
}

func (l *historyLine) Comment() string { return l.step.Comment }
