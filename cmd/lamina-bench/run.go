package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/bench/report"
	"github.com/laminafs/lamina/runtime/idmap"
)

// options are the flags of run.
type options struct {
	systems, workloads, users []string
	reps                      int
	out, dir, bin             string
	scale, ledger             string
	rootfs, cache             string
	noFio                     bool
}

// scales are the words for some.
var scales = map[string]float64{"full": 1, "small": 0.2, "tiny": 0.002}

func runCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "run [flags]",
		Short: "Take samples, and write report.json, report.md, report.html and chart.svg",
		Long: `Take samples of every workload on every system, interleaved, and write report.json, report.md, report.html and chart.svg.

An ordinary user measures the unions in a user namespace of his own. Mounts and processes are in namespaces of the run and
end with it, however it ends.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.OutOrStdout()) },
	}
	set := cmd.Flags()
	set.StringSliceVar(&o.systems, "systems", append(slices.Clone(bench.Unions), bench.Launchers...),
		"`names` of systems; laminafs may have mount options, as in laminafs:transport=loop+noacl")
	set.StringSliceVar(&o.workloads, "workloads", nil, "`patterns` of workloads or of their groups (default all; see lamina-bench list)")
	set.IntVar(&o.reps, "reps", 6, "how many `samples` of each; six are the fewest from which an interval can be told")
	set.StringVar(&o.out, "out", "bench/out", "`directory` for the report")
	set.StringVar(&o.scale, "scale", "full", "how many objects, and how large: full (1), small (0.2), tiny (0.002), or another `number`")
	set.StringVar(&o.dir, "dir", "/dev/shm", "`directory` on the filesystem to measure on")
	set.StringVar(&o.bin, "bin", "", "`directory` with lamina and laminafs (default that of lamina-bench)")
	set.StringSliceVar(&o.users, "user", nil, "ordinary `users` as whom root measures the launchers too")
	set.StringVar(&o.rootfs, "rootfs", "", "tar `file` of a system to work on (default a Debian, made by mmdebstrap once)")
	set.StringVar(&o.cache, "cache", "", "`directory` where that Debian is kept (default lamina-bench below the user's cache directory)")
	set.BoolVar(&o.noFio, "no-fio", false, "read and write big files by loops of our own, even where fio is installed")
	set.StringVar(&o.ledger, "ledger", "", "write an entry for bench/RESULTS.md too, ledger.md; the `text` says what changed")
	return cmd
}

// run measures and writes the report. That of an interrupted run has what is complete.
func (o *options) run(out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	outlivePipes()
	plan, err := o.plan(ctx)
	if err != nil {
		return err
	}
	removeStale(o.dir)
	if plan.Scratch, err = newScratch(o.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plan.Scratch.remove()) }()
	unmake, err := makeOut(o.out)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer unmake()
	r, err := o.measure(ctx, plan)
	if err != nil {
		return err
	}
	switch {
	case r.Interrupted > 0 && len(r.Samples) == 0:
		return fmt.Errorf("%w before anything was complete: there is no report", errInterrupted)
	case r.Interrupted > 0:
		if err := o.write(out, r); err != nil {
			return err
		}
		return fmt.Errorf("%w in repetition %d of %d: see %s", errInterrupted, r.Interrupted, r.Reps, filepath.Join(o.out, "report.md"))
	}
	if err := o.write(out, r); err != nil {
		return err
	}
	if len(r.Samples) == 0 {
		return fmt.Errorf("nothing could be measured: see %s", filepath.Join(o.out, "report.md"))
	}
	return o.judge(r)
}

// outlivePipes has a write to a pipe that nobody reads any more fail, as any other. Whoever looks at the beginning of what we say
// does not want a run to end, nor all that it has made to stay. Programs that we start die of it as ever: they would not if it
// were ignored.
func outlivePipes() { signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) }

// judge is errWorse where a result of ours is wrong, or of the plain directory, by which all others are judged. What peers do
// wrong is in the report, and nothing that anybody here could put right.
func (o *options) judge(r *report.Report) error {
	wrong := r.Incorrect()
	ours := slices.DeleteFunc(slices.Clone(wrong), func(s report.Sample) bool { return !report.Ours(s.System) && s.System != bench.Plain })
	path := filepath.Join(o.out, "report.md")
	if n := len(wrong) - len(ours); n > 0 {
		fmt.Fprintf(os.Stderr, "lamina-bench: wrong results of others: %d: see %s\n", n, path)
	}
	if len(ours) > 0 {
		return fmt.Errorf("wrong results: %d: see %s%w", len(ours), path, errWorse)
	}
	return nil
}

// measure runs the stages, up to the one that is interrupted.
func (o *options) measure(ctx context.Context, plan *plan) (*report.Report, error) {
	r := &report.Report{Schema: report.Schema, Reps: o.reps, Scale: plan.Scale}
	var err error
	if r.Machine, err = bench.Here(plan.Scratch.Dir, o.programs()); err != nil {
		return nil, err
	}
	id, err := idmap.Discover()
	if err != nil {
		return nil, err
	}
	if id.Kind != idmap.Root {
		r.Machine.Rootless = id.Kind.String()
	}
	for _, s := range plan.stages(id) {
		if err := s.run(ctx, id, r); err != nil {
			return nil, err
		}
		if r.Interrupted > 0 {
			break
		}
	}
	bench.End(&r.Machine)
	return r, nil
}

// plan checks the flags before anything is made.
func (o *options) plan(ctx context.Context) (*plan, error) {
	if o.reps < 1 {
		return nil, fmt.Errorf("--reps %d: at least one is needed", o.reps)
	}
	p := &plan{Systems: o.systems, Workloads: o.workloads, Reps: o.reps, NoFio: o.noFio}
	var err error
	if p.Scale, err = parseScale(o.scale); err != nil {
		return nil, err
	}
	if o.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		o.bin = filepath.Dir(self)
	}
	for _, path := range []*string{&o.bin, &o.dir, &o.rootfs} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	p.Bin = o.bin
	// The kernel tells of a mount by the path that has no links in it.
	if o.dir, err = filepath.EvalSymlinks(o.dir); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	if strings.ContainsAny(o.dir, `,:\`) {
		return nil, fmt.Errorf("--dir %q: a comma, a colon or a backslash has a meaning in mount options", o.dir)
	}
	for _, name := range o.users {
		c, err := caller(name)
		switch {
		case err != nil:
			return nil, err
		case c.UID == 0:
			return nil, fmt.Errorf("--user %s: that is no ordinary user", name)
		case slices.Contains(p.Callers, c):
			return nil, fmt.Errorf("--user: %s is there twice", name)
		}
		p.Callers = append(p.Callers, c)
	}
	if len(p.Callers) > 0 && os.Getuid() != 0 {
		return nil, errors.New("--user: only root can measure as somebody else")
	}
	if o.out == "" {
		return nil, errors.New("--out: it is empty")
	}
	if err := writable(o.out); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	some, err := p.check()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(some, func(w bench.Workload) bool { return w.NeedsRootfs() }) {
		o.findRootfs(ctx, p)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w before anything was measured", errInterrupted)
	}
	return p, nil
}

// writable says early what would be found out when everything is measured: that there can be no files in dir. It makes nothing.
func writable(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			dir = filepath.Dir(dir)
			continue
		case err != nil:
			return err
		case !info.IsDir():
			return &fs.PathError{Op: "write below", Path: dir, Err: unix.ENOTDIR}
		}
		if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return &fs.PathError{Op: "write below", Path: dir, Err: err}
		}
		return nil
	}
}

// makeOut makes the directory for the report, and looks at whether a file can be made in it: some filesystems allow it and
// refuse. What is returned removes the directory again if nothing is in it.
func makeOut(dir string) (unmake func(), err error) {
	unmake = func() {}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		unmake = func() { _ = os.Remove(dir) } // it may not be empty
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".report-")
	if err != nil {
		unmake()
		return nil, err
	}
	return unmake, errors.Join(f.Close(), os.Remove(f.Name()))
}

func parseScale(text string) (float64, error) {
	if n, ok := scales[text]; ok {
		return n, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n > 0 && n <= 100) { // nor is it NaN
		return 0, fmt.Errorf("--scale %q: full, small, tiny, or a number above 0 and up to 100", text)
	}
	return n, nil
}

// caller looks up an ordinary user.
func caller(name string) (c bench.Caller, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return c, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return c, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return c, fmt.Errorf("user %s: %w", name, err)
	}
	return bench.Caller{Name: u.Username, UID: uint32(uid), GID: uint32(gid)}, nil
}

// findRootfs gets the Debian system, while the network and all of the caller's ids are still there. Without one, what
// needs it is skipped.
func (o *options) findRootfs(ctx context.Context, p *plan) {
	if p.Rootfs = o.rootfs; p.Rootfs != "" {
		return
	}
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			p.NoRootfs = err.Error()
			return
		}
		o.cache = filepath.Join(dir, "lamina-bench")
	}
	fmt.Fprintln(os.Stderr, "looking for a Debian system in", o.cache)
	var err error
	if p.Rootfs, err = bench.Debian(ctx, o.cache); err != nil {
		p.Rootfs, p.NoRootfs = "", err.Error()
	}
}

// programs are those whose versions the report tells.
func (o *options) programs() map[string]string {
	all := map[string]string{}
	if !o.noFio {
		all["fio"] = "fio"
	}
	for _, name := range o.systems {
		family, _, _ := strings.Cut(name, ":")
		switch family {
		case bench.Plain, bench.Overlay:
		case bench.Laminafs, bench.Lamina:
			all[family] = filepath.Join(o.bin, family)
		default:
			all[family] = family
		}
	}
	return all
}

// write writes all files, and shows the tables.
func (o *options) write(out io.Writer, r *report.Report) error {
	if err := r.WriteFiles(o.out); err != nil {
		return errors.Join(fmt.Errorf("%w; the tables are all that is left of the run", err), r.Markdown(out))
	}
	return o.text(out, r)
}

// text shows the tables, or writes and shows the entry for the ledger.
func (o *options) text(out io.Writer, r *report.Report) error {
	if o.ledger == "" {
		return r.Markdown(out)
	}
	path := filepath.Join(o.out, "ledger.md")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(r.Ledger(io.MultiWriter(f, out), o.ledger), f.Close())
}
