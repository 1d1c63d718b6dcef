package sandbox

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNothingCoversProc(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	for name, to := range map[string]string{"all": "/proc", "part": "../proc/sys", "deep": "all/irq", "cpu": "/proc/cpuinfo", "version": "/proc/version"} {
		link(t, to, root+"/"+name)
	}
	source := outside(t)
	file := source + "/secret"
	const not, inside = "because it is not of type proc", "because it is inside /proc"
	for _, tt := range []struct{ target, source, want string }{ // no source: a tmpfs
		{"/proc", source, not},
		{"/proc", "", not},
		{"/all", source, not},
		{"/all", "/proc/self", not},
		{"/proc/sys", "/proc", inside},
		{"/proc/irq", "", inside},
		{"/part", source, inside},
		{"/deep", "", inside},
		{"/version", file, inside},
		{"/proc/self/attr/current", file, inside},
		{"/proc/cpuinfo", file, ""},
		{"/cpu", file, ""},
		{"/all", "/proc", ""},
		{"/proc", "/proc", ""},
	} {
		s := aSpec(root, "true")
		s.Mounts = s.Mounts[:1]
		m := specs.Mount{Destination: tt.target, Type: "tmpfs", Source: "tmpfs"}
		if tt.source != "" {
			m = specs.Mount{Destination: tt.target, Type: "bind", Source: tt.source, Options: []string{"rbind"}}
		}
		s.Mounts = append(s.Mounts, m)
		res, err := tryRun(t, Options{Spec: s})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), `"`+tt.target+`" cannot be mounted `+tt.want)) {
			t.Errorf("%s on %s: %v, %v; want %q", tt.source, tt.target, err, res, tt.want)
		}
	}
	unchanged(t, source)
}

func TestCheckProcTarget(t *testing.T) {
	for _, tt := range []struct {
		target, source string
		ok             bool
	}{
		{"/proc", "", false},
		{"/proc", "/", false},
		{"/proc", "/proc/self", false},
		{"/proc", "/not/there", false},
		{"/proc", "/proc", true},
		{"/proc/sys", "/proc", false},
		{"/proc/sys/kernel", "", false},
		{"/proc/sys/kernel/ns_last_pid", "/x", true},
		{"/proc/uptime", "/x", true},
		{"/proc/uptime/x", "/x", false},
		{"/process", "", true},
		{"/a/proc", "", true},
	} {
		if err := CheckProcTarget(tt.target, tt.source); (err == nil) != tt.ok {
			t.Errorf("%s on %s: %v", tt.source, tt.target, err)
		}
	}
}
