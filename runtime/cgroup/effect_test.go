package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type specsResources = specs.LinuxResources

func ptr[T any](v T) *T { return &v }

// needGroups says what is missing where this user can have no cgroups.
func needGroups(t *testing.T, controllers ...string) {
	t.Helper()
	info := Probe()
	for _, c := range controllers {
		if !slices.Contains(info.Controllers, c) {
			t.Skipf("needs the %s controller: %s", c, strings.Join(info.Missing, " "))
		}
	}
	if len(info.Controllers) == 0 {
		t.Skipf("needs a cgroup: %s", strings.Join(info.Missing, " "))
	}
}

func TestMemoryLimitKills(t *testing.T) {
	needGroups(t, "memory")
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(64 << 20))}})
	oom := g.OOM()
	h := start(t, "allocate", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if g.OOMKilled() {
		t.Error("OOMKilled before anything ran")
	}
	h.run()
	ws := h.wait().Sys().(syscall.WaitStatus)
	if !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("256 MiB within 64 MiB: %v\n%s", h.ProcessState, h.stdout.String())
	}
	if !g.OOMKilled() {
		t.Error("OOMKilled is false")
	}
	select {
	case <-oom:
	case <-time.After(20 * time.Second):
		t.Error("no OOM event")
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if !g.OOMKilled() {
		t.Error("OOMKilled is false after Remove")
	}
	if _, open := <-oom; open {
		<-oom // one event more may have been waiting
	}
}

func TestNoOOMWithinTheLimit(t *testing.T) {
	needGroups(t, "memory")
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(512 << 20))}})
	h := start(t, "allocate", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	h.run()
	if s := h.wait(); !s.Success() {
		t.Fatalf("256 MiB within 512 MiB: %v\n%s", s, h.stdout.String())
	}
	if g.OOMKilled() {
		t.Error("OOMKilled")
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.MemoryStats.Limit != 512<<20 {
		t.Errorf("limit in stats is %d", s.MemoryStats.Limit)
	}
}

// newPIDNamespace is one of its own, so that the end of its first process ends all others, whatever went wrong.
func newPIDNamespace() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}

// TestNarrow: a limit that would keep a program of Go from beginning comes when it has begun.
func TestNarrow(t *testing.T) {
	needGroups(t, "pids")
	for _, limit := range []int64{1, roomToBegin - 1, roomToBegin, roomToBegin + 1, -1} {
		g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}})
		want := strconv.FormatInt(limit, 10)
		if limit < 0 {
			want = "max"
		}
		first := want
		if limit > 0 && limit < roomToBegin {
			first = strconv.Itoa(roomToBegin)
		}
		if got := readFile(t, g, "pids.max"); got != first {
			t.Errorf("%d: it begins with %s, want %s", limit, got, first)
		}
		h := start(t, "fork", newPIDNamespace()) // which has more threads than one
		if err := errors.Join(g.Add(h.Process.Pid), g.Narrow()); err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, g, "pids.max"); got != want {
			t.Errorf("%d: then %s, want %s", limit, got, want)
		}
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Error(err)
		}
	}
}

func TestPidsLimitStopsForks(t *testing.T) {
	needGroups(t, "pids")
	const limit = 40
	g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(limit))}})
	h := start(t, "fork", newPIDNamespace())
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	h.run()
	until(t, "a fork is refused", func() bool { return readFile(t, g, "pids.events") != "max 0" })
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.PidsStats.Limit != limit || s.PidsStats.Current > limit || s.PidsStats.Current < limit/2 {
		t.Errorf("stats: %+v with a limit of %d", s.PidsStats, limit)
	}
	pids, err := g.Pids()
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) < limit/2 || len(pids) > limit {
		t.Errorf("%d processes with a limit of %d", len(pids), limit)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) > 0 {
		t.Errorf("after Kill: %v, %v", pids, err)
	}
	h.wait()
}

// The share is counted in CPU time, over a time in which a loop without a limit would have used several times as much.
func TestCPUQuotaThrottles(t *testing.T) {
	needGroups(t, "cpu")
	g := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10000)), Period: ptr(uint64(100000))}})
	h := start(t, "spin", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	h.run()
	begin := time.Now()
	until(t, "periods were throttled", func() bool {
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.CPUStats.ThrottlingData.ThrottledPeriods >= 3
	})
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	used := time.Duration(s.CPUStats.CPUUsage.TotalUsage)
	if wall := time.Since(begin); used > wall/3 {
		t.Errorf("a tenth of a CPU was to be used: %v of CPU time in %v", used, wall)
	}
	if s.CPUStats.SystemUsage == 0 || s.CPUStats.OnlineCPUs == 0 {
		t.Errorf("stats lack the machine's: %+v", s.CPUStats)
	}
}

func TestUpdateRaisesTheQuota(t *testing.T) {
	needGroups(t, "cpu", "pids")
	g := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10000)), Period: ptr(uint64(100000))}})
	if err := g.Update(&specs.LinuxResources{
		CPU:  &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Shares: ptr(uint64(512))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(77))},
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"cpu.cfs_quota_us": "50000", "cpu.shares": "512", "pids.max": "77"}
	if g.v2() {
		want = map[string]string{"cpu.max": "50000 100000", "cpu.weight": "59", "pids.max": "77"}
	}
	for name, value := range want {
		if got := readFile(t, g, name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if err := g.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, g, "pids.max"); got != "max" {
		t.Errorf("unlimited pids.max is %q", got)
	}
}

// TestUpdateAllOrNothing: where one limit cannot be had, those that came before it are as they were.
func TestUpdateAllOrNothing(t *testing.T) {
	needGroups(t, "cpu", "pids", "memory", "cpuset")
	g := newGroup(t, &specs.LinuxResources{
		CPU:  &specs.LinuxCPU{Quota: ptr(int64(10000)), Period: ptr(uint64(100000))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(50))},
	})
	names := []string{"cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "pids.max", "memory.limit_in_bytes", "cpuset.cpus"}
	if g.v2() {
		names = []string{"cpu.max", "cpu.weight", "pids.max", "memory.max", "memory.swap.max", "cpuset.cpus"}
	} else if g.limitsSwap() {
		names = append(names, "memory.memsw.limit_in_bytes")
	}
	state := func() (all []string) {
		for _, name := range names {
			all = append(all, name+" "+readFile(t, g, name))
		}
		return all
	}
	before := state()
	for _, memory := range []int64{64 << 20, 128 << 20} { // more and less than what is restored
		err := g.Update(&specs.LinuxResources{
			CPU:    &specs.LinuxCPU{Quota: ptr(int64(7000)), Period: ptr(uint64(50000)), Shares: ptr(uint64(77)), Cpus: "4095"},
			Memory: &specs.LinuxMemory{Limit: &memory, Swap: &memory},
			Pids:   &specs.LinuxPids{Limit: ptr(int64(7))},
		})
		var refused *Unenforceable
		if !errors.As(err, &refused) || refused.Flag != "--cpuset-cpus" {
			t.Errorf("processors that there are none: %v", err)
		}
		if after := state(); !slices.Equal(after, before) {
			t.Errorf("after a refusal\n%q, before\n%q", after, before)
		}
		if err := g.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(96 << 20)), Swap: ptr(int64(96 << 20))}}); err != nil {
			t.Fatal(err)
		}
		before = state()
	}
}

// readFile reads a control file of the group, from the directory of the controller that the name begins with.
func readFile(t *testing.T, g *Group, name string) string {
	t.Helper()
	dir := g.Path()
	if !g.v2() {
		controller, _, _ := strings.Cut(name, ".")
		dir = g.Paths()[controller]
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestFreezerHasPatience: who has to wait for a CPU before it can stand still, stands still when it has had it.
func TestFreezerHasPatience(t *testing.T) {
	if needGroups(t, "cpu"); Probe().Version != VersionV2 {
		needGroups(t, "freezer")
	}
	g := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(1000)), Period: ptr(uint64(1000000))}})
	h := start(t, "spin", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	h.run()
	for range 3 {
		before, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		until(t, "it has used up its share", func() bool {
			s, err := g.Stats()
			if err != nil {
				t.Fatal(err)
			}
			return s.CPUStats.ThrottlingData.ThrottledPeriods > before.CPUStats.ThrottlingData.ThrottledPeriods
		})
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		if frozen, err := g.Frozen(); err != nil || !frozen {
			t.Errorf("frozen: %v, %v", frozen, err)
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRemoveWaits: a process whose memory takes long to be taken apart is in its group until then.
func TestRemoveWaits(t *testing.T) {
	needGroups(t)
	g := newGroup(t, nil)
	h := start(t, "spin", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	h.run()
	ended := time.AfterFunc(2*time.Second, func() { _ = h.Process.Kill() })
	defer ended.Stop()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	h.wait()
}

func TestFreezerStopsACounter(t *testing.T) {
	if info := Probe(); info.Version != VersionV2 {
		needGroups(t, "freezer")
	} else {
		needGroups(t)
	}
	g := newGroup(t, nil)
	file := filepath.Join(t.TempDir(), "counter")
	if err := os.WriteFile(file, make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	h := start(t, "count", nil, "COUNTER="+file)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	h.run()
	read := func() uint64 {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return binary.NativeEndian.Uint64(b)
	}
	until(t, "the counter runs", func() bool { return read() > 1000 })

	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("Frozen: %v, %v", frozen, err)
	}
	stopped := read()
	before, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(200 * time.Millisecond) // thousands of counts for one that runs
	if n := read(); n != stopped {
		t.Errorf("frozen, it counted from %d to %d", stopped, n)
	}
	after, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	// One that stands still may have its last moments charged yet.
	if used := time.Duration(after.CPUStats.CPUUsage.TotalUsage - before.CPUStats.CPUUsage.TotalUsage); used > 20*time.Millisecond {
		t.Errorf("a frozen group used %v of CPU time", used)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	until(t, "the counter runs on", func() bool { return read() > stopped+1000 })

	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Fatalf("kill of a frozen group: %v", err)
	}
	if ws := h.wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("killed: %v", h.ProcessState)
	}
}

func TestCPUSet(t *testing.T) {
	needGroups(t, "cpuset")
	g := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}})
	h := start(t, "sleep", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	until(t, "the process may use CPU 0 only", func() bool {
		b, err := os.ReadFile(filepath.Join("/proc", itoa(h.Process.Pid), "status"))
		return err == nil && strings.Contains(string(b), "Cpus_allowed_list:\t0\n")
	})
	_, err := New(testID(t)+"-none", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4095"}}, options())
	var u *Unenforceable
	if !errors.As(err, &u) || u.Flag != "--cpuset-cpus" || !strings.Contains(u.Why, "requested CPUs are not available") {
		t.Errorf("CPU 4095: %v", err)
	}
	if left, err := Load(testID(t)+"-none", nil); err != nil || left.Path() != "" {
		t.Errorf("a refused group is left at %s (%v)", left.Path(), err)
	}
}

// Another process finds the group by what was kept, or by its id alone, and ends it.
func TestLoadFindsAndEnds(t *testing.T) {
	needGroups(t)
	for _, by := range []string{"state", "id"} {
		t.Run(by, func(t *testing.T) {
			g := newGroup(t, nil)
			h := start(t, "sleep", nil)
			if err := g.Add(h.Process.Pid); err != nil {
				t.Fatal(err)
			}
			state := g.State()
			if by == "id" {
				state = nil
			}
			found, err := Load(g.id, state)
			if err != nil {
				t.Fatal(err)
			}
			if found.Path() != g.Path() {
				t.Fatalf("found at %q, not at %q", found.Path(), g.Path())
			}
			if err := found.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := found.Remove(); err != nil {
				t.Fatal(err)
			}
			if ws := h.wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
				t.Errorf("killed: %v", h.ProcessState)
			}
			again, err := Load(g.id, g.State())
			if err != nil {
				t.Fatal(err)
			}
			if again.Path() != "" || again.Kill() != nil || again.Remove() != nil {
				t.Errorf("a removed group is found at %q", again.Path())
			}
		})
	}
}

// What a killed monitor leaves is found by the container's id, ended and removed; systemd's scope goes with it.
func TestAfterTheMonitorWasKilled(t *testing.T) {
	needGroups(t)
	id := testID(t)
	said, err := os.OpenFile(filepath.Join(t.TempDir(), "said"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	h := start(t, "monitor", nil, "MONITORED="+id, "SAY="+said.Name())
	h.run()
	var pid int
	until(t, "the monitor has a container", func() bool {
		b, err := os.ReadFile(said.Name())
		if err != nil {
			t.Fatal(err)
		}
		n, _ := fmt.Sscanf(string(b), "running %d\n", &pid)
		return n == 1
	})
	if err := h.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	h.wait()

	g, err := Load(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Pids(); err != nil || len(pids) != 1 || pids[0] != pid {
		t.Errorf("left by the monitor: %v at %q (%v), want %d", pids, g.Path(), err, pid)
	}
	if info := Probe(); info.Driver == "systemd" && !options().NoSystemd && g.place.Unit != unitName(id) {
		t.Errorf("not in a scope of systemd's: %+v", g.place)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(slices.Collect(maps.Values(g.Paths())), g.place.Scope) {
		until(t, dir+" is gone", func() bool {
			_, err := os.Stat(dir)
			return errors.Is(err, os.ErrNotExist)
		})
	}
}

func TestRefusedLimitsNameFlagAndReason(t *testing.T) {
	needGroups(t)
	tests := []struct {
		name, flag, why string
		r               specs.LinuxResources
		v1, v2          bool // whether that version has it
	}{
		{"swappiness", "--memory-swappiness", "cgroup v2 has no such limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(10))}}, true, false},
		{"oom-kill-disable", "--oom-kill-disable", "cgroup v2 has no such limit", specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}, true, false},
		{"unified", "memory.high", "cgroup v1 has no such limit", specs.LinuxResources{Unified: map[string]string{"memory.high": "1000000"}}, false, true},
		{"hugetlb", "hugetlb 3MB", "", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 1}}}, false, false},
	}
	if weightWorks("", false) != "" {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.flag, last.why, last.v1 = "blkio-weight", "--blkio-weight", "", false
		last.r = specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(100))}}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v2 := Probe().Version == VersionV2
			if v2 && tt.v2 || !v2 && tt.v1 {
				return // it is had here
			}
			g, err := New(testID(t), &tt.r, options())
			var u *Unenforceable
			if !errors.As(err, &u) {
				t.Fatalf("got %v, %v", g, err)
			}
			if u.Flag != tt.flag || !strings.Contains(u.Why, tt.why) || u.Why == "" {
				t.Errorf("got %q: %q", u.Flag, u.Why)
			}
			if left, err := Load(testID(t), nil); err != nil || left.Path() != "" {
				t.Errorf("a refused group is left at %s (%v)", left.Path(), err)
			}
		})
	}
}
