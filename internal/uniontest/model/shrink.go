package model

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxReplays bounds the work of Shrink.
const maxReplays = 1200

// Shrink returns a record that fails like rec and from which nothing can be left out, or not much.
func Shrink(t *testing.T, tg Target, rec *Record) *Record {
	last := Replay(t, tg, rec)
	kind, replays := failureKind(last), 0
	shrink(rec, func(r *Record) bool {
		if replays++; replays > maxReplays || strings.Contains(last, errHangs.Error()) {
			return false
		}
		msg := Replay(t, tg, r)
		if failureKind(msg) != kind {
			return false
		}
		last = msg
		return true
	})
	rec.Comment += fmt.Sprintf("\nshrunk by %d replays: %s", replays, last)
	return rec
}

var variable = regexp.MustCompile(`(?s)"(\\.|[^"\\])*"|[0-9]+|\n.*`)

// failureKind is what stays of a message when names and numbers change: so that the search for a small sequence does
// not end at another failure.
func failureKind(msg string) string {
	if _, after, ok := strings.Cut(msg, ": "); ok {
		msg = after
	}
	return variable.ReplaceAllString(msg, "")
}

// shrink takes out of rec what does not change that it fails (delta debugging: Zeller and Hildebrandt, 2002).
func shrink(rec *Record, fails func(*Record) bool) {
	for size := -1; size != len(rec.Ops)+len(rec.Layers); {
		size = len(rec.Ops) + len(rec.Layers)
		rec.Ops = reduce(rec.Ops, func(ops []Op) bool {
			return fails(&Record{Layers: rec.Layers, Ops: ops})
		})
		rec.Layers = reduce(rec.Layers, func(es []Entry) bool {
			return valid(es) && fails(&Record{Layers: es, Ops: rec.Ops})
		})
	}
}

// reduce leaves out ever smaller pieces of list, from the end, as long as bad says that the rest is still bad.
func reduce[T any](list []T, bad func([]T) bool) []T {
	for piece := max(1, len(list)/2); piece > 0; piece /= 2 {
		for end := len(list); end > 0; end -= piece {
			rest := slices.Concat(list[:max(0, end-piece)], list[end:])
			if bad(rest) {
				list = rest
			}
		}
	}
	return list
}

// valid reports whether layers can be made from the entries: every parent and every first name is there.
func valid(entries []Entry) bool {
	there := map[[2]any]string{}
	for _, e := range entries {
		dir, _ := split(e.Path)
		if dir != "" && there[[2]any{e.Layer, dir}] != "dir" {
			return false
		}
		switch e.Kind {
		case "hardlink":
			if k := there[[2]any{e.Layer, e.To}]; k != "file" && k != "hardlink" {
				return false
			}
		case "opaque":
			if there[[2]any{e.Layer, e.Path}] != "dir" {
				return false
			}
			continue
		}
		there[[2]any{e.Layer, e.Path}] = e.Kind
	}
	return true
}
