package report

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
)

//go:embed page.html.tmpl
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// htmlGroup is a group of workloads in the page.
type htmlGroup struct {
	Name        string
	Ratios, CPU template.HTML // SVG
	Tables      []htmlTable
	Opcodes     htmlList
	Workloads   []Workload
}

type htmlTable struct {
	Title string
	Open  bool
	Head  []string
	Rows  [][]string
}

type htmlList struct {
	Title string
	Lines []string
}

type htmlVerdict struct {
	Verdict
	Text string
}

// HTML writes one page that needs nothing else: charts, tables, style are in it.
func (r *Report) HTML(w io.Writer) error {
	data := struct {
		Report   *Report
		Others   float64 // percent
		Busy     bool
		Cut      string
		Wrong    []Sample
		Skipped  []*skipGroup
		Verdicts []htmlVerdict
		Groups   []htmlGroup
		Memory   htmlTable
	}{Report: r, Others: 100 * r.others(), Busy: r.others() > Quiet, Cut: r.cut(), Wrong: r.Incorrect(), Skipped: r.skipped()}
	for _, v := range r.Verdicts() {
		data.Verdicts = append(data.Verdicts, htmlVerdict{v, v.got()})
	}
	for _, name := range r.groups() {
		g, err := r.htmlGroup(name)
		if err != nil {
			return err
		}
		data.Groups = append(data.Groups, g)
	}
	if rows := r.memoryRows(); len(rows) > 0 {
		data.Memory = htmlTable{Title: memoryTitle, Head: rows[0], Rows: rows[1:]}
	}
	return page.Execute(w, data)
}

func (r *Report) htmlGroup(name string) (g htmlGroup, err error) {
	g.Name, g.Workloads = name, r.workloadsOf(name)
	systems := r.systemsOf(name)
	g.Ratios, err = chart(func(w io.Writer) error {
		return r.ratios(w, g.Workloads, Wall, "Wall time as a multiple of the base's")
	})
	if err != nil {
		return g, err
	}
	if g.CPU, err = chart(func(w io.Writer) error { return r.cpuBars(w, g.Workloads, systems) }); err != nil {
		return g, err
	}
	for i, t := range []struct {
		title  string
		of     Of
		ratios bool
	}{
		{"Wall time (ratio)", Wall, true}, {"CPU time of client and server (ratio)", CPU, true}, {"CPU time of the server", Serve, false},
		{"Requests", Count, false}, {"Largest resident set", Peak, false},
	} {
		g.Tables = append(g.Tables, r.htmlTable(g.Workloads, systems, t.title, t.of, t.ratios, i == 0))
	}
	g.Opcodes = htmlList{opcodeTitle, r.opcodeLines(g.Workloads, systems)}
	return g, nil
}

func (r *Report) htmlTable(workloads []Workload, systems []string, title string, of Of, ratios, open bool) htmlTable {
	t := htmlTable{Title: title, Open: open, Head: append([]string{"workload"}, systems...)}
	for _, w := range workloads {
		base, _ := r.figure(w.Name, w.Base, of)
		row := []string{w.Name}
		for _, sys := range systems {
			row = append(row, r.cell(w.Name, sys, of, base, ratios))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// chart is a drawing as part of a page. What it is made of is ours, or escaped by the drawer.
func chart(draw func(io.Writer) error) (template.HTML, error) {
	var b strings.Builder
	if err := draw(&b); err != nil {
		return "", err
	}
	text, err := inline(b.String())
	return template.HTML(text), err
}
