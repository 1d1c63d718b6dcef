package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

func (a *app) logsCommand() *cobra.Command {
	var o container.LogsOptions
	var since, until, tail string
	cmd := command("logs [OPTIONS] CONTAINER", "Fetch the logs of a container", between(1, 1), "container logs, logs",
		func(cmd *cobra.Command, args []string) error {
			var err error
			now := time.Now()
			if o.Since, err = moment(since, now); err != nil {
				return fmt.Errorf(`invalid value for "since": %w`, err)
			}
			if o.Until, err = moment(until, now); err != nil {
				return fmt.Errorf(`invalid value for "until": %w`, err)
			}
			o.Tail = -1
			if tail != "all" {
				// Docker takes whatever is no number for "all", too.
				if n, err := strconv.Atoi(tail); err == nil {
					o.Tail = n
				}
			}
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			o.Stdout, o.Stderr = a.out, a.err
			return c.Logs(cmd.Context(), o)
		})
	set := cmd.Flags()
	set.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	set.StringVar(&since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	set.StringVar(&until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	set.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	set.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	set.StringVarP(&tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	a.completeContainers(cmd, 1, all)
	return cmd
}

// layouts are the dates that Docker takes besides RFC 3339. Without a zone they are local.
var layouts = []string{
	"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	"2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
}

// moment reads a date, a duration back from now, or seconds since 1970 with a fraction. Empty is zero.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	var nsec int64
	whole, fraction, found := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err == nil && found {
		nsec, err = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a date nor a duration", s)
	}
	return time.Unix(sec, nsec), nil
}
