package cgroup

import (
	"bufio"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestMachines(t *testing.T) {
	v1 := func(mount, root, options string) *mountinfo.Info {
		return &mountinfo.Info{FSType: "cgroup", Mountpoint: mount, Root: root, VFSOptions: options}
	}
	v2 := func(mount, root string) *mountinfo.Info {
		return &mountinfo.Info{FSType: "cgroup2", Mountpoint: mount, Root: root, VFSOptions: "rw,nsdelegate"}
	}
	own := map[string]string{"memory": "/user/a", "cpu": "/", "cpuacct": "/", "name=systemd": "/init.scope", "": "/user.slice/x.scope"}
	tests := []struct {
		name    string
		mounts  []*mountinfo.Info
		version string
		own     map[string]string // controller: directory of the caller; absent where there is no hierarchy
	}{
		{"none", nil, VersionNone, nil},
		{"v1", []*mountinfo.Info{v1("/c/memory", "/", "rw,memory"), v1("/c/cpu,cpuacct", "/", "rw,cpu,cpuacct"), v1("/c/systemd", "/", "rw,xattr,name=systemd")},
			VersionV1, map[string]string{"memory": "/c/memory/user/a", "cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "name=systemd": "/c/systemd/init.scope"}},
		{"hybrid", []*mountinfo.Info{v1("/c/memory", "/", "rw,memory"), v2("/c/unified", "/")},
			VersionHybrid, map[string]string{"memory": "/c/memory/user/a", "": "/c/unified/user.slice/x.scope"}},
		{"v2", []*mountinfo.Info{v2("/sys/fs/cgroup", "/")}, VersionV2, map[string]string{"": "/sys/fs/cgroup/user.slice/x.scope"}},
		{"within a container", []*mountinfo.Info{v1("/c/memory", "/user", "rw,memory")}, VersionV1, map[string]string{"memory": "/c/memory/a"}},
		{"another's part", []*mountinfo.Info{v1("/c/memory", "/elsewhere", "rw,memory")}, VersionV1, map[string]string{"memory": ""}},
		{"mounted twice", []*mountinfo.Info{v1("/c/memory", "/", "rw,memory"), v1("/d/memory", "/user", "rw,memory")}, VersionV1, map[string]string{"memory": "/c/memory/user/a"}},
		{"options that are no controllers", []*mountinfo.Info{v1("/c/x", "/", "rw,clone_children")}, VersionNone, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(tt.mounts, own)
			if m.version != tt.version {
				t.Errorf("version %s", m.version)
			}
			for _, c := range append(controllersV1, "net_cls") {
				h, want := m.at(c), tt.own[c]
				if _, ok := tt.own[c]; ok != (h != nil) {
					t.Errorf("controller %q: %+v", c, h)
				} else if h != nil && h.own != want {
					t.Errorf("controller %q: own is %q, want %q", c, h.own, want)
				}
			}
		})
	}
}

func TestMappedUID(t *testing.T) {
	tests := []struct {
		uidMap string
		uid    int
		want   int
	}{
		{"         0          0 4294967295\n", 0, 0},
		{"         0       1001          1\n         1     100000      65536\n", 0, 1001},
		{"         0       1001          1\n         1     100000      65536\n", 5, 100004},
		{"", 7, 7},
	}
	for _, tt := range tests {
		if got := mappedUID(bufio.NewScanner(strings.NewReader(tt.uidMap)), tt.uid); got != tt.want {
			t.Errorf("%q of %d: %d, want %d", tt.uidMap, tt.uid, got, tt.want)
		}
	}
}

func TestInsideUnit(t *testing.T) {
	const scope = "/sys/fs/cgroup/user.slice/lamina-x.scope"
	for path, ok := range map[string]bool{
		scope: true, scope + "/supervisor": true, "/sys/fs/cgroup/user.slice/session-1.scope": false, scope + "2": false, "": false,
	} {
		got, inside := insideUnit(path, "lamina-x.scope")
		if inside != ok || ok && got != scope {
			t.Errorf("%s: %s, %v", path, got, inside)
		}
	}
}

// Every limit of the specification is set, or is one that is known to be nobody's: none is passed over.
func TestLimitsByFlag(t *testing.T) {
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(1)), Reservation: ptr(int64(1)), Swap: ptr(int64(2)), Swappiness: ptr(uint64(1)), DisableOOMKiller: ptr(true)},
		CPU: &specs.LinuxCPU{Shares: ptr(uint64(2)), Quota: ptr(int64(1000)), Period: ptr(uint64(1000)), RealtimeRuntime: ptr(int64(1)),
			Cpus: "0", Mems: "0", Idle: ptr(int64(1))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(1))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10)), WeightDevice: []specs.LinuxWeightDevice{{}}, ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{}},
			ThrottleWriteBpsDevice: []specs.LinuxThrottleDevice{{}}, ThrottleReadIOPSDevice: []specs.LinuxThrottleDevice{{}}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{}}},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}},
		Unified:        map[string]string{"memory.high": "1"},
	}
	limits, err := limitsOf(r)
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, l := range limits {
		flags = append(flags, l.flag)
		if l.v1.controller == "" && l.v2.controller == "" {
			t.Errorf("%s can be had nowhere", l.flag)
		}
	}
	want := "--pids-limit --memory --memory-swap --memory-reservation --memory-swappiness --oom-kill-disable --cpu-shares --cpus --cpu-rt-runtime " +
		"--cpuset-cpus --cpuset-mems cpu.idle --blkio-weight --blkio-weight-device --device-read-bps --device-write-bps --device-read-iops " +
		"--device-write-iops hugetlb 2MB memory.high"
	if got := strings.Join(flags, " "); got != want {
		t.Errorf("got %s", got)
	}
	for _, r := range []*specs.LinuxResources{nil, {}, {Memory: &specs.LinuxMemory{Limit: ptr(int64(0))}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{Limit: ptr(int64(0))}, BlockIO: &specs.LinuxBlockIO{}}} {
		if limits, err := limitsOf(r); err != nil || len(limits) > 0 {
			t.Errorf("%+v: %v, %v", r, limits, err)
		}
	}
	if _, err := limitsOf(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(5))}}); err == nil || !strings.Contains(err.Error(), "from 10 to 1000") {
		t.Errorf("weight 5: %v", err)
	}
}

func BenchmarkLife(b *testing.B) {
	if len(Probe().Controllers) == 0 {
		b.Skip("needs a cgroup")
	}
	for range b.N {
		g, err := New("bench", nil, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Remove(); err != nil {
			b.Fatal(err)
		}
	}
}
