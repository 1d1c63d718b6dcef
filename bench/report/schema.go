// Package report is what a run of the benchmarks has found, as data, and its renderings: a JSON file, a Markdown table,
// an HTML page with charts, an entry of the ledger, and the comparison of two runs.
//
// A [Report] has every single [Sample]. Nothing that is shown is kept: medians, intervals and p-values are computed from the
// samples each time, by golang.org/x/perf/benchmath, which makes no assumption about how times are distributed.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Schema is the version of the JSON form. It grows when a field changes its meaning or goes away; a new field does not
// make it grow.
const Schema = 1

// Report is everything about one run. Times in its JSON form are nanoseconds, sizes bytes.
type Report struct {
	Schema    int        `json:"schema"`
	Machine   Machine    `json:"machine"`
	Reps      int        `json:"reps"`
	Scale     float64    `json:"scale"`     // of the number and size of objects; 1 is what the workloads' names say
	Systems   []System   `json:"systems"`   // in the order that they were asked for
	Workloads []Workload `json:"workloads"` // in the order of the report
	Samples   []Sample   `json:"samples"`
	Skipped   []Skip     `json:"skipped,omitempty"`

	// Interrupted is the repetition, from 1, in which somebody has ended the run; 0: nobody has. There are samples of those
	// repetitions that were complete, of each workload for itself.
	Interrupted int `json:"interrupted,omitempty"`
}

// Machine is where and when the run took place.
type Machine struct {
	Date       string            `json:"date"` // RFC 3339, UTC
	Kernel     string            `json:"kernel"`
	CPUs       int               `json:"cpus"`
	CPUModel   string            `json:"cpu_model,omitempty"`
	Governor   string            `json:"governor,omitempty"` // of the CPU frequency; empty where the kernel has none
	Memory     int64             `json:"memory"`
	Filesystem string            `json:"filesystem"`  // type of that below the layers
	LoadBefore string            `json:"load_before"` // /proc/loadavg as the run begins and ends
	LoadAfter  string            `json:"load_after"`
	Others     float64           `json:"others"`             // share of the CPUs' time that others used from the beginning to the end
	Rootless   string            `json:"rootless,omitempty"` // how an ordinary user's ids are mapped; empty for root
	Versions   map[string]string `json:"versions"`           // of the programs that were measured or used, by name
}

// System is somebody who was measured.
type System struct {
	Name string `json:"name"` // with its options: "laminafs:transport=loop"
}

// Workload is one thing that programs do.
type Workload struct {
	Name  string `json:"name"`
	Group string `json:"group"`
	About string `json:"about"` // a sentence
	Base  string `json:"base"`  // the system to which ratios are given

	// Headline: it stands for others where there is room for few.
	Headline bool `json:"headline,omitempty"`

	Goals []Goal `json:"goals,omitempty"` // of ours
}

// Goal is what is asked of a system, with whatever options: its Of is at most Factor times that of Than.
type Goal struct {
	System   string  `json:"system"`             // without options
	Of       Of      `json:"of"`                 // Wall or Peak
	Factor   float64 `json:"factor"`             // for an empty Than the limit itself, in seconds or bytes
	Than     string  `json:"than,omitempty"`     // a system
	Workload string  `json:"workload,omitempty"` // that of Than; empty for the same
}

// A Sample is one run of a workload on a system. One whose result was wrong has no figures.
type Sample struct {
	Workload  string `json:"workload"`
	System    string `json:"system"`
	Rep       int    `json:"rep"`
	Incorrect string `json:"incorrect,omitempty"` // what was wrong

	Wall   time.Duration `json:"wall_ns"`
	Client time.Duration `json:"client_ns"` // CPU time of those who did the work
	Server time.Duration `json:"server_ns"` // CPU time of those who served them; what the kernel does by itself is nobody's

	// Others is CPU time that went to neither, Steal what a hypervisor took. /proc/stat has ticks of 10 ms: one sample's may be
	// below 0 by some, the sum of many is right.
	Others time.Duration `json:"others_ns"`
	Steal  time.Duration `json:"steal_ns"`

	Requests map[string]int64 `json:"requests,omitempty"` // that came to the server, by opcode; nil where it does not tell
	Memory   *Memory          `json:"memory,omitempty"`   // of the server, or of those who did the work; nil where unknown
}

// Memory is what processes held. What is not known is 0.
type Memory struct {
	// Peak is the largest resident set during the sample: of the server, or else of any process that did the work, which
	// before it executes has that of the bench (some 16 MiB).
	Peak   int64 `json:"peak"`
	Before int64 `json:"before,omitempty"`
	After  int64 `json:"after,omitempty"`

	FDs     int   `json:"fds,omitempty"`      // descriptors afterwards
	FDLimit int64 `json:"fd_limit,omitempty"` // that it could have had
	Objects int64 `json:"objects,omitempty"`  // that the workload has looked at
}

// A Skip is a system that was not measured, and why. System is empty for all, Workload for all.
type Skip struct {
	Workload string `json:"workload,omitempty"`
	System   string `json:"system,omitempty"`
	Why      string `json:"why"`
}

// Write writes the JSON form.
func (r *Report) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	return enc.Encode(r)
}

// Load reads the JSON form from a file.
//
// Errors: name the file and what is wrong with it, as when another version wrote it, or when it is no report at all.
func Load(path string) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Read reads the JSON form.
func Read(from io.Reader) (*Report, error) {
	var r Report
	dec := json.NewDecoder(from)
	if err := dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if dec.More() {
		return nil, errors.New("not a report: something follows it")
	}
	return &r, r.check()
}

func (r *Report) check() error {
	if r.Schema == 0 {
		return errors.New("not a report: it has no schema")
	}
	if r.Schema != Schema {
		return fmt.Errorf("schema %d: this version reads %d", r.Schema, Schema)
	}
	if name, twice := repeated(r.Workloads, func(w Workload) string { return w.Name }); twice {
		return fmt.Errorf("the workload %q is there twice", name)
	}
	if name, twice := repeated(r.Systems, func(s System) string { return s.Name }); twice {
		return fmt.Errorf("the system %q is there twice", name)
	}
	for i, s := range r.Samples {
		if err := r.checkSample(&s); err != nil {
			return fmt.Errorf("sample %d: %w", i, err)
		}
	}
	if name, twice := repeated(r.Samples, func(s Sample) string { return fmt.Sprintf("repetition %d of %s on %s", s.Rep+1, s.Workload, s.System) }); twice {
		return fmt.Errorf("there are two samples of %s", name)
	}
	return nil
}

func (r *Report) checkSample(s *Sample) error {
	what := s.Workload + " on " + s.System
	switch {
	case r.workload(s.Workload) == nil:
		return fmt.Errorf("there is no workload %q", s.Workload)
	case !slices.Contains(r.Systems, System{s.System}):
		return fmt.Errorf("there is no system %q", s.System)
	case s.Rep < 0:
		return fmt.Errorf("%s has an impossible repetition", what)
	case s.Wall < 0 || s.Client < 0 || s.Server < 0 || s.Wall == 0 && s.Incorrect == "":
		return fmt.Errorf("%s has impossible times", what)
	case s.Memory != nil && (s.Memory.Peak < 0 || s.Memory.Before < 0 || s.Memory.After < 0):
		return fmt.Errorf("%s has impossible memory", what)
	}
	for op, n := range s.Requests {
		if n < 0 {
			return fmt.Errorf("%s has an impossible number of %s", what, op)
		}
	}
	return nil
}

// repeated finds something whose name another has too.
func repeated[T any](list []T, name func(T) string) (string, bool) {
	seen := map[string]bool{}
	for _, e := range list {
		if seen[name(e)] {
			return name(e), true
		}
		seen[name(e)] = true
	}
	return "", false
}

// WriteFiles writes report.json, report.md, report.html and chart.svg into dir.
func (r *Report) WriteFiles(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(io.Writer) error{
		"report.json": r.Write, "report.md": r.Markdown, "report.html": r.HTML, "chart.svg": r.Chart,
	} {
		if err := writeFile(filepath.Join(dir, name), write); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// writeFile puts the file in place when it is whole: what was there before is lost only then.
func writeFile(path string, write func(io.Writer) error) error {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, path)
}

// cut says how far an interrupted run has come; empty for one that was not.
func (r *Report) cut() string {
	if r.Interrupted == 0 {
		return ""
	}
	return fmt.Sprintf("interrupted in repetition %d of %d", r.Interrupted, r.Reps)
}

func (r *Report) workload(name string) *Workload {
	for i := range r.Workloads {
		if r.Workloads[i].Name == name {
			return &r.Workloads[i]
		}
	}
	return nil
}

// Incorrect lists the samples whose results were wrong.
func (r *Report) Incorrect() (list []Sample) {
	for _, s := range r.Samples {
		if s.Incorrect != "" {
			list = append(list, s)
		}
	}
	return list
}

// Ours tells whether a system is of this project, with whatever options.
func Ours(system string) bool { return strings.HasPrefix(system, "lamina") }

// family is a system's name without its options.
func family(system string) string {
	name, _, _ := strings.Cut(system, ":")
	return name
}
