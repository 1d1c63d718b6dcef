package scrape

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/metrics"
	hostmetrics "github.com/laminafs/lamina/runtime/metrics"
)

const deploy = "../../../deploy"

func promtool(t *testing.T, args ...string) {
	t.Helper()
	need(t, "promtool")
	cmd := exec.Command("promtool", args...)
	cmd.Dir = deploy + "/prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

func TestConfiguration(t *testing.T) { promtool(t, "check", "config", "prometheus.yml") }
func TestRules(t *testing.T)         { promtool(t, "check", "rules", "lamina.rules.yml") }
func TestRulesTests(t *testing.T)    { promtool(t, "test", "rules", "lamina.rules_test.yml") }

// Every rule is in a test.
func TestRulesAreTested(t *testing.T) {
	rules, tests := text(t, "prometheus/lamina.rules.yml"), text(t, "prometheus/lamina.rules_test.yml")
	for _, m := range regexp.MustCompile(`(?m)^ *- (?:record|alert): (\S+)$`).FindAllStringSubmatch(rules, -1) {
		if m[1] == "lamina:container_memory_working_set:ratio" {
			continue // LaminaContainerMemoryHigh is
		}
		if !strings.Contains(tests, "expr: "+m[1]) && !strings.Contains(tests, "alertname: "+m[1]) {
			t.Errorf("no test has %s", m[1])
		}
	}
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(deploy, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// known are the labels of everything that can be asked for, by name.
func known(t *testing.T) map[string][]string {
	t.Helper()
	of := func(labels ...string) []string {
		// Prometheus adds the first two; lamina metrics has the others.
		return append([]string{"job", "instance", "container", "container_id", "image", "mount"}, labels...)
	}
	names := map[string][]string{"up": {"job", "instance"}, metrics.Up.Name: of()}
	for _, d := range append(metrics.Descs(), hostmetrics.Descs()...) {
		names[d.Name] = of(d.Labels...)
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		names[metrics.Durations.Name+suffix] = of("opcode", "le")
	}
	for _, m := range regexp.MustCompile(`(?m)^ *- record: (\S+)$`).FindAllStringSubmatch(text(t, "prometheus/lamina.rules.yml"), -1) {
		names[m[1]] = of("opcode", "errno", "state")
	}
	return names
}

// What a query is made of, as far as it has to be known to find the names of metrics.
var (
	aString   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	aNumber   = regexp.MustCompile(`\b[0-9][0-9A-Za-z.]*`)
	aRange    = regexp.MustCompile(`\[[^]]*\]`)
	aGrouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	aSelector = regexp.MustCompile(`([A-Za-z_:][A-Za-z0-9_:]*)\s*(\(|\{[^}]*\})?`)
	aLabel    = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]*)\s*(?:=~|!~|!=|=)`)
	operators = []string{"and", "or", "unless", "bool", "offset"}
)

// checkNames reports metrics that are not there, and labels that they do not have. That it is a query at all is promtool's.
func checkNames(t *testing.T, where, query string, known map[string][]string) {
	t.Helper()
	for _, problem := range wrongNames(query, known) {
		t.Errorf("%s: %s", where, problem)
	}
}

func wrongNames(query string, known map[string][]string) (problems []string) {
	plain := aString.ReplaceAllString(query, `""`)
	for _, e := range []*regexp.Regexp{aRange, aGrouping, aNumber} {
		plain = e.ReplaceAllString(plain, "")
	}
	for _, m := range aSelector.FindAllStringSubmatch(plain, -1) {
		name, rest := m[1], m[2]
		if rest == "(" || slices.Contains(operators, name) {
			continue
		}
		labels, ok := known[name]
		if !ok {
			problems = append(problems, "there is no "+name)
			continue
		}
		for _, l := range aLabel.FindAllStringSubmatch(rest, -1) {
			if !slices.Contains(labels, l[1]) {
				problems = append(problems, name+" has no label "+l[1])
			}
		}
	}
	return problems
}

func TestWrongNamesAreFound(t *testing.T) {
	known := map[string][]string{"a_total": {"job", "opcode"}, "lamina:b": {"job"}}
	for query, want := range map[string]string{
		`sum by (mount, x) (rate(a_total{opcode!="b_total"}[5m])) / lamina:b > 1.5e3`: "",
		`a_total{job=~"x{y}", opcode="z\"w"} and on (z) (lamina:b == 1) or vector(0)`: "",
		`rate(a_totl[5m])`:                                            "there is no a_totl",
		`lamina:b{opcode="x"}`:                                        "lamina:b has no label opcode",
		`a_total unless ignoring (q) lamina:c`:                        "there is no lamina:c",
		`histogram_quantile(0.9, sum(laminfs_up{job="x",zone!~"y"}))`: "there is no laminfs_up",
	} {
		if got := strings.Join(wrongNames(query, known), ", "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// Rules ask for nothing that is not there.
func TestRulesNameWhatThereIs(t *testing.T) {
	rules := text(t, "prometheus/lamina.rules.yml")
	names := regexp.MustCompile(`(?m)^ *- (?:record|alert): `).FindAllString(rules, -1)
	exprs := regexp.MustCompile(`(?m)^        expr: (.*)\n((?:          .*\n)*)`).FindAllStringSubmatch(rules, -1)
	if len(exprs) != len(names) || len(names) < 20 {
		t.Fatalf("%d rules, %d expressions", len(names), len(exprs))
	}
	for _, m := range exprs {
		checkNames(t, "rules", strings.TrimPrefix(m[1], "|")+m[2], known(t))
	}
}
