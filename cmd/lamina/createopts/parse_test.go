package createopts_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/laminafs/lamina/cmd/lamina/createopts"
)

// parse is what "lamina run ARG..." makes of its arguments.
func parse(args ...string) (*createopts.Config, error) {
	set := pflag.NewFlagSet("run", pflag.ContinueOnError)
	set.SetInterspersed(false)
	f := createopts.Add(set)
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	return f.Parse(set.Args())
}

// at follows the names of fields in the JSON of v: what inspect will show.
func at(t *testing.T, v any, path string) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var node any
	if err := json.Unmarshal(text, &node); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Split(path, ".") {
		m, ok := node.(map[string]any)
		if !ok {
			return ""
		}
		node = m[name]
	}
	text, err = json.Marshal(node)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFlagsBecomeConfiguration(t *testing.T) {
	t.Setenv("LAMINA_TEST_SET", "from outside")
	if err := os.Unsetenv("LAMINA_TEST_UNSET"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := write("env", "# a comment\nA=1\nB=two words\nLAMINA_TEST_SET\n\n")
	labels := write("labels", "# one\nx=1\ny=\n")
	profile := write("seccomp.json", "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n")
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		args string // without the image, split at spaces; %20 is a space
		path string // below Config
		want string // JSON
	}{
		{"", "Config.Image", `"image"`},
		{"", "Config.Cmd", `["cmd","-x"]`},
		{"", "Config.AttachStdout", `true`},
		{"", "Config.AttachStdin", `false`},
		{"", "HostConfig.PidsLimit", `null`},
		{"", "HostConfig.MemorySwappiness", `null`},
		{"", "HostConfig.Init", `null`},
		{"-a stderr", "Config.AttachStdout", `false`},
		{"-a STDERR", "Config.AttachStderr", `true`},
		{"-i", "Config.AttachStdin", `true`},
		{"-i", "Config.StdinOnce", `true`},
		{"-it", "Config.Tty", `true`},
		{"-e A=1 -e B=", "Config.Env", `["A=1","B="]`},
		{"-e LAMINA_TEST_SET", "Config.Env", `["LAMINA_TEST_SET=from outside"]`},
		{"-e LAMINA_TEST_UNSET", "Config.Env", `["LAMINA_TEST_UNSET"]`},
		{"--env-file " + env + " -e A=2", "Config.Env", `["A=1","B=two words","LAMINA_TEST_SET=from outside","A=2"]`},
		{"--entrypoint /x", "Config.Entrypoint", `["/x"]`},
		{"--entrypoint=", "Config.Entrypoint", `[""]`},
		{"-h box --domainname lan", "Config.Hostname", `"box"`},
		{"-h box --domainname lan", "Config.Domainname", `"lan"`},
		{"-l a=b --label c --label-file " + labels, "Config.Labels", `{"a":"b","c":"","x":"1","y":""}`},
		{"--annotation a=b", "HostConfig.Annotations", `{"a":"b"}`},
		{"-u 5:6 -w /w", "Config.User", `"5:6"`},
		{"-u 5:6 -w /w", "Config.WorkingDir", `"/w"`},
		{"--stop-signal USR1 --stop-timeout 0", "Config.StopSignal", `"USR1"`},
		{"--stop-signal USR1 --stop-timeout 0", "Config.StopTimeout", `0`},
		{"", "Config.StopTimeout", `null`},
		{"--rm", "HostConfig.AutoRemove", `true`},
		{"--init", "HostConfig.Init", `true`},
		{"--cidfile /c", "HostConfig.ContainerIDFile", `"/c"`},
		{"--restart on-failure:3", "HostConfig.RestartPolicy", `{"MaximumRetryCount":3,"Name":"on-failure"}`},
		{"--log-driver json-file --log-opt max-size=1k", "HostConfig.LogConfig", `{"Config":{"max-size":"1k"},"Type":"json-file"}`},
		{"--cap-add NET_ADMIN --cap-drop ALL", "HostConfig.CapAdd", `["NET_ADMIN"]`},
		{"--cap-add NET_ADMIN --cap-drop ALL", "HostConfig.CapDrop", `["ALL"]`},
		{"--group-add 7", "HostConfig.GroupAdd", `["7"]`},
		{"--privileged=false", "HostConfig.Privileged", `false`},
		{"--security-opt no-new-privileges", "HostConfig.SecurityOpt", `["no-new-privileges"]`},
		{"--security-opt seccomp=unconfined", "HostConfig.SecurityOpt", `["seccomp=unconfined"]`},
		{"--security-opt seccomp=" + profile, "HostConfig.SecurityOpt", `["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]`},
		{"--security-opt systempaths=unconfined", "HostConfig.MaskedPaths", `[]`},
		{"--security-opt systempaths=unconfined", "HostConfig.SecurityOpt", `[]`},
		{"--ipc host --pid host --uts host --cgroupns private", "HostConfig.PidMode", `"host"`},
		{"--ipc host --pid host --uts host --cgroupns private", "HostConfig.CgroupnsMode", `"private"`},
		{"--sysctl net.ipv4.ip_forward=1", "HostConfig.Sysctls", `{"net.ipv4.ip_forward":"1"}`},
		{"--network none", "HostConfig.NetworkMode", `"none"`},
		{"--net host", "HostConfig.NetworkMode", `"host"`},
		{"-p 8080:80", "HostConfig.PortBindings", `{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}`},
		{"-p 127.0.0.1::53/udp", "HostConfig.PortBindings", `{"53/udp":[{"HostIp":"127.0.0.1","HostPort":""}]}`},
		{"-p published=8080,target=80,protocol=udp", "HostConfig.PortBindings", `{"80/udp":[{"HostIp":"","HostPort":"8080"}]}`},
		{"-p 8000-8001:80-81", "Config.ExposedPorts", `{"80/tcp":{},"81/tcp":{}}`},
		{"--expose 90-91/udp -P", "Config.ExposedPorts", `{"90/udp":{},"91/udp":{}}`},
		{"-P", "HostConfig.PublishAllPorts", `true`},
		{"--dns 1.1.1.1 --dns 2606:4700::1111", "HostConfig.Dns", `["1.1.1.1","2606:4700::1111"]`},
		{"--dns-search a.b --dns-option rotate", "HostConfig.DnsSearch", `["a.b"]`},
		{"--dns-search a.b --dns-option rotate", "HostConfig.DnsOptions", `["rotate"]`},
		{"--add-host a:1.2.3.4 --add-host b=::1", "HostConfig.ExtraHosts", `["a:1.2.3.4","b:::1"]`},
		{"-v /h:/c:ro -v name:/d -v /anon -v /h:/c:ro", "HostConfig.Binds", `["/h:/c:ro","name:/d"]`},
		{"-v /h:/c:ro -v name:/d -v /anon", "Config.Volumes", `{"/anon":{}}`},
		{"-v ./x:/c", "HostConfig.Binds", `["` + cwd + `/x:/c"]`},
		{"-v .:/c", "HostConfig.Binds", `["` + cwd + `:/c"]`},
		{"--mount type=bind,src=/h,dst=/c,ro,bind-propagation=rslave", "HostConfig.Mounts",
			`[{"BindOptions":{"Propagation":"rslave"},"ReadOnly":true,"Source":"/h","Target":"/c","Type":"bind"}]`},
		{"--mount src=v,target=/c,volume-nocopy", "HostConfig.Mounts",
			`[{"Source":"v","Target":"/c","Type":"volume","VolumeOptions":{"NoCopy":true}}]`},
		{"--mount type=tmpfs,dst=/c,tmpfs-size=1m,tmpfs-mode=1770", "HostConfig.Mounts",
			`[{"Target":"/c","TmpfsOptions":{"Mode":1016,"SizeBytes":1048576},"Type":"tmpfs"}]`},
		{"--tmpfs /t --tmpfs /u:size=1m,exec", "HostConfig.Tmpfs", `{"/t":"","/u":"size=1m,exec"}`},
		{"--volumes-from other:ro", "HostConfig.VolumesFrom", `["other:ro"]`},
		{"--device /dev/fuse", "HostConfig.Devices", `[{"CgroupPermissions":"rwm","PathInContainer":"/dev/fuse","PathOnHost":"/dev/fuse"}]`},
		{"--device /dev/a:/dev/b:r", "HostConfig.Devices", `[{"CgroupPermissions":"r","PathInContainer":"/dev/b","PathOnHost":"/dev/a"}]`},
		{"--device /dev/a:rw", "HostConfig.Devices", `[{"CgroupPermissions":"rw","PathInContainer":"/dev/a","PathOnHost":"/dev/a"}]`},
		{"--read-only", "HostConfig.ReadonlyRootfs", `true`},
		{"-m 64m", "HostConfig.Memory", `67108864`},
		{"-m 64m --memory-swap -1", "HostConfig.MemorySwap", `-1`},
		{"--memory-reservation 1g", "HostConfig.MemoryReservation", `1073741824`},
		{"--memory-swappiness 0", "HostConfig.MemorySwappiness", `0`},
		{"--oom-kill-disable", "HostConfig.OomKillDisable", `true`},
		{"--oom-score-adj 500", "HostConfig.OomScoreAdj", `500`},
		{"--cpus 1.5", "HostConfig.NanoCpus", `1500000000`},
		{"-c 512", "HostConfig.CpuShares", `512`},
		{"--cpu-period 50000 --cpu-quota 25000", "HostConfig.CpuPeriod", `50000`},
		{"--cpu-period 50000 --cpu-quota 25000", "HostConfig.CpuQuota", `25000`},
		{"--cpuset-cpus 0-1 --cpuset-mems 0", "HostConfig.CpusetCpus", `"0-1"`},
		{"--cpuset-cpus 0-1 --cpuset-mems 0", "HostConfig.CpusetMems", `"0"`},
		{"--pids-limit -1", "HostConfig.PidsLimit", `-1`},
		{"--blkio-weight 500", "HostConfig.BlkioWeight", `500`},
		{"--blkio-weight-device /dev/sda:200", "HostConfig.BlkioWeightDevice", `[{"Path":"/dev/sda","Weight":200}]`},
		{"--device-read-bps /dev/sda:1mb", "HostConfig.BlkioDeviceReadBps", `[{"Path":"/dev/sda","Rate":1048576}]`},
		{"--device-write-bps /dev/sda:1", "HostConfig.BlkioDeviceWriteBps", `[{"Path":"/dev/sda","Rate":1}]`},
		{"--device-read-iops /dev/sda:2", "HostConfig.BlkioDeviceReadIOps", `[{"Path":"/dev/sda","Rate":2}]`},
		{"--device-write-iops /dev/sda:3", "HostConfig.BlkioDeviceWriteIOps", `[{"Path":"/dev/sda","Rate":3}]`},
		{"--ulimit nofile=10:20", "HostConfig.Ulimits", `[{"Hard":20,"Name":"nofile","Soft":10}]`},
		{"--shm-size 2m", "HostConfig.ShmSize", `2097152`},
		{"--cgroup-parent /x", "HostConfig.CgroupParent", `"/x"`},
		{"--userns host", "HostConfig.UsernsMode", `"host"`},
		{"--uidmap 0:100000:10 --uidmap 10:5", "UIDMap", `[{"containerID":0,"hostID":100000,"size":10},{"containerID":10,"hostID":5,"size":1}]`},
		{"--gidmap 0:1:2", "GIDMap", `[{"containerID":0,"hostID":1,"size":2}]`},
	}
	for _, tt := range tests {
		t.Run(tt.args+" "+tt.path, func(t *testing.T) {
			args := strings.Fields(tt.args)
			c, err := parse(append(args, "image", "cmd", "-x")...)
			if err != nil {
				t.Fatal(err)
			}
			if got := at(t, c, tt.path); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.path, got, tt.want)
			}
		})
	}
}

func TestRootfsTakesThePlaceOfTheImage(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args        []string
		rootfs, cmd []string
	}{
		{[]string{"--rootfs", "/", "--", "sh", "-c", "x"}, []string{"/"}, []string{"sh", "-c", "x"}},
		{[]string{"--rootfs", "/a:b", "sh"}, []string{"/a", cwd + "/b"}, []string{"sh"}},
		{[]string{"--rootfs=/"}, []string{"/"}, nil},
	}
	for _, tt := range tests {
		c, err := parse(tt.args...)
		if err != nil {
			t.Errorf("%q: %v", tt.args, err)
			continue
		}
		if !slices.Equal(c.Rootfs, tt.rootfs) || !reflect.DeepEqual([]string(c.Config.Cmd), tt.cmd) || c.Config.Image != "" {
			t.Errorf("%q: rootfs %q, command %q, image %q", tt.args, c.Rootfs, c.Config.Cmd, c.Config.Image)
		}
	}
}

func TestFlagsThatCannotBeMeant(t *testing.T) {
	notJSON := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(notJSON, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ args, want string }{
		{"", "an image or --rootfs is needed"},
		{"--gpus all image", "unknown flag: --gpus"},
		{"-a x image", "valid streams are STDIN, STDOUT and STDERR"},
		{"--rm --restart always image", "cannot specify both --restart and --rm"},
		{"--restart sometimes image", "invalid restart policy"},
		{"--restart always:3 image", "maximum retry count"},
		{"--env-file /nowhere/env image", "--env-file: open /nowhere/env"},
		{"--label-file /nowhere/l image", "--label-file: open /nowhere/l"},
		{"-e =1 image", "invalid environment variable"},
		{"-l =1 image", "invalid label"},
		{"--log-driver none --log-opt a=b image", "invalid logging opts for driver none"},
		{"--pid x image", "--pid: invalid PID mode"},
		{"--uts x image", "--uts: invalid UTS mode"},
		{"--ipc x image", "--ipc: invalid IPC mode"},
		{"--cgroupns x image", "--cgroupns: invalid CGROUP mode"},
		{"--userns x image", "--userns: invalid USER mode"},
		{"--security-opt x image", `invalid --security-opt: "x"`},
		{"--security-opt seccomp=/nowhere/p image", "opening seccomp profile (/nowhere/p) failed"},
		{"--security-opt seccomp=" + notJSON + " image", "compacting json for seccomp profile"},
		{"--sysctl a.b=1 image", "sysctl 'a.b=1' is not allowed"},
		{"-p 80:x image", "invalid containerPort: x"},
		{"-p published=1,x image", "invalid publish opts format"},
		{"--expose x image", "invalid range format for --expose"},
		{"--dns x image", "IP address is not correctly formatted: x"},
		{"--dns-search !! image", "is not a valid domain"},
		{"--add-host x image", "bad format for add-host"},
		{"-v /a:b image", "the mount path must be absolute"},
		{"-v b image", "the mount path must be absolute"},
		{"-v a:/b:ro:z image", "too many colons"},
		{"-v a: image", "empty section between colons"},
		{"--mount type=bind,src=/h image", "target is required"},
		{"--mount type=tmpfs,dst=rel image", "the mount path must be absolute"},
		{"--mount type=bind,dst=/h,colour=red image", "unknown option 'colour'"},
		{"--device a:b:c:d image", "bad format for path"},
		{"--device a:b:x image", "bad mode specified: x"},
		{"--device a:b image", "b is not an absolute path"},
		{"-m x image", "invalid size"},
		{"--cpus x image", "failed to parse"},
		{"--memory-swappiness 101 image", "Valid memory swappiness range is 0-100"},
		{"--blkio-weight 5 image", "range of blkio weight is from 10 to 1000"},
		{"--ulimit x image", "invalid ulimit argument: x"},
		{"--uidmap 0:1:2:3 image", "want container:host:count"},
		{"--uidmap 0:x:1 image", `"x" is no number of 32 bits`},
		{"--uidmap 0:4294967295:1 image", "the range is empty or too long"},
		{"--uidmap 0:1:0 image", "the range is empty or too long"},
		{"--gidmap 0:1:10 --gidmap 9:100:1 image", "it overlaps with 0:1:10"},
		{"--userns host --uidmap 0:1:1 image", "cannot specify both --userns host and --uidmap"},
		{"--rootfs /a::/b sh", "empty name of a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			_, err := parse(strings.Fields(tt.args)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
