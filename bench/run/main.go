// Command run takes the benchmarks of package bench, as root, and writes a report as text and as JSON.
//
//	go run ./bench/run [-rounds N] [-run REGEXP] [-on SYSTEMS] [-memory | -launch [-user NAME]] [-dir DIR] [-out DIR]
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/internal/sysmon"
)

func main() {
	sysmon.Watch(nil, nil) // a pause of ours would be a figure of theirs
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var c config
	flag.IntVar(&c.rounds, "rounds", 5, "how many `samples` of each")
	flag.StringVar(&c.run, "run", "", "only the workloads whose name matches `regexp`")
	flag.StringVar(&c.on, "on", "plain,overlay,fuse-overlayfs,laminafs", "the `systems`")
	flag.BoolVar(&c.memory, "memory", false, "memory and descriptors on a million files, instead of times")
	flag.BoolVar(&c.launch, "launch", false, "the launcher beside its peers: starts of containers and loads of images, instead of mounts")
	flag.StringVar(&c.user, "user", "lamina-test", "with -launch, the ordinary `user` who calls, besides root; empty for nobody")
	flag.StringVar(&c.dir, "dir", "/dev/shm", "where to make the layers, a `directory` on the filesystem to measure on")
	flag.StringVar(&c.out, "out", "bench/out", "`directory` for report.txt and report.json")
	flag.StringVar(&c.binary, "laminafs", "bin/laminafs", "the `program`; with -launch, lamina is beside it")
	flag.StringVar(&c.options, "options", "", "more mount `options` for laminafs, with commas")
	flag.Float64Var(&c.scale, "scale", 1, "makes all trees larger or smaller, to try the benchmark itself")
	flag.Parse()
	if err := c.main(); err != nil {
		log.Fatal(err)
	}
}

type config struct {
	rounds                             int
	run, on, dir, out, binary, options string
	memory, launch                     bool
	user                               string
	scale                              float64
}

func (c *config) main() (err error) {
	if os.Getuid() != 0 {
		return fmt.Errorf("kernel overlayfs takes root: be root")
	}
	match, err := regexp.Compile(c.run)
	if err != nil {
		return err
	}
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(c.dir, "lamina-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if e := os.RemoveAll(scratch); err == nil {
			err = e
		}
	}()

	report := bench.Report{Rounds: c.rounds, Scale: c.scale}
	if report.Machine, err = bench.Here(scratch); err != nil {
		return err
	}
	report.Machine.Versions = map[string]string{bench.Laminafs: version(c.binary)}
	for _, peer := range c.peers() {
		report.Machine.Versions[peer] = version(peer)
	}
	suite := c.suite(match, scratch)
	switch {
	case c.launch:
		report.Launch, err = c.launcher(match, suite.Fixtures)
	case c.memory:
		report.Memory, err = bench.MeasureMemory(suite.Systems, suite.Fixtures, os.Stderr)
	default:
		report.Samples, err = suite.Run()
	}
	if err != nil {
		return err
	}
	report.Machine.End()
	if err := report.WriteText(os.Stdout); err != nil {
		return err
	}
	return c.save(&report)
}

// suite is what the flags ask for.
func (c *config) suite(match *regexp.Regexp, scratch string) *bench.Suite {
	var opts []string
	if c.options != "" {
		opts = strings.Split(c.options, ",")
	}
	s := &bench.Suite{Rounds: c.rounds, Fixtures: &bench.Fixtures{Dir: scratch, Scale: c.scale}, Progress: os.Stderr}
	on := strings.Split(c.on, ",")
	for _, sys := range bench.Systems(c.binary, opts...) {
		if slices.Contains(on, sys.Name) {
			s.Systems = append(s.Systems, sys)
		}
	}
	for _, w := range bench.Workloads {
		if match.MatchString(w.Name) {
			s.Workloads = append(s.Workloads, w)
		}
	}
	return s
}

// save writes the report to files.
func (c *config) save(r *bench.Report) error {
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return err
	}
	name := "report"
	switch {
	case c.launch:
		name = "launch"
	case c.memory:
		name = "memory"
	}
	for ext, write := range map[string]func(f *os.File) error{
		".txt":  func(f *os.File) error { return r.WriteText(f) },
		".json": func(f *os.File) error { return r.WriteJSON(f) },
	} {
		f, err := os.OpenFile(filepath.Join(c.out, name+ext), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := write(f); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// version is the line in which a program tells its version.
func version(program string) string {
	out, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(out)) {
		if strings.ContainsAny(line, "0123456789") {
			return strings.TrimSpace(line)
		}
	}
	return "unknown"
}
