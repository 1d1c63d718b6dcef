package uniontest

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// callLimit is how long one command of a script may take. None that works needs a hundredth of it, but one that waits for the disk.
const callLimit = time.Minute

// Config is one way to run scripts.
type Config struct {
	System   System
	Who      Identity
	Format   string // of whiteouts: wh or overlay
	Redirect bool
}

func (c Config) String() string {
	if c.System == Overlay {
		return "kernel-overlay"
	}
	name := fmt.Sprintf("%s-%s-%s", c.System, c.Format, c.Who)
	if c.Redirect {
		name += "-redirect"
	}
	return name
}

// words are the conditions that hold in c.
func (c Config) words() map[string]bool {
	w := map[string]bool{c.Format: true, string(c.Who): true, "redirect": c.Redirect, string(c.System): true}
	if c.System == Overlay {
		w = map[string]bool{"kernel": true, "overlay": true, "root": true, "redirect": true}
	}
	return w
}

func (c Config) holds(cond []string) bool {
	words := c.words()
	for _, w := range cond {
		if name, not := strings.CutPrefix(w, "!"); words[name] == not {
			return false
		}
	}
	return true
}

func (c Config) options() []string {
	switch c.System {
	case Laminafs:
		onOff := map[bool]string{true: "on", false: "off"}
		return []string{"whiteout=" + c.Format, "redirect_dir=" + onOff[c.Redirect]}
	}
	return nil
}

func (c Config) spelling() spelling {
	switch {
	case c.System == Overlay:
		return spellKernel
	case c.Format == "wh":
		return spellWH
	}
	return spellOverlay
}

// variants are the ways to run s under c: none where c cannot run it.
func (s *Script) variants(c Config) []Config {
	name := string(c.System)
	switch {
	case len(s.Only) > 0 && !slices.Contains(s.Only, name),
		s.Needs == "root" && c.Who != Root,
		s.Needs == "chown" && c.Who == User,
		s.Format != "" && s.Format != c.Format,
		c.Who != Root && s.usesMark(func(m string) bool { return m == "opaque-trusted" }):
		return nil
	}
	if c.System == Overlay {
		// The kernel reads its own marks only, and has none of our options.
		foreign := func(m string) bool {
			return slices.Contains([]string{"wh", "opq", "opq-legacy", "opaque-fo", "opaque-user"}, m)
		}
		if len(s.Opts) > 0 || s.Redirect == "off" || s.usesMark(foreign) {
			return nil
		}
		return []Config{c}
	}
	on, off := c, c
	on.Redirect, off.Redirect = true, false
	switch s.Redirect {
	case "on":
		return []Config{on}
	case "off":
		return []Config{off}
	case "both":
		return []Config{off, on}
	}
	return []Config{c}
}

// run is one script in one configuration.
type run struct {
	t  testing.TB
	s  *Script
	c  Config
	l  *Layers
	m  *Mount
	up bool // the session has the merged directory open

	universe []string // every path that is in some layer
}

// Run performs s under c by the helper h, whose identity is that of c.
func (s *Script) Run(t testing.TB, c Config, h *Helper) {
	t.Helper()
	lowers := 1
	for i := range s.Lowers {
		lowers = max(lowers, i)
	}
	if s.ReadOnly && c.System == Overlay {
		lowers = max(lowers, 2) // it takes no single layer
	}
	r := &run{t: t, s: s, c: c, l: NewLayers(t, lowers, h)}
	r.build()
	if s.ReadOnly {
		r.l.Upper, r.l.Work = "", ""
	}
	r.m = Start(t, c.System, r.l, append(c.options(), s.Opts...)...)
	t.Cleanup(func() { // before the unmount
		if r.up {
			_ = r.call(scriptRequest{Do: "end"}, nil)
		}
	})
	r.begin()
	for _, st := range s.Steps {
		if c.holds(st.Cond) {
			r.step(st)
		}
	}
	r.end()
}

func (r *run) call(req scriptRequest, reply *scriptReply) error {
	req.Merged = r.l.Merged
	if reply == nil {
		reply = new(scriptReply)
	}
	err := r.l.helper.call(callLimit, "script", req, reply)
	if errors.Is(err, errHung) && r.m.Pid() != 0 {
		r.m.Dump()
		r.m.Kill() // lets the call go
	}
	return err
}

func (r *run) begin() {
	r.t.Helper()
	if err := r.call(scriptRequest{Do: "begin"}, nil); err != nil {
		r.t.Fatalf("open the merged directory: %v", err)
	}
	r.up = true
}

func (r *run) build() {
	r.t.Helper()
	all := map[string]bool{}
	for i := range len(r.l.Lowers) + 1 {
		dir, entries := r.l.Upper, r.s.Upper
		if i > 0 {
			dir, entries = r.l.Lowers[i-1], r.s.Lowers[i]
		}
		req := buildRequest{Dir: dir, Entries: entries, Spelling: r.c.spelling()}
		if err := r.l.helper.call(callLimit, "build", req, nil); err != nil {
			r.t.Fatalf("%s.txt:%d: build layer: %v", r.s.File, r.s.Line, err)
		}
		objects, err := listUpper(r.l.helper, dir)
		if err != nil {
			r.t.Fatalf("list layer: %v", err)
		}
		for _, o := range objects {
			all[o.Path] = true
		}
	}
	for p := range all {
		r.universe = append(r.universe, p)
	}
	sort.Strings(r.universe)
}

func listUpper(h *Helper, dir string) ([]object, error) {
	var reply scriptReply
	err := h.call(callLimit, "script", scriptRequest{Do: "list", Args: []string{dir}}, &reply)
	return reply.Objects, err
}

func (r *run) list() ([]object, error) {
	var reply scriptReply
	err := r.call(scriptRequest{Do: "list", Args: []string{r.l.Merged}}, &reply)
	return reply.Objects, err
}

func (r *run) errorf(st Step, format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("%s.txt:%d: %s: %s", r.s.File, st.Line, st.text(), fmt.Sprintf(format, args...))
}

func (st Step) text() string {
	if st.Raw != "" {
		return "sh " + st.Raw
	}
	return strings.TrimSpace(st.Do + " " + strings.Join(st.Args, " "))
}

func (r *run) step(st Step) {
	r.t.Helper()
	switch st.Do {
	case "merged":
		r.checkMerged(st)
	case "upper":
		r.checkUpper(st)
	case "remount":
		r.remount(st.Args...)
	case "kill":
		_ = r.call(scriptRequest{Do: "end"}, nil)
		r.m.Kill()
		r.m.Remount()
		r.begin()
	case "sh":
		r.shell(st)
	default:
		r.command(st)
	}
}

func (r *run) remount(opts ...string) {
	r.t.Helper()
	if err := r.call(scriptRequest{Do: "release"}, nil); err != nil {
		r.t.Fatal(err)
	}
	r.m.Remount(append(append(r.c.options(), r.s.Opts...), opts...)...)
	r.begin()
}

func (r *run) shell(st Step) {
	r.t.Helper()
	env := []string{"M=" + r.l.Merged, "UPPER=" + r.l.Upper, "WORK=" + r.l.Work}
	for i, dir := range r.l.Lowers {
		env = append(env, fmt.Sprintf("LOWER%d=%s", i+1, dir))
	}
	var reply scriptReply
	if err := r.call(scriptRequest{Do: "sh", Raw: st.Raw, Env: env}, &reply); err != nil {
		r.t.Fatalf("%s.txt:%d: %s: %v", r.s.File, st.Line, st.text(), err)
	}
	code := 0
	if len(st.Expect) == 2 && st.Expect[0] == "exit" {
		fmt.Sscan(st.Expect[1], &code)
	}
	switch {
	case reply.Code != code:
		r.errorf(st, "status %d\n%s", reply.Code, reply.Out)
	case code == 0 && st.Expect != nil && strings.Join(st.Expect, " ") != reply.Out:
		r.errorf(st, "want %q\nhave %q", strings.Join(st.Expect, " "), reply.Out)
	}
}

// command performs a command and checks what it returned: an errno where one is expected, else success, and the
// output where some is.
func (r *run) command(st Step) {
	r.t.Helper()
	var reply scriptReply
	err := r.call(scriptRequest{Do: st.Do, Args: st.Args}, &reply)
	if len(st.Expect) == 1 && isErrno(st.Expect[0]) {
		for name := range strings.SplitSeq(st.Expect[0], "|") {
			if errors.Is(err, errnoByName(name)) {
				return
			}
		}
		if err == nil {
			r.errorf(st, "succeeded, want %s (output %q)", st.Expect[0], reply.Out)
		} else {
			r.errorf(st, "%v, want %s", err, st.Expect[0])
		}
		return
	}
	if err != nil {
		r.errorf(st, "%v", err)
		r.t.FailNow()
	}
	if st.Expect == nil {
		return
	}
	if st.Do == "stat" || st.Do == "fstat" {
		have := strings.Fields(reply.Out)
		for _, want := range st.Expect {
			if !slices.Contains(have, want) {
				r.errorf(st, "want %s, have %s", want, reply.Out)
			}
		}
		return
	}
	want := strings.Join(st.Expect, " ")
	if c, err := content(want); err == nil {
		want = shown([]byte(c))
	}
	if want != reply.Out {
		r.errorf(st, "\nwant %q\nhave %q", want, reply.Out)
	}
}

func isErrno(s string) bool {
	for name := range strings.SplitSeq(s, "|") {
		if errnoByName(name) == 0 {
			return false
		}
	}
	return true
}

func errnoByName(name string) syscall.Errno {
	if !strings.HasPrefix(name, "E") {
		return 0
	}
	for e := syscall.Errno(1); e < 134; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	switch name { // second names
	case "EOPNOTSUPP":
		return unix.EOPNOTSUPP
	case "EWOULDBLOCK":
		return unix.EWOULDBLOCK
	}
	return 0
}

func (r *run) checkMerged(st Step) {
	r.t.Helper()
	objects, err := r.list()
	if err != nil {
		r.errorf(st, "%v", err)
		return
	}
	var got []Entry
	for _, o := range objects {
		got = append(got, o.entry())
	}
	problems := compareTrees(st.Tree, got, true)
	problems = append(problems, linkProblems(st.Tree, objects)...)
	problems = append(problems, inodeProblems(r.c.System, objects)...)
	problems = append(problems, r.hiddenProblems(objects)...)
	if len(problems) > 0 {
		r.errorf(st, "\n  %s", strings.Join(problems, "\n  "))
	}
}

// linkProblems compares inode numbers where the expectation says that a name is another's hard link.
func linkProblems(want []Entry, objects []object) []string {
	inos := map[string]uint64{}
	for _, o := range objects {
		inos[o.Path] = o.Ino
	}
	var out []string
	for _, e := range want {
		if e.Type == 'h' && inos[e.Path] != inos[e.Target] {
			out = append(out, fmt.Sprintf("%s and %s are two files", e.Path, e.Target))
		}
	}
	return out
}

// inodeProblems looks at what is wrong whatever the tree: readdir and stat disagree, two objects share a number, a
// link count is less than the names there are.
func inodeProblems(sys System, objects []object) []string {
	var out []string
	names := map[uint64][]object{}
	for _, o := range objects {
		names[o.Ino] = append(names[o.Ino], o)
		if o.Err != "" {
			out = append(out, fmt.Sprintf("%s: %s", o.Path, o.Err))
		}
		if o.Dev != objects[0].Dev {
			out = append(out, fmt.Sprintf("%s: st_dev %#x differs from the root's %#x", o.Path, o.Dev, objects[0].Dev))
		}
		if o.Path == "." {
			continue
		}
		if o.DIno != o.Ino && sys != Overlay { // it gives one layer's number for some merged directories
			out = append(out, fmt.Sprintf("%s: d_ino %d, st_ino %d", o.Path, o.DIno, o.Ino))
		}
		if want := uint8(o.Mode & unix.S_IFMT >> 12); o.DType != want {
			out = append(out, fmt.Sprintf("%s: d_type %d, st_mode says %d", o.Path, o.DType, want))
		}
	}
	for ino, all := range names {
		if len(all) == 1 {
			continue
		}
		var paths []string
		for _, o := range all {
			paths = append(paths, o.Path)
		}
		if all[0].Mode&unix.S_IFMT == unix.S_IFDIR || all[0].Nlink < uint64(len(all)) {
			out = append(out, fmt.Sprintf("%v have one inode number %d and st_nlink %d", paths, ino, all[0].Nlink))
		}
	}
	sort.Strings(out)
	return out
}

// hiddenProblems looks up by name everything that is in a layer and not in the listing: it must not be there.
func (r *run) hiddenProblems(objects []object) []string {
	shown, links := map[string]bool{}, map[string]bool{}
	for _, o := range objects {
		shown[o.Path] = true
		links[o.Path] = o.Mode&unix.S_IFMT == unix.S_IFLNK
	}
	var absent []string
	for _, p := range r.universe {
		aside := false // by a symbolic link, to where it may well be
		for dir := path.Dir(p); dir != "." && !aside; dir = path.Dir(dir) {
			aside = links[dir]
		}
		if !shown[p] && !aside {
			absent = append(absent, p)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	var reply scriptReply
	if err := r.call(scriptRequest{Do: "absent", Args: absent}, &reply); err != nil {
		return []string{err.Error()}
	}
	if reply.Out == "" {
		return nil
	}
	return []string{"found by name but not listed: " + reply.Out}
}

func (r *run) checkUpper(st Step) {
	r.t.Helper()
	objects, err := listUpper(r.l.helper, r.l.Upper)
	if err != nil {
		r.errorf(st, "%v", err)
		return
	}
	got, how := abstract(objects)
	if r.c.System == Overlay {
		// It marks every directory that it makes as opaque, also where there is nothing to hide: leave those out.
		for i, e := range got {
			w := slices.IndexFunc(st.Tree, func(w Entry) bool { return w.Path == e.Path && w.Type == 'd' })
			if w < 0 || !slices.Contains(st.Tree[w].Marks, "opaque") {
				got[i].Marks = slices.DeleteFunc(e.Marks, func(m string) bool { return m == "opaque" && e.Type == 'd' })
				if len(got[i].Marks) == 0 {
					got[i].Marks = nil
				}
			}
		}
	}
	problems := compareTrees(st.Tree, got, false)
	problems = append(problems, linkProblems(st.Tree, objects)...)
	marked := slices.ContainsFunc(r.s.Upper, func(e Entry) bool { return e.Marks != nil })
	for format := range how {
		if format != r.c.Format && !marked {
			problems = append(problems, fmt.Sprintf("a mark is written in format %s, the mount's is %s", format, r.c.Format))
		}
	}
	if len(problems) > 0 {
		r.errorf(st, "\n  %s", strings.Join(problems, "\n  "))
	}
}

// end compares what is there before and after a remount: nothing may differ, inode numbers included.
func (r *run) end() {
	r.t.Helper()
	if err := r.call(scriptRequest{Do: "end"}, nil); err != nil {
		r.t.Error(err)
	}
	r.up = false
	if r.t.Failed() || r.s.Damaged {
		return
	}
	before, err := r.list()
	if err != nil {
		r.t.Errorf("%s.txt:%d: at the end: %v", r.s.File, r.s.Line, err)
		return
	}
	r.m.Remount()
	after, err := r.list()
	if err != nil {
		r.t.Errorf("%s.txt:%d: after a remount: %v", r.s.File, r.s.Line, err)
		return
	}
	problems := inodeProblems(r.c.System, after)
	old := map[string]object{}
	for _, o := range before {
		old[o.Path] = o
	}
	for _, o := range after {
		b, ok := old[o.Path]
		delete(old, o.Path)
		line, was := o.line(), b.line()
		switch {
		case !ok:
			problems = append(problems, "appears: "+line)
		case line != was:
			problems = append(problems, "was "+was, "is  "+line)
		}
	}
	for p := range old {
		problems = append(problems, "disappears: "+p)
	}
	if len(problems) > 0 {
		r.t.Errorf("%s.txt:%d: a remount changes the tree:\n  %s", r.s.File, r.s.Line, strings.Join(problems, "\n  "))
	}
}

// line is all of o that a remount must not change.
func (o object) line() string {
	nlink := ""
	if o.Mode&unix.S_IFMT != unix.S_IFDIR {
		nlink = fmt.Sprintf(" nlink=%d", o.Nlink)
	}
	return fmt.Sprintf("%s ino=%d%s", o.entry().only(Entry{Mode: opt{Set: true}, UID: opt{Set: true}, Mtime: opt{Set: true}}), o.Ino, nlink)
}

// scriptDir is where the cases are, seen from this package.
const scriptDir = "testdata/scripts"

// Differences writes the generated part of docs/DIFFERENCES.md: every case that names a system it is not for.
func Differences(scripts []*Script) string {
	var b strings.Builder
	var systems []string
	for _, s := range scripts {
		for sys := range s.NotOn {
			if !slices.Contains(systems, sys) {
				systems = append(systems, sys)
			}
		}
	}
	slices.Sort(systems)
	for _, sys := range systems {
		fmt.Fprintf(&b, "\n| Layer script | What laminafs does | Why %s differs |\n|---|---|---|\n", sys)
		for _, s := range scripts {
			if why := s.NotOn[sys]; why != "" {
				cell := strings.NewReplacer("|", `\|`)
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", path.Join(s.File, s.Name), cell.Replace(s.Doc), cell.Replace(why))
			}
		}
	}
	return b.String()
}

var differencesFile = filepath.Join("..", "..", "docs", "DIFFERENCES.md")
