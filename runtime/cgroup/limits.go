package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // makes the managers set device rules
	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limit is one thing that was asked for, and where it is written.
type limit struct {
	flag string // as on the command line
	v1   file   // what must be there
	v2   file
	set  func(r *cgroups.Resources, v2 bool) error
	with []string // files, of v1 and of v2, that are written besides
	// works, where it is not nil, says why the limit has no effect although its file is there.
	works func(dir string, v2 bool) string
}

// file is a control file: the controller's own name, and the file's names, any of which will do.
type file struct {
	controller string
	names      []string
}

func in(controller string, names ...string) file { return file{controller, names} }

// notIn says that a version has no such limit.
var notIn = file{}

// limitsOf lists what r asks for, in the order in which it is set.
func limitsOf(r *specs.LinuxResources) ([]limit, error) {
	if r == nil {
		return nil, nil
	}
	var ls []limit
	ls = append(ls, pidsLimits(r.Pids)...)
	ls = append(ls, memoryLimits(r.Memory)...)
	ls = append(ls, cpuLimits(r.CPU)...)
	io, err := blockLimits(r.BlockIO)
	if err != nil {
		return nil, err
	}
	ls = append(ls, io...)
	for _, h := range r.HugepageLimits {
		ls = append(ls, limit{
			flag: "hugetlb " + h.Pagesize,
			v1:   in("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes"),
			v2:   in("hugetlb", "hugetlb."+h.Pagesize+".max"),
			set: func(r *cgroups.Resources, _ bool) error {
				r.HugetlbLimit = []*cgroups.HugepageLimit{{Pagesize: h.Pagesize, Limit: h.Limit}}
				return nil
			},
		})
	}
	for name, value := range r.Unified {
		controller, _, _ := strings.Cut(name, ".")
		ls = append(ls, limit{flag: name, v1: notIn, v2: in(controller, name), set: func(r *cgroups.Resources, _ bool) error {
			r.Unified = map[string]string{name: value}
			return nil
		}})
	}
	return ls, nil
}

// roomToBegin is what the process that executes a container's command may take until then, in threads: it is a program of Go.
const roomToBegin = 32

// withRoom splits what r asks for: first is for a group in which the container's first process is yet to begin.
func withRoom(r *specs.LinuxResources) (first *specs.LinuxResources, then []limit) {
	if r == nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0 || *r.Pids.Limit >= roomToBegin {
		return r, nil
	}
	room, n := *r, int64(roomToBegin)
	room.Pids = &specs.LinuxPids{Limit: &n}
	return &room, pidsLimits(r.Pids)
}

// plain is a limit that sets one field.
func plain(flag string, v1, v2 file, set func(*cgroups.Resources), with ...string) limit {
	return limit{flag: flag, v1: v1, v2: v2, with: with, set: func(r *cgroups.Resources, _ bool) error { set(r); return nil }}
}

func pidsLimits(p *specs.LinuxPids) []limit {
	if p == nil || p.Limit == nil || *p.Limit == 0 {
		return nil // 0 is Docker's "unlimited", and so is what a new group has
	}
	n := *p.Limit
	return []limit{plain("--pids-limit", in("pids", "pids.max"), in("pids", "pids.max"), func(r *cgroups.Resources) { r.PidsLimit = &n })}
}

func memoryLimits(m *specs.LinuxMemory) []limit {
	if m == nil {
		return nil
	}
	var ls []limit
	memory, swap := value(m.Limit), value(m.Swap)
	check := m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate
	if memory != 0 {
		ls = append(ls, plain("--memory", in("memory", "memory.limit_in_bytes"), in("memory", "memory.max"), func(r *cgroups.Resources) {
			r.Memory, r.MemorySwap = memory, swap // together: the kernel takes them in one order only, and the library knows which
			r.MemoryCheckBeforeUpdate = check
			if swap == 0 && memory > 0 {
				r.MemorySwap = 2 * memory // Docker's default: as much swap as memory
			}
		}, "memory.memsw.limit_in_bytes", "memory.swap.max"))
	}
	if swap > 0 && (swap != memory || anySwap()) || swap == -1 && memory == 0 {
		ls = append(ls, plain("--memory-swap", in("memory", "memory.memsw.limit_in_bytes"), in("memory", "memory.swap.max"), func(r *cgroups.Resources) {
			r.Memory, r.MemorySwap = memory, swap
		}, "memory.limit_in_bytes", "memory.max"))
	}
	if v := value(m.Reservation); v != 0 {
		ls = append(ls, plain("--memory-reservation", in("memory", "memory.soft_limit_in_bytes"), in("memory", "memory.low"), func(r *cgroups.Resources) {
			r.MemoryReservation = v
		}))
	}
	if m.Swappiness != nil {
		ls = append(ls, plain("--memory-swappiness", in("memory", "memory.swappiness"), notIn, func(r *cgroups.Resources) {
			r.MemorySwappiness = m.Swappiness
		}))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		ls = append(ls, plain("--oom-kill-disable", in("memory", "memory.oom_control"), notIn, func(r *cgroups.Resources) {
			r.OomKillDisable = true
		}))
	}
	return ls
}

func cpuLimits(c *specs.LinuxCPU) []limit {
	if c == nil {
		return nil
	}
	var ls []limit
	if v := value(c.Shares); v != 0 {
		ls = append(ls, limit{flag: "--cpu-shares", v1: in("cpu", "cpu.shares"), v2: in("cpu", "cpu.weight"), set: func(r *cgroups.Resources, v2 bool) error {
			if v2 {
				r.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(v)
			} else {
				r.CpuShares = v
			}
			return nil
		}})
	}
	quota, period := value(c.Quota), value(c.Period)
	if quota != 0 || period != 0 {
		ls = append(ls, plain("--cpus", in("cpu", "cpu.cfs_quota_us"), in("cpu", "cpu.max"), func(r *cgroups.Resources) {
			r.CpuQuota, r.CpuPeriod, r.CpuBurst = quota, period, c.Burst
		}, "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.max.burst"))
	}
	if value(c.RealtimeRuntime) != 0 || value(c.RealtimePeriod) != 0 {
		ls = append(ls, plain("--cpu-rt-runtime", in("cpu", "cpu.rt_runtime_us"), notIn, func(r *cgroups.Resources) {
			r.CpuRtRuntime, r.CpuRtPeriod = value(c.RealtimeRuntime), value(c.RealtimePeriod)
		}))
	}
	if c.Cpus != "" {
		ls = append(ls, plain("--cpuset-cpus", in("cpuset", "cpuset.cpus", "cpus"), in("cpuset", "cpuset.cpus"), func(r *cgroups.Resources) {
			r.CpusetCpus = c.Cpus
		}))
	}
	if c.Mems != "" {
		ls = append(ls, plain("--cpuset-mems", in("cpuset", "cpuset.mems", "mems"), in("cpuset", "cpuset.mems"), func(r *cgroups.Resources) {
			r.CpusetMems = c.Mems
		}))
	}
	if c.Idle != nil {
		ls = append(ls, plain("cpu.idle", in("cpu", "cpu.idle"), in("cpu", "cpu.idle"), func(r *cgroups.Resources) { r.CPUIdle = c.Idle }))
	}
	return ls
}

func blockLimits(b *specs.LinuxBlockIO) ([]limit, error) {
	if b == nil {
		return nil, nil
	}
	var ls []limit
	if v := value(b.Weight); v != 0 {
		if v < 10 || v > 1000 {
			return nil, fmt.Errorf("--blkio-weight: %d is out of range: from 10 to 1000", v)
		}
		l := plain("--blkio-weight", in("blkio", "blkio.weight", "blkio.bfq.weight"), in("io", "io.bfq.weight", "io.weight"), func(r *cgroups.Resources) { r.BlkioWeight = v })
		l.works = weightWorks
		ls = append(ls, l)
	}
	for _, d := range b.WeightDevice {
		l := plain("--blkio-weight-device", in("blkio", "blkio.weight_device", "blkio.bfq.weight_device"), in("io", "io.bfq.weight"), func(r *cgroups.Resources) {
			r.BlkioWeightDevice = []*cgroups.WeightDevice{cgroups.NewWeightDevice(d.Major, d.Minor, value(d.Weight), value(d.LeafWeight))}
		})
		l.works = weightWorks
		ls = append(ls, l)
	}
	throttle := func(flag, name string, list []specs.LinuxThrottleDevice, field func(*cgroups.Resources) *[]*cgroups.ThrottleDevice) {
		for _, d := range list {
			ls = append(ls, plain(flag, in("blkio", name), in("io", "io.max"), func(r *cgroups.Resources) {
				*field(r) = []*cgroups.ThrottleDevice{cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate)}
			}))
		}
	}
	throttle("--device-read-bps", "blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice, func(r *cgroups.Resources) *[]*cgroups.ThrottleDevice { return &r.BlkioThrottleReadBpsDevice })
	throttle("--device-write-bps", "blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice, func(r *cgroups.Resources) *[]*cgroups.ThrottleDevice { return &r.BlkioThrottleWriteBpsDevice })
	throttle("--device-read-iops", "blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice, func(r *cgroups.Resources) *[]*cgroups.ThrottleDevice { return &r.BlkioThrottleReadIOPSDevice })
	throttle("--device-write-iops", "blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice, func(r *cgroups.Resources) *[]*cgroups.ThrottleDevice { return &r.BlkioThrottleWriteIOPSDevice })
	return ls, nil
}

// value is what p points at, or zero.
func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// check says why a limit cannot be had in this group, or nothing.
func (g *Group) check(l limit) string {
	f, dir := g.fileOf(l)
	if f.controller == "" {
		return "cgroup v" + map[bool]string{true: "2", false: "1"}[g.v2()] + " has no such limit"
	}
	if dir == "" {
		return g.noController(f.controller)
	}
	for _, name := range f.names {
		if cgroups.PathExists(filepath.Join(dir, name)) {
			if l.works != nil {
				return l.works(dir, g.v2())
			}
			return ""
		}
	}
	if g.v2() {
		return g.noController(f.controller)
	}
	return fmt.Sprintf("this kernel has no %s", f.names[0])
}

// noController says why the group has no such controller.
func (g *Group) noController(name string) string {
	m, err := look()
	if err != nil {
		return err.Error()
	}
	if g.v2() {
		return m.noControllerV2(name, filepath.Dir(g.Path()))
	}
	h := m.at(name)
	if h == nil {
		return fmt.Sprintf("the %s controller is not mounted on this machine", name)
	}
	return m.notDelegated(h)
}

// fileOf is where a limit is written in this group: the directory is empty where the group has none of the controller's.
func (g *Group) fileOf(l limit) (f file, dir string) {
	if g.v2() {
		return l.v2, g.place.Paths[unified]
	}
	return l.v1, g.place.Paths[l.v1.controller]
}

// saved is what a control file held.
type saved struct{ dir, name, text string }

// save reads what setting the limit may change.
func (g *Group) save(l limit) []saved {
	f, dir := g.fileOf(l)
	if dir == "" {
		return nil
	}
	var all []saved
	for _, name := range slices.Concat(f.names, l.with) {
		if text, err := cgroups.ReadFile(dir, name); err == nil { // of several names, or versions, one is there
			all = append(all, saved{dir, name, text})
		}
	}
	return all
}

// restore writes back what save has read, as far as that goes. Twice: of two limits that bound each other the kernel takes
// one before the other, and which one depends on what they are.
func restore(all []saved) {
	for range 2 {
		for _, s := range all {
			for line := range strings.SplitSeq(strings.TrimSpace(s.text), "\n") {
				_ = cgroups.WriteFile(s.dir, s.name, line+"\n") // what failed is the error to tell; no CPUs is an empty line
			}
		}
	}
}

// set writes limits one by one, so that an error names the one that failed.
func (g *Group) set(limits []limit) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range limits {
		r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
		if err := l.set(r, g.v2()); err != nil {
			return fmt.Errorf("%s: %w", l.flag, err)
		}
		if why := g.check(l); why != "" {
			return &Unenforceable{Flag: l.flag, Why: why}
		}
		if l.flag == "--memory" && r.MemorySwap != 0 && !g.limitsSwap() {
			r.MemorySwap = 0
		}
		if err := g.mgr.Set(r); err != nil {
			return &Unenforceable{Flag: l.flag, Why: g.explain(l, err), Err: err}
		}
	}
	return nil
}

// explain makes a sentence of what the kernel said to a value.
func (g *Group) explain(l limit, err error) string {
	switch {
	case l.flag == "--cpuset-cpus" && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EACCES)):
		return "requested CPUs are not available: " + err.Error()
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS):
		return "the cgroup may not be written to: " + err.Error()
	}
	return err.Error()
}

// limitsSwap reports whether the kernel counts swap for groups.
func (g *Group) limitsSwap() bool {
	if g.v2() {
		return cgroups.PathExists(filepath.Join(g.Path(), "memory.swap.max"))
	}
	return cgroups.PathExists(filepath.Join(g.place.Paths["memory"], "memory.memsw.limit_in_bytes"))
}

// anySwap reports whether the machine has swap in use.
func anySwap() bool {
	var si unix.Sysinfo_t
	return unix.Sysinfo(&si) == nil && si.Totalswap > 0
}

// weightWorks says why a weight has no effect: it is taken by the bfq scheduler, on v2 also by the io.cost model, and by
// the old cfq, which is what blkio.weight without bfq belongs to (cgroup-v2.rst, "IO"; bfq-iosched.rst).
func weightWorks(dir string, v2 bool) string {
	if !v2 && cgroups.PathExists(filepath.Join(dir, "blkio.weight")) {
		return ""
	}
	schedulers, _ := filepath.Glob("/sys/block/*/queue/scheduler")
	for _, s := range schedulers {
		if readLine(s, "[bfq]") {
			return ""
		}
	}
	if v2 && readLine("/sys/fs/cgroup/io.cost.qos", "enable=1") && !cgroups.PathExists(filepath.Join(dir, "io.bfq.weight")) {
		return ""
	}
	return "no block device of this machine is shared out by weight: its IO scheduler is not bfq (see /sys/block/*/queue/scheduler)"
}

// setDevices sets which devices the group may open. Only root of the machine may: in a user namespace device nodes are
// guarded by their owners, and cannot be made.
func (g *Group) setDevices(r *specs.LinuxResources) error {
	if r == nil || len(r.Devices) == 0 || outerUID() != 0 || inUserNamespace() {
		return nil
	}
	if _, ok := g.place.Paths["devices"]; !ok && !g.v2() {
		return nil
	}
	rules := make([]*devices.Rule, 0, len(r.Devices))
	for _, d := range r.Devices {
		rule := &devices.Rule{Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard,
			Permissions: devices.Permissions(d.Access), Allow: d.Allow}
		if d.Type != "" {
			rule.Type = devices.Type(d.Type[0])
		}
		if d.Major != nil {
			rule.Major = *d.Major
		}
		if d.Minor != nil {
			rule.Minor = *d.Minor
		}
		rules = append(rules, rule)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.mgr.Set(&cgroups.Resources{Devices: rules}); err != nil {
		return fmt.Errorf("cgroup: device rules: %w", err)
	}
	return nil
}
