package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	cgroupv1 "github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Options of New. The zero value is what a container wants.
type Options struct {
	// NoSystemd does not ask systemd for a scope where it could be had.
	NoSystemd bool

	// Parent is the cgroup that the container's lies in, below the top of each hierarchy for root, and below the caller's
	// own for others; with systemd the name of a slice. Empty is where all containers lie.
	Parent string
}

// Group is one container's cgroup. Its methods may be called from several goroutines.
type Group struct {
	id    string
	place place
	why   string  // why there is no cgroup; empty when there is one
	then  []limit // set by Narrow

	mu     sync.Mutex // guards mgr: the library's managers keep the resources they were given
	mgr    cgroups.Manager
	oom    *oomWatch // nil until OOM is called
	killed uint64    // OOM kills counted before the directory went
	gone   bool      // removed
}

// place is where a group lies; it is kept as the container's state.
type place struct {
	Version string            `json:"version"`
	Paths   map[string]string `json:"paths,omitempty"` // by controller; by "" alone on v2
	Unit    string            `json:"unit,omitempty"`  // systemd's scope around it
	Scope   string            `json:"scope,omitempty"` // the directory of that scope
}

// idPattern keeps an id to one path component and to what a unit's name may have.
var idPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`) })

// New makes the cgroup of container id and sets its limits; it has no processes yet. A limit to few processes is set by Narrow.
//
// On cgroup v2 the calling process may be moved to another cgroup (see the package comment): call it in the process that
// looks after the container, before that has children.
//
// Errors: *Unenforceable for a limit that cannot be had; then nothing was made.
func New(id string, r *specs.LinuxResources, o Options) (*Group, error) {
	if !idPattern().MatchString(id) {
		return nil, fmt.Errorf("cgroup: invalid id %q", id)
	}
	m, err := look()
	if err != nil {
		return nil, err
	}
	first, then := withRoom(r)
	limits, err := limitsOf(first)
	if err != nil {
		return nil, err
	}
	p, why := m.place(id, o)
	g := &Group{id: id, place: p, why: why, then: then}
	if len(p.Paths) == 0 {
		if len(limits) > 0 {
			return nil, &Unenforceable{Flag: limits[0].flag, Why: g.whyNot(limits[0].v1.controller)}
		}
		return g, nil
	}
	if err := g.open(); err != nil {
		return nil, err
	}
	if err := g.make(r, limits); err != nil {
		_ = g.Remove() // the error at hand is the one to tell
		return nil, err
	}
	return g, nil
}

// make makes the directories and sets what they limit.
func (g *Group) make(r *specs.LinuxResources, limits []limit) error {
	if g.v2() {
		if err := os.Mkdir(g.Path(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cgroup: %w", err)
		}
	} else if err := g.mgr.Apply(-1); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if err := g.set(limits); err != nil {
		return err
	}
	return g.setDevices(r)
}

// Narrow limits the group to fewer processes than those have threads that execute the container's command, which they are about to.
// Where no such limit was asked for it does nothing.
func (g *Group) Narrow() error { return g.set(g.then) }

// open makes the library's manager for the group's directories.
func (g *Group) open() error {
	var err error
	if g.v2() {
		g.mgr, err = fs2.NewManager(&cgroups.Cgroup{Resources: &cgroups.Resources{SkipDevices: true}}, g.place.Paths[unified])
		return err
	}
	_, devices := g.place.Paths["devices"]
	g.mgr, err = cgroupv1.NewManager(&cgroups.Cgroup{Resources: &cgroups.Resources{SkipDevices: !devices}}, maps.Clone(g.place.Paths))
	return err
}

// State is what Load needs to find the group again.
func (g *Group) State() json.RawMessage {
	b, err := json.Marshal(g.place)
	if err != nil {
		panic("cgroup: a place does not marshal: " + err.Error())
	}
	return b
}

// Load finds the group of a container that was started by another process: by the state that it kept, and by its id where
// that was lost. A group that is not there any more is one that does nothing.
func Load(id string, state json.RawMessage) (*Group, error) {
	if !idPattern().MatchString(id) {
		return nil, fmt.Errorf("cgroup: invalid id %q", id)
	}
	g := &Group{id: id}
	if len(state) > 0 && string(state) != "null" {
		if err := json.Unmarshal(state, &g.place); err != nil {
			return nil, fmt.Errorf("cgroup: state of %s: %w", id, err)
		}
	}
	if len(g.place.Paths) == 0 {
		m, err := look()
		if err != nil {
			return nil, err
		}
		g.place = m.find(id)
	}
	for c, p := range g.place.Paths {
		if _, err := os.Stat(p); err != nil {
			delete(g.place.Paths, c)
		}
	}
	if len(g.place.Paths) == 0 {
		g.why = "the container has none"
		g.gone = true
		return g, nil
	}
	return g, g.open()
}

func (g *Group) v2() bool { return g.place.Version == VersionV2 }

// none is the error of an operation on a group that has no directory.
func (g *Group) none(op string) error {
	if len(g.place.Paths) > 0 {
		return nil
	}
	return &Unavailable{Op: op, Why: g.why}
}

// whyNot is Why, for one who asks for a controller: on v1 each is given away by itself, and this one is enough.
func (g *Group) whyNot(controller string) string {
	if g.place.Version != VersionV1 || controller == "" {
		return g.why
	}
	return g.noController(controller)
}

// Why tells why there is no cgroup; it is empty when there is one.
func (g *Group) Why() string { return g.why }

// Paths are the group's directories by controller, or by "" alone on v2. None where there is no cgroup.
func (g *Group) Paths() map[string]string { return maps.Clone(g.place.Paths) }

// Path is the directory that has the container's processes: on v1 that of the first controller in the order in which they
// matter. Empty where there is no cgroup.
func (g *Group) Path() string {
	if g.v2() {
		return g.place.Paths[unified]
	}
	for _, c := range controllersV1 {
		if p, ok := g.place.Paths[c]; ok {
			return p
		}
	}
	return ""
}

// Add puts a process and its future children into the group.
func (g *Group) Add(pid int) error {
	if len(g.place.Paths) == 0 {
		return nil
	}
	for _, c := range slices.Sorted(maps.Keys(g.place.Paths)) {
		if err := cgroups.WriteCgroupProc(g.place.Paths[c], pid); err != nil {
			return fmt.Errorf("cgroup: %s: process %d: %w", g.place.Paths[c], pid, err)
		}
	}
	return nil
}

// Doors are how a process with a single thread, or a thread that is about to execute a program, enters the group by
// itself. To be put into it by somebody else (Add) takes as long as the kernel needs to stop all forks of the machine,
// some 10 ms (cgroup_attach_lock of kernel/cgroup/cgroup.c): a thread that moves itself, and a child that is born in its
// group, stop nobody.
type Doors struct {
	Tasks []*os.File // "tasks" of each hierarchy of v1: the thread writes "0"
	Dir   *os.File   // the directory of cgroup2 that a child is born in (CLONE_INTO_CGROUP); nil without
}

// Close closes the files.
func (d *Doors) Close() {
	for _, f := range append(d.Tasks, d.Dir) {
		_ = f.Close() // nothing was written, and nil is fine
	}
}

// Doors opens them. On v2 there are none: the group of a container that is limited to few processes has no room for the
// threads that make it.
func (g *Group) Doors() (_ *Doors, err error) {
	d := &Doors{}
	if g.v2() {
		return d, nil
	}
	defer func() {
		if err != nil {
			d.Close()
			err = fmt.Errorf("cgroup: %w", err)
		}
	}()
	for _, c := range slices.Sorted(maps.Keys(g.place.Paths)) {
		if c == unified {
			if d.Dir, err = os.Open(g.place.Paths[c]); err != nil {
				return nil, err
			}
			continue
		}
		f, err := os.OpenFile(filepath.Join(g.place.Paths[c], "tasks"), os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		d.Tasks = append(d.Tasks, f)
	}
	return d, nil
}

// Update changes the limits that r has, and leaves the others.
//
// Errors: *Unenforceable, and nothing is changed then.
func (g *Group) Update(r *specs.LinuxResources) error {
	limits, err := limitsOf(r)
	if err != nil || len(limits) == 0 {
		return err
	}
	if len(g.place.Paths) == 0 {
		return &Unenforceable{Flag: limits[0].flag, Why: g.whyNot(limits[0].v1.controller)}
	}
	var before []saved
	for _, l := range limits {
		before = append(before, g.save(l)...)
	}
	if err := g.set(limits); err != nil {
		restore(before)
		return err
	}
	return nil
}

// Pids are all processes of the group and of groups below it.
func (g *Group) Pids() ([]int, error) {
	if g.Path() == "" {
		return nil, nil
	}
	pids, err := cgroups.GetAllPids(g.Path())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil // systemd removes a scope as soon as nothing is left in it; ENODEV is for those who are reading it
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	slices.Sort(pids)
	return pids, nil
}

// remove removes a directory. A process is in its group for as long as the kernel takes its memory apart, which takes seconds
// where that is much, and is not listed there any more (kernel/cgroup/cgroup.c, css_task_iter_advance).
func remove(path string, deadline time.Time) error {
	for {
		err := cgroups.RemovePath(path)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// Remove removes the group, whose processes have ended; those that are just ending are waited for. What is not there is no
// error. The directory that all groups lie in stays, as Docker's does: making it costs as much as a group. Where systemd made a scope for it, that goes when the last process in it does.
func (g *Group) Remove() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.oom != nil {
		g.oom.close()
	}
	if len(g.place.Paths) == 0 {
		g.gone = true
	}
	if g.gone {
		return nil
	}
	g.countOOMLocked()
	paths, deadline := maps.Clone(g.place.Paths), time.Now().Add(killTimeout)
	var errs []error
	for c, p := range paths {
		if err := remove(p, deadline); err != nil {
			errs = append(errs, fmt.Errorf("cgroup %s: %w", c, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	g.gone = true
	return nil
}
