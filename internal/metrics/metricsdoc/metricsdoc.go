// Package metricsdoc holds docs/METRICS.md against the metrics that there are, for tests.
package metricsdoc

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Line is the line of the documentation that a metric has.
func Line(name, help, typ string, labels []string) string {
	list := ""
	if len(labels) > 0 {
		list = "`" + strings.Join(labels, "`, `") + "`"
	}
	return "| `" + name + "` | " + typ + " | " + list + " | " + help + " |"
}

// TypeOf is what Prometheus calls the type.
func TypeOf(t prometheus.ValueType) string {
	if t == prometheus.CounterValue {
		return "counter"
	}
	return "gauge"
}

var row = regexp.MustCompile("^\\| `([a-z_]+)` \\| ")

// Check fails where the document lacks one of the lines, by name, or has another metric whose name matches.
func Check(t *testing.T, path string, names *regexp.Regexp, want map[string]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		m := row.FindStringSubmatch(line)
		if m == nil || !names.MatchString(m[1]) {
			continue
		}
		seen[m[1]] = true
		switch w, ok := want[m[1]]; {
		case !ok:
			t.Errorf("%s: there is no metric %s", path, m[1])
		case w != line:
			t.Errorf("%s:\ngot  %s\nwant %s", path, line, w)
		}
	}
	for name, line := range want {
		if !seen[name] {
			t.Errorf("%s: no line for %s:\n%s", path, name, line)
		}
	}
}
