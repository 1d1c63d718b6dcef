package scrape

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what we use of Grafana's dashboard JSON, of schema version 38 and later (packages/grafana-schema, Dashboard and the
// Options and FieldConfig of each panel). A field that is not here is a mistake, or has to be looked up there.
type dashboard struct {
	UID, Title        string
	Tags              []string
	Editable          bool
	SchemaVersion     int
	Version           int
	Refresh, Timezone string
	Time              struct{ From, To string }
	GraphTooltip      int
	Annotations       struct{ List []struct{} }
	Links             []struct{}
	Templating        struct{ List []variable }
	Panels            []panel
}

type variable struct {
	Name, Type, Label string
	Datasource        *source
	Query             json.RawMessage // a string for a data source, else what is sent to it
	Refresh           int
	IncludeAll, Multi bool
	AllValue          string
	Current           *struct{ Text, Value string }
	Sort, Hide        int
}

type source struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               *source
	Targets                  []target
	FieldConfig              *struct {
		Defaults struct {
			Unit     string
			Min, Max *float64
			Custom   struct {
				DrawStyle, ShowPoints  string
				LineWidth, FillOpacity int
				Stacking               *struct{ Mode string }
			}
		}
		Overrides []struct{}
	}
	Options *struct {
		Legend *struct {
			Calcs                  []string
			DisplayMode, Placement string
			ShowLegend             bool
		}
		Tooltip       *struct{ Mode, Sort string }
		ReduceOptions *struct {
			Calcs  []string
			Fields string
			Values bool
		}
		ColorMode, GraphMode, TextMode string
	}
	Collapsed *bool      // of a row
	Panels    []struct{} // of a row that is collapsed
}

type target struct {
	RefID        string
	Datasource   *source
	Expr         string
	LegendFormat string
	Instant      bool
	Format       string
}

// grafana is what our dashboard says.
func grafana(t *testing.T) *dashboard {
	t.Helper()
	var d dashboard
	dec := json.NewDecoder(strings.NewReader(text(t, "grafana/lamina.json")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("something follows the dashboard: %v", err)
	}
	return &d
}

// labelValues is how a variable asks Prometheus.
var labelValues = regexp.MustCompile(`^label_values\((.*), ([a-z_]+)\)$`)

// asks is what a variable is made of: a selector, and a label.
func (v *variable) asks(t *testing.T) (query, label string) {
	t.Helper()
	var q struct{ Query, RefID string }
	if err := json.Unmarshal(v.Query, &q); err != nil {
		t.Fatalf("variable %s: %v", v.Name, err)
	}
	m := labelValues.FindStringSubmatch(q.Query)
	if m == nil {
		t.Fatalf("variable %s asks %q", v.Name, q.Query)
	}
	return m[1], m[2]
}

// queries are those of the dashboard, by panel, as Grafana sends them.
func queries(t *testing.T) map[string]string {
	t.Helper()
	d := grafana(t)
	all := map[string]string{}
	values := []string{"$__rate_interval", "1m"}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			values = append(values, "$"+v.Name, ".*")
		}
	}
	replace := strings.NewReplacer(values...)
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all[fmt.Sprintf("%d %s %s", p.ID, p.Title, q.RefID)] = replace.Replace(q.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			q, _ := v.asks(t)
			all["variable "+v.Name] = replace.Replace(q)
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d queries", len(all))
	}
	return all
}

// Every query is one that Prometheus takes, of metrics and labels that there are, and with no variable that there is not.
func TestDashboardQueries(t *testing.T) {
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

// Variables are defined before they are used, and used.
func TestDashboardVariables(t *testing.T) {
	d := grafana(t)
	use := regexp.MustCompile(`\$\{?([A-Za-z_]+)`)
	used, defined := map[string]bool{}, map[string]bool{"__rate_interval": true}
	check := func(where, in string) {
		for _, m := range use.FindAllStringSubmatch(in, -1) {
			if used[m[1]] = true; !defined[m[1]] {
				t.Errorf("%s: $%s is not defined", where, m[1])
			}
		}
	}
	names := known(t)
	for _, v := range d.Templating.List {
		if v.Datasource != nil {
			check("variable "+v.Name, v.Datasource.UID)
		}
		switch v.Type {
		case "datasource":
		case "query":
			q, label := v.asks(t)
			check("variable "+v.Name, q)
			metric, _, _ := strings.Cut(q, "{")
			if !slices.Contains(names[metric], label) {
				t.Errorf("variable %s: %s has no label %s", v.Name, metric, label)
			}
			if v.AllValue != ".*" || !v.IncludeAll || v.Current == nil || v.Current.Value != "$__all" {
				t.Errorf("variable %s does not begin with all: %+v", v.Name, v)
			}
		default:
			t.Errorf("variable %s: type %q", v.Name, v.Type)
		}
		defined[v.Name] = true
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			check(p.Title, q.Expr)
			check(p.Title, q.LegendFormat)
			if p.Datasource == nil || q.Datasource == nil || *p.Datasource != *q.Datasource || q.Datasource.Type != "prometheus" {
				t.Errorf("%s: data source %+v of the panel, %+v of %s", p.Title, p.Datasource, q.Datasource, q.RefID)
			}
			check(p.Title, q.Datasource.UID)
		}
	}
	for name := range defined {
		if !used[name] {
			t.Errorf("nobody uses $%s", name)
		}
	}
}

// Panels have what their kind needs, numbers of their own, and places where nobody else is.
func TestDashboardPanels(t *testing.T) {
	d := grafana(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 38 {
		t.Errorf("uid %q, title %q, schema version %d", d.UID, d.Title, d.SchemaVersion)
	}
	units := []string{"short", "reqps", "ops", "s", "bytes", "Bps", "percentunit"} // valueFormats, getCategories
	ids := map[int]bool{}
	place := map[[2]int]string{}
	for _, p := range d.Panels {
		name := fmt.Sprintf("panel %d, %q", p.ID, p.Title)
		if p.ID <= 0 || ids[p.ID] || p.Title == "" {
			t.Errorf("%s: no number of its own, or no title", name)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 { // a dashboard has 24 columns
			t.Errorf("%s: at %+v", name, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := place[[2]int{x, y}]; other != "" {
					t.Fatalf("%s is over %s", name, other)
				}
				place[[2]int{x, y}] = name
			}
		}
		if p.Type == "row" {
			if p.Collapsed == nil || *p.Collapsed || g.W != 24 || len(p.Targets) > 0 {
				t.Errorf("%s: %+v", name, p)
			}
			continue
		}
		if len(p.Targets) == 0 || p.FieldConfig == nil || p.Options == nil || !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
			t.Errorf("%s: no query, no options, or no unit: %+v", name, p)
			continue
		}
		for i, q := range p.Targets {
			if want := string(rune('A' + i)); q.RefID != want || q.Expr == "" {
				t.Errorf("%s: query %q is %q, want %s", name, q.Expr, q.RefID, want)
			}
			if table := p.Type == "table"; table != q.Instant || table != (q.Format == "table") {
				t.Errorf("%s: instant %v, format %q", name, q.Instant, q.Format)
			}
		}
		o := p.Options
		switch p.Type {
		case "stat":
			if o.ReduceOptions == nil || !slices.Equal(o.ReduceOptions.Calcs, []string{"lastNotNull"}) ||
				o.ColorMode != "value" || o.GraphMode != "none" || o.TextMode != "auto" {
				t.Errorf("%s: %+v", name, o)
			}
		case "timeseries":
			// Grafana's legend takes the length of calcs.
			if o.Legend == nil || o.Legend.Calcs == nil || o.Legend.DisplayMode != "list" || o.Legend.Placement != "bottom" ||
				o.Tooltip == nil || o.Tooltip.Mode != "multi" || o.Tooltip.Sort != "desc" {
				t.Errorf("%s: %+v", name, o)
			}
			if c := p.FieldConfig.Defaults.Custom; c.DrawStyle != "line" || c.ShowPoints != "never" || c.Stacking == nil ||
				!slices.Contains([]string{"none", "normal"}, c.Stacking.Mode) {
				t.Errorf("%s: %+v", name, c)
			}
		case "table":
		default:
			t.Errorf("%s: type %q", name, p.Type)
		}
	}
}
