package container

import (
	"embed"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// envUpdate writes the golden files anew; what has changed is to be looked at.
const envUpdate = "LAMINA_UPDATE_GOLDEN"

func ptr[T any](v T) *T { return &v }

// TestSpec compares specifications with testdata/spec. The default seccomp profile, which depends on kernel and
// architecture, is only looked for.
func TestSpec(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config api.Config
		host   api.HostConfig
		in     specInput
		maps   []specs.LinuxIDMapping
		bare   bool // no seccomp profile
	}{
		{name: "default", config: api.Config{Cmd: []string{"sh"}}, in: specInput{TTYGroup: true, Home: "/root"}},
		{
			name: "flags",
			config: api.Config{
				Entrypoint: []string{"/entry"}, Cmd: []string{"a", "b"}, Env: []string{"A=1", "PATH=/bin", "HOSTNAME"},
				WorkingDir: "/w/../x", Tty: true, Domainname: "d",
			},
			host: api.HostConfig{
				CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"CAP_MKNOD", "chown"}, ReadonlyRootfs: true,
				SecurityOpt: []string{"seccomp=unconfined", "no-new-privileges=false", "systempaths=unconfined"},
				NetworkMode: "host", IpcMode: "none", CgroupnsMode: "host", ShmSize: 1 << 20, OomScoreAdj: 5,
				Tmpfs: map[string]string{"/run": "size=1m,exec"}, Sysctls: map[string]string{"kernel.msgmax": "1"},
				Binds: []string{"vol:/v/w:ro", "/host:/v", "/h:/etc/hosts"},
				Resources: api.Resources{
					Memory: 64 << 20, NanoCPUs: 1_500_000_000, CPUShares: 512, CpusetCpus: "0", PidsLimit: ptr(int64(9)),
					BlkioWeight: 100, Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}},
				},
			},
			in: specInput{
				BindSys: true, User: specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{6}}, Home: "/home",
				Console: [2]uint{24, 80}, Volumes: map[string]string{"vol": "/volumes/vol/_data"},
			},
			bare: true,
		},
		{
			name:   "userns",
			config: api.Config{Cmd: []string{"true"}},
			host: api.HostConfig{UTSMode: "host", NetworkMode: "none", Mounts: []mount.Mount{
				{Type: mount.TypeTmpfs, Target: "/dev/shm", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 4096, Mode: 0o700}},
				{Type: mount.TypeVolume, Source: "vol", Target: "/v", VolumeOptions: &mount.VolumeOptions{Subpath: "a/b"}},
				{Type: mount.TypeBind, Source: "/h/./x", Target: "/b", ReadOnly: true, BindOptions: &mount.BindOptions{NonRecursive: true}},
			}},
			in:   specInput{Home: "/", Volumes: map[string]string{"vol": "/volumes/vol/_data", "vol/a/b": "/volumes/vol/_data/a/b"}},
			maps: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fillHost(&tt.host)
			if err := check(&tt.config, &tt.host); err != nil {
				t.Fatal(err)
			}
			tt.in.Record = &record{Config: &tt.config, HostConfig: &tt.host, UIDMap: tt.maps, GIDMap: tt.maps}
			tt.in.Rootfs, tt.in.Dir, tt.in.Host = "/merged", "/c", "host1"
			mounts, err := mountsOf(&tt.config, &tt.host, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range mounts {
				tt.in.Record.Mounts = append(tt.in.Record.Mounts, m.mountRecord)
			}
			s, err := newSpec(&tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if (s.Linux.Seccomp == nil) != tt.bare {
				t.Errorf("seccomp profile: %v", s.Linux.Seccomp != nil)
			}
			s.Linux.Seccomp = nil
			got, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "spec", tt.name+".json"), got)
		})
	}
}

// goldenFiles are in the binary, which may run elsewhere.
//
//go:embed testdata
var goldenFiles embed.FS

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	got = append(got, '\n')
	if os.Getenv(envUpdate) != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := goldenFiles.ReadFile(path)
	if os.Getenv(envUpdate) != "" {
		want, err = got, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s (%s=1 writes it anew):\n%s", path, envUpdate, got)
	}
}

func TestCapabilities(t *testing.T) {
	held := []string{"CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_TIME"}
	for _, tt := range []struct {
		name      string
		add, drop []string
		n         int
		err       bool
	}{
		{name: "default", n: 14},
		{name: "add", add: []string{"net_admin", "CAP_SYS_TIME"}, n: 16},
		{name: "drop all", drop: []string{"all"}, n: 0},
		{name: "drop all but one", add: []string{"CHOWN"}, drop: []string{"ALL"}, n: 1},
		{name: "add all but one", add: []string{"ALL"}, drop: []string{"CHOWN"}, n: 2},
		{name: "unknown", add: []string{"NOPE"}, err: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := capabilities(tt.add, tt.drop, held)
			if (err != nil) != tt.err || len(got) != tt.n {
				t.Errorf("%q, %v; want %d", got, err, tt.n)
			}
		})
	}
}
