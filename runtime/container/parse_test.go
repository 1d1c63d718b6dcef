package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseBind(t *testing.T) {
	for _, tt := range []struct{ spec, want string }{
		{"/a:/b", "bind /a /b rw true"},
		{"/a/../c:/b/./d:ro", "bind /c /b/d ro true"},
		{"name:/b", "volume name /b rw false"},
		{"name:/b:nocopy,ro", "volume name /b ro false"},
		{"/a:/b:z,rprivate", "bind /a /b rw true"},
		{"/a:/", ""},
		{"/a:/..", ""},
		{"/a:b", ""},
		{"a/b:/c", ""},
		{"/a:/b:rshared", ""},
		{"/a:/b:what", ""},
		{":/b", ""},
		{"/a:/b:ro:x", ""},
	} {
		t.Run(tt.spec, func(t *testing.T) {
			m, err := parseBind(tt.spec)
			if tt.want == "" {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%+v, %v", m, err)
				}
				return
			}
			rw := "ro"
			if m.RW {
				rw = "rw"
			}
			got := fmt.Sprintf("%s %s %s %s %v", m.Type, m.Source+m.Name, m.Destination, rw, m.makeDir)
			if err != nil || got != tt.want || !slices.Contains(m.Options, rw) {
				t.Errorf("%s, %q, %v; want %s", got, m.Options, err, tt.want)
			}
		})
	}
}

func TestMountsOf(t *testing.T) {
	c := &api.Config{Volumes: map[string]struct{}{"/a/b": {}, "/anon": {}}}
	h := &api.HostConfig{Binds: []string{"/x/y/z:/a/b/c", "/x:/a"}, Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: "vv", Target: "/a/b"}}}
	all, err := mountsOf(c, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, m.Destination)
	}
	// A flag stands over the image's volume, and a mount below another one comes after it.
	if want := "/a /anon /a/b /a/b/c"; strings.Join(got, " ") != want {
		t.Errorf("%q, want %s", got, want)
	}
	if all[2].Name != "vv" || !all[1].Anonymous || len(all[1].Name) != 64 {
		t.Errorf("%+v", all)
	}
	h.Binds = append(h.Binds, "/other:/a")
	if _, err := mountsOf(c, h, nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "/a") {
		t.Errorf("two for one destination: %v", err)
	}
}

func TestMerge(t *testing.T) {
	image := func() dockerspec.DockerOCIImageConfig {
		var c dockerspec.DockerOCIImageConfig
		c.Cmd, c.Entrypoint, c.User = []string{"cmd"}, []string{"entry"}, "u"
		c.Env, c.WorkingDir = []string{"A=image", "B=image"}, "/w"
		c.Labels = map[string]string{"l": "image", "m": "image"}
		c.ExposedPorts = map[string]struct{}{"80": {}}
		c.Volumes = map[string]struct{}{"/v": {}}
		return c
	}
	for _, tt := range []struct {
		name   string
		config api.Config
		want   string
	}{
		{"nothing given", api.Config{}, "entry cmd"},
		{"command", api.Config{Cmd: []string{"c"}}, "entry c"},
		{"entry point", api.Config{Entrypoint: []string{"e"}}, "e"},
		{"both", api.Config{Entrypoint: []string{"e"}, Cmd: []string{"c"}}, "e c"},
		{"entry point taken away", api.Config{Entrypoint: []string{""}, Cmd: []string{"c"}}, "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.config
			c.Env, c.Labels = []string{"A=given"}, map[string]string{"l": "given"}
			c.ExposedPorts = network.PortSet{network.MustParsePort("90/udp"): {}}
			if err := merge(&c, image()); err != nil {
				t.Fatal(err)
			}
			args, err := commandLine(&c)
			if err != nil || strings.Join(args, " ") != tt.want {
				t.Errorf("%q, %v; want %s", args, err, tt.want)
			}
			if !slices.Equal(c.Env, []string{"A=given", "B=image"}) || c.Labels["l"] != "given" || c.Labels["m"] != "image" ||
				len(c.ExposedPorts) != 2 || len(c.Volumes) != 1 || c.User != "u" || c.WorkingDir != "/w" {
				t.Errorf("%+v", c)
			}
		})
	}
	if _, err := commandLine(&api.Config{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no command: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, tt := range []struct {
		want   string
		config api.Config
		host   api.HostConfig
	}{
		{"working directory", api.Config{WorkingDir: "x"}, api.HostConfig{}},
		{"environment", api.Config{Env: []string{"=x"}}, api.HostConfig{}},
		{"Invalid signal", api.Config{StopSignal: "SIGNOPE"}, api.HostConfig{}},
		{"--pid", api.Config{}, api.HostConfig{PidMode: "container:"}},
		{"--ipc", api.Config{}, api.HostConfig{IpcMode: "container:other"}},
		{"AutoRemove", api.Config{}, api.HostConfig{AutoRemove: true, RestartPolicy: api.RestartPolicy{Name: "always"}}},
		{"restart policy", api.Config{}, api.HostConfig{RestartPolicy: api.RestartPolicy{Name: "x"}}},
		{"network x not found", api.Config{}, api.HostConfig{NetworkMode: "x"}},
		{"add-host", api.Config{}, api.HostConfig{ExtraHosts: []string{"h:x"}}},
		{"Minimum memory limit", api.Config{}, api.HostConfig{Resources: api.Resources{Memory: 1}}},
		{"Memory limit when using Memoryswap", api.Config{}, api.HostConfig{Resources: api.Resources{MemorySwap: 1}}},
		{"CPUs", api.Config{}, api.HostConfig{Resources: api.Resources{NanoCPUs: 1e18}}},
		{"unknown capability", api.Config{}, api.HostConfig{CapAdd: []string{"X"}}},
		{"security-opt", api.Config{}, api.HostConfig{SecurityOpt: []string{"x=y"}}},
		{"log driver", api.Config{}, api.HostConfig{LogConfig: api.LogConfig{Type: "syslog"}}},
		{"log opt", api.Config{}, api.HostConfig{LogConfig: api.LogConfig{Config: map[string]string{"max-size": "x"}}}},
		{"sysctl", api.Config{}, api.HostConfig{Sysctls: map[string]string{"kernel.panic": "1"}}},
	} {
		t.Run(tt.want, func(t *testing.T) {
			err := check(&tt.config, &tt.host)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	h := &api.HostConfig{}
	fillHost(h)
	if err := check(&api.Config{}, h); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]int{"TERM": 15, "sigkill": 9, "10": 10, "RTMIN+1": 35, "SIGRTMAX-1": 63, "0": -1, "65": -1, "": -1, "RTMAX+1": -1} {
		got, err := parseSignal(s)
		if (want < 0) != (err != nil) || err == nil && int(got) != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestParseKeys(t *testing.T) {
	for s, want := range map[string]string{"": "\x10\x11", "a,b": "ab", "ctrl-a": "\x01", `ctrl-\`: "\x1c", "ctrl-@,x": "\x00x", "ctrl-": "!", "ab": "!"} {
		got, err := ParseKeys(s)
		if want == "!" {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %q, %v", s, got, err)
			}
			continue
		}
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v; want %q", s, got, err, want)
		}
	}
}

// TestKeyReader: what may be the beginning of the keys is held back, and passed on when it was none.
func TestKeyReader(t *testing.T) {
	for _, tt := range []struct {
		in, out  string
		detached bool
	}{
		{"abc", "abc", false},
		{"ab\x10\x11cd", "ab", true},
		{"a\x10b\x10\x10\x11", "a\x10b\x10", true},
		{"a\x10", "a\x10", false},
		{"", "", false},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(tt.in), "bytes": iotest.OneByteReader(strings.NewReader(tt.in))} {
			got, err := io.ReadAll(&keyReader{r: r, keys: defaultKeys})
			if string(got) != tt.out || errors.Is(err, ErrDetached) != tt.detached {
				t.Errorf("%q by %s: %q, %v", tt.in, name, got, err)
			}
		}
	}
}

// TestLines: long lines go to the log in parts of 16 KiB, and only the last one ends with a newline.
func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, tt := range []struct {
		name string
		in   []string
		want []string
	}{
		{"lines", []string{"a\nb\n"}, []string{"a\n", "b\n"}},
		{"in pieces", []string{"a", "b", "c\nd", "\n"}, []string{"abc\n", "d\n"}},
		{"no newline at the end", []string{"a\nb"}, []string{"a\n", "b"}},
		{"long", []string{long + "yz\n"}, []string{long, "yz\n"}},
		{"twice as long", []string{long + long + "\n"}, []string{long, long, "\n"}},
		{"empty lines", []string{"\n\n"}, []string{"\n", "\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir() + "/log"
			l, err := openLog(path, logConfig{maxFiles: 1})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			w := &lines{log: l, stream: "stdout", now: func() time.Time { n++; return time.Unix(int64(n), 0) }}
			for _, s := range tt.in {
				if err := w.write([]byte(s)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.end(); err != nil {
				t.Fatal(err)
			}
			l.close()
			got, times := readAll(t, path)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%d entries, want %d", len(got), len(tt.want))
			}
			for i := 1; i < len(got); i++ {
				part := !strings.HasSuffix(got[i-1], "\n")
				if part != times[i].Equal(times[i-1]) {
					t.Errorf("entry %d: a part has the time of the first one, another line has not: %v", i, times)
				}
			}
		})
	}
}

func readAll(t *testing.T, path string) (logs []string, times []time.Time) {
	t.Helper()
	l, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = readLog(l, 0, func(e logEntry, _ int64) error {
		logs, times = append(logs, e.Log), append(times, e.Time)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return logs, times
}

// TestCopyPlan has the rules of docker cp.
func TestCopyPlan(t *testing.T) {
	file := func(p string) *copyEnd { return &copyEnd{path: p, exists: true} }
	dir := func(p string) *copyEnd { return &copyEnd{path: p, exists: true, dir: true} }
	none := func(p string) *copyEnd { return &copyEnd{path: p, parentDir: true} }
	for _, tt := range []struct {
		name     string
		src, dst *copyEnd
		want     string // "DIR NAME", or "" for an error
	}{
		{"file to nothing", file("/s/f"), none("/d/n"), "/d n"},
		{"file to nothing with a slash", file("/s/f"), none("/d/n/"), ""},
		{"file to file", file("/s/f"), file("/d/f2"), "/d f2"},
		{"file to directory", file("/s/f"), dir("/d"), "/d f"},
		{"file without parent", file("/s/f"), &copyEnd{path: "/d/n"}, ""},
		{"file with a slash", file("/s/f/"), dir("/d"), ""},
		{"directory to nothing", dir("/s/d"), none("/d/n"), "/d n"},
		{"directory to file", dir("/s/d"), file("/d/f"), ""},
		{"directory to directory", dir("/s/d"), dir("/d"), "/d d"},
		{"contents to directory", dir("/s/d/."), dir("/d"), "/d "},
		{"contents to nothing", dir("/s/d/."), none("/d/n"), "/d n"},
		{"root to directory", dir("/"), dir("/d"), "/d "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, n, err := plan(tt.src, tt.dst)
			if got := d + " " + n; err == nil && got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestApplyChange(t *testing.T) {
	var c dockerspec.DockerOCIImageConfig
	inherited := true
	c.Env, c.WorkingDir = []string{"A=1"}, "/w"
	for _, s := range []string{
		`CMD ["a", "b c"]`, "ENV A=2 B='x y'", "ENV C old form", "EXPOSE 80 90-91/udp", `LABEL k="v w"`, "USER u:g",
		"VOLUME /a /b", `VOLUME ["/c d"]`, "WORKDIR sub", "ONBUILD RUN x",
		"LABEL url=http://x/?a=1&b=2 list=a;b|c<d>(e)", "ENV D=$A-${A}-$B E='$A' F=\"$B\"", "LABEL\tof=$A", "STOPSIGNAL INT",
		"HEALTHCHECK --interval=5s --retries=3 CMD curl -f http://x/?a&b",
	} {
		if err := applyChange(&c, s, &inherited); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if !slices.Equal(c.Cmd, []string{"a", "b c"}) || !slices.Equal(c.Env, []string{"A=2", "B=x y", "C=old form", "D=2-2-x y", "E=$A", "F=x y"}) ||
		!slices.Equal(sortedKeys(c.ExposedPorts), []string{"80/tcp", "90/udp", "91/udp"}) || c.Labels["k"] != "v w" ||
		c.User != "u:g" || !slices.Equal(sortedKeys(c.Volumes), []string{"/a", "/b", "/c d"}) || c.WorkingDir != "/w/sub" ||
		!slices.Equal(c.OnBuild, []string{"RUN x"}) || c.Labels["url"] != "http://x/?a=1&b=2" || c.Labels["list"] != "a;b|c<d>(e)" ||
		c.Labels["of"] != "2" || c.StopSignal != "INT" || c.Healthcheck.Interval != 5*time.Second || c.Healthcheck.Retries != 3 ||
		!slices.Equal(c.Healthcheck.Test, []string{"CMD-SHELL", "curl -f http://x/?a&b"}) {
		t.Errorf("%+v", c)
	}
	for _, tt := range []struct {
		name    string
		changes []string
		cmd     []string
	}{
		{"entry point", []string{"entrypoint run it"}, nil},
		{"command first", []string{`CMD ["x"]`, "entrypoint run it"}, []string{"x"}},
		{"command last", []string{"entrypoint run it", `CMD ["x"]`}, []string{"x"}},
	} {
		c := dockerspec.DockerOCIImageConfig{}
		c.Cmd = []string{"of", "the", "container"}
		if err := ApplyChanges(&c, tt.changes); err != nil || !slices.Equal(c.Entrypoint, []string{"/bin/sh", "-c", "run it"}) || !slices.Equal(c.Cmd, tt.cmd) {
			t.Errorf("%s: %q, %q, %v", tt.name, c.Entrypoint, c.Cmd, err)
		}
	}
	for _, s := range []string{"RUN x", "CMD", "ENV A", "EXPOSE x", "", "STOPSIGNAL none", "HEALTHCHECK x", "HEALTHCHECK CMD", "HEALTHCHECK NONE x",
		"HEALTHCHECK --interval=x CMD x", `ENV A="x`, "ENV A='x", "ENV A=${A", "LABEL a=b c", "ENV =b"} {
		if err := applyChange(&c, s, &inherited); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestExpandWord has the rules of buildkit's lexer.
func TestExpandWord(t *testing.T) {
	env := []string{"A=old", "A=a b", "EMPTY=", "ÄÖ=uml"}
	for _, tt := range []struct{ in, want string }{
		{"", ""}, {"x", "x"}, {"$A", "a b"}, {"${A}x", "a bx"}, {"$Ax", ""}, {"$", "$"}, {"a$", "a$"}, {"$12a", "a"}, {"$$x", "x"}, {"$.", "$."}, {"$ÄÖ-", "uml-"},
		{`\$A`, "$A"}, {`'$A'`, "$A"}, {`"$A"`, "a b"}, {`"\$A \" \\ \n"`, `$A " \ \n`}, {`a\b\`, "ab"}, {`'a'"b"c`, "abc"},
		{"${NONE:-x}", "x"}, {"${NONE-x}", "x"}, {"${EMPTY:-x}", "x"}, {"${EMPTY-x}", ""}, {"${A:-x}", "a b"}, {"${A:+x}", "x"},
		{"${NONE:+x}", ""}, {"${EMPTY+x}", "x"}, {"${EMPTY:+x}", ""}, {"${A:?no}", "a b"}, {"${NONE:-$A}", "a b"}, {"${NONE:-${NONE-y}}z", "yz"},
		{"\xff$A", "\xffa b"}, {"a#b;c&d", "a#b;c&d"},
	} {
		if got, err := expandWord(tt.in, env); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"${", "${}", "${A", "${A:", "${NONE:?no}", "${NONE?no}", "${A!x}", "'", `"`, `"${A`, "${A:-'}"} {
		if got, err := expandWord(in, env); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestKeepID(t *testing.T) {
	for _, tt := range []struct {
		own, n uint32
		want   string
	}{
		{1000, 65537, "[{0 1 1000} {1000 0 1} {1001 1001 64536}]"},
		{0, 100, "[{0 0 1} {1 1 99}]"},
		{99, 100, "[{0 1 99} {99 0 1}]"},
		{5000, 100, "[{0 1 99} {5000 0 1}]"},
	} {
		m := keepID(tt.own, tt.n)
		if got := fmt.Sprint(m); got != tt.want {
			t.Errorf("%d of %d: %s, want %s", tt.own, tt.n, got, tt.want)
		}
		if err := checkIDMap("uidmap", m); err != nil {
			t.Errorf("%d of %d: %v", tt.own, tt.n, err)
		}
	}
	for _, bad := range [][]specs.LinuxIDMapping{
		{{ContainerID: 1, HostID: 0, Size: 1}},
		{{ContainerID: 0, HostID: 0, Size: 0}},
		{{ContainerID: 0, HostID: 0, Size: 5}, {ContainerID: 4, HostID: 10, Size: 1}},
		{{ContainerID: 0, HostID: 0, Size: 5}, {ContainerID: 5, HostID: 4, Size: 1}},
	} {
		if err := checkIDMap("uidmap", bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestWithin: two ranges of a user, and none, as root of the machine.
func TestWithin(t *testing.T) {
	ours := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 9}, {ContainerID: 10, HostID: 300000, Size: 90}}
	for _, tt := range []struct {
		m    []specs.LinuxIDMapping
		ours []specs.LinuxIDMapping
		want string
	}{
		{keepID(50, 100), ours, "[{0 1 9} {9 10 41} {50 0 1} {51 51 49}]"},
		{[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 100}}, ours, "[{0 0 1} {1 1 9} {10 10 90}]"},
		{[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 90, Size: 20}}, ours, "[{0 90 10} {10 100 10}]"},
		{[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 90, Size: 20}}, nil, "[{0 90 20}]"},
		{nil, ours, "[]"},
	} {
		if got := fmt.Sprint(within(tt.m, tt.ours)); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.m, got, tt.want)
		}
	}
}

func TestParsePs(t *testing.T) {
	top, err := parsePs("UID  PID  CMD\nroot 1 init of all\nroot 22 sleep 9\n", map[int]bool{22: true})
	if err != nil || len(top.Processes) != 1 || !slices.Equal(top.Processes[0], []string{"root", "22", "sleep 9"}) {
		t.Errorf("%+v, %v", top, err)
	}
	if _, err := parsePs("CMD\nx\n", nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("without PID: %v", err)
	}
}
