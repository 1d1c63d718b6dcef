package image

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// Filters are the values of -f KEY=VALUE by key.
type Filters map[string][]string

// filter is Filters understood.
type filter struct {
	dangling   *bool
	labels     []string
	notLabels  []string
	references []string
	before     time.Time // created before, where not zero
	since      time.Time // created after, where not zero
}

// filter reads filters. Only those of keys are known.
//
// Preconditions: the lock is held.
func (s *Store) filter(f Filters, keys ...string) (*filter, error) {
	out := &filter{}
	for key, values := range f {
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("invalid filter '%s'", key)
		}
		for _, v := range values {
			if err := s.addFilter(out, key, v); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (s *Store) addFilter(f *filter, key, v string) error {
	switch key {
	case "dangling":
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("invalid filter 'dangling=%s'", v)
		}
		f.dangling = &b
	case "label":
		f.labels = append(f.labels, v)
	case "label!":
		f.notLabels = append(f.notLabels, v)
	case "reference":
		if _, err := reference.FamiliarMatch(v, anyReference); err != nil {
			return fmt.Errorf("invalid filter 'reference=%s': %w", v, err)
		}
		f.references = append(f.references, v)
	case "before", "since":
		img, err := s.find(v)
		if err != nil {
			return err
		}
		if img.Spec.Created == nil {
			return nil
		}
		if key == "since" {
			if f.since.Before(*img.Spec.Created) {
				f.since = *img.Spec.Created
			}
			return nil
		}
		f.earliest(*img.Spec.Created)
	case "until":
		at, err := parseUntil(v)
		if err != nil {
			return err
		}
		f.earliest(at)
	}
	return nil
}

var anyReference, _ = reference.ParseNormalizedNamed("a:b")

func (f *filter) earliest(at time.Time) {
	if f.before.IsZero() || at.Before(f.before) {
		f.before = at
	}
}

// parseUntil reads a point in time: a duration back from now, seconds since 1970, or a date with or without a time.
func parseUntil(v string) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return time.Now().Add(-d), nil
	}
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(sec*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid filter 'until=%s': no time, date or duration", v)
}

// matches reports whether the image has the labels and the age. Names and dangling are for the caller.
func (f *filter) matches(img *Image) bool {
	created := img.Spec.Created
	if !f.before.IsZero() && (created == nil || !created.Before(f.before)) {
		return false
	}
	if !f.since.IsZero() && (created == nil || !created.After(f.since)) {
		return false
	}
	for _, l := range f.labels {
		if !hasLabel(img.Config.Labels, l) {
			return false
		}
	}
	for _, l := range f.notLabels {
		if hasLabel(img.Config.Labels, l) {
			return false
		}
	}
	return true
}

// hasLabel reports whether KEY or KEY=VALUE is among the labels.
func hasLabel(labels map[string]string, want string) bool {
	key, value, both := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!both || got == value)
}

// matchesName reports whether a name fits one of the patterns, if there are any.
func (f *filter) matchesName(ref reference.Named) bool {
	if len(f.references) == 0 {
		return true
	}
	for _, pattern := range f.references {
		if ok, err := reference.FamiliarMatch(pattern, ref); err == nil && ok {
			return true
		}
	}
	return false
}
