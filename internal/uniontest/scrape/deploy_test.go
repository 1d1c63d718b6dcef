package scrape

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// known are the names of everything that can be asked for.
func known(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{metrics.Up.Name: true}
	for _, d := range append(metrics.Descs(), hostmetrics.Descs()...) {
		names[d.Name] = true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		names[metrics.Durations.Name+suffix] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^ *- record: (\S+)$`).FindAllStringSubmatch(text(t, "prometheus/lamina.rules.yml"), -1) {
		names[m[1]] = true
	}
	return names
}

// named are the names of ours in a query. Labels and their values have none that look like one.
var named = regexp.MustCompile(`\b(lamina(?:fs)?_[a-z_]+|lamina:[a-z0-9_:]+)`)

func checkNames(t *testing.T, where, query string, known map[string]bool) {
	t.Helper()
	for _, name := range named.FindAllString(query, -1) {
		if !known[name] {
			t.Errorf("%s: there is no %s", where, name)
		}
	}
}

func TestRulesNameWhatThereIs(t *testing.T) {
	for line := range strings.Lines(text(t, "prometheus/lamina.rules.yml")) {
		checkNames(t, "rules", line, known(t))
	}
}

// queries are those of the dashboard, by panel, as Grafana sends them.
func queries(t *testing.T) map[string]string {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(text(t, "grafana/lamina.json")), &d); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	grafana := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$container", ".*")
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all[p.Title+" "+q.RefID] = grafana.Replace(q.Expr)
		}
	}
	labelValues := regexp.MustCompile(`^label_values\((.*), [a-z]+\)$`)
	for _, v := range d.Templating.List {
		if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
			all["variable "+v.Name] = grafana.Replace(m[1])
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d queries", len(all))
	}
	return all
}

func TestDashboard(t *testing.T) {
	names := known(t)
	rules := "groups:\n- name: dashboard\n  rules:\n"
	n := 0
	for where, q := range queries(t) {
		if strings.Contains(q, "$") {
			t.Errorf("%s: a variable that is not there: %s", where, q)
		}
		checkNames(t, where, q, names)
		n++
		rules += fmt.Sprintf("  - record: dashboard:query%d\n    expr: %q\n", n, q)
	}
	path := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(path, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
