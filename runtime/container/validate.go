package container

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/sys/capability"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/network"
)

// defaultShmSize is what /dev/shm holds, in bytes, minMemory the least that --memory takes, and minNanoCPUs --cpus: Docker's.
const (
	minNanoCPUs    = 1e7 // the kernel's least quota, 1 ms of 100
	defaultShmSize = 64 << 20
	minMemory      = 6 << 20
)

// fillHost sets Docker's defaults.
func fillHost(h *api.HostConfig) {
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = api.RestartPolicyDisabled
	}
	if h.ShmSize == 0 {
		h.ShmSize = defaultShmSize
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = "json-file"
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = api.IPCModePrivate
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = api.CgroupnsModePrivate
	}
	if h.Privileged {
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
	if h.MaskedPaths == nil && !unconfinedPaths(h) {
		h.MaskedPaths = slices.Clone(maskedPaths)
	}
	if h.ReadonlyPaths == nil && !unconfinedPaths(h) {
		h.ReadonlyPaths = slices.Clone(readonlyPaths)
	}
}

// check finds what cannot be meant, in Docker's words, and what is Docker's but cannot be had here. It needs no
// machine but for its number of CPUs.
func check(c *api.Config, h *api.HostConfig) error {
	return errors.Join(checkConfig(c), checkUnsupported(h), checkHost(h), checkResources(&h.Resources), checkSecurity(h))
}

func checkConfig(c *api.Config) error {
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return fail(ErrInvalid, "the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	for _, e := range c.Env {
		if e == "" || e[0] == '=' || strings.IndexByte(e, 0) >= 0 {
			return fail(ErrInvalid, "invalid environment variable: %q", e)
		}
	}
	if c.StopSignal != "" {
		if _, err := parseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if c.StopTimeout != nil && *c.StopTimeout < -1 {
		return fail(ErrInvalid, "invalid stop timeout: %d seconds", *c.StopTimeout)
	}
	if len(c.Hostname) > 64 || strings.ContainsAny(c.Hostname, "/\x00\n ") {
		return fail(ErrInvalid, "invalid hostname: %q", c.Hostname)
	}
	return nil
}

// checkUnsupported refuses what Docker has and this launcher has not, with what to do instead.
func checkUnsupported(h *api.HostConfig) error {
	for _, t := range []struct {
		is   bool
		flag string
		why  string
	}{
		{!h.PidMode.Valid(), "--pid=" + string(h.PidMode), "want host, container:NAME or nothing"},
		{h.IpcMode.IsContainer(), "--ipc=" + string(h.IpcMode),
			"not supported: /dev/shm is a container's own; use host, private or none, or run the second command with exec"},
		{!h.IpcMode.Valid(), "--ipc=" + string(h.IpcMode), "want host, private, shareable or none"},
		{!h.UTSMode.Valid(), "--uts=" + string(h.UTSMode), "want host or nothing"},
		{!h.CgroupnsMode.Valid(), "--cgroupns=" + string(h.CgroupnsMode), "want private or host"},
		{len(h.Links) > 0, "--link", "not supported: containers share no network"},
		{len(h.DeviceRequests) > 0, "--gpus", "not supported"},
		{h.VolumeDriver != "" && h.VolumeDriver != "local", "--volume-driver=" + h.VolumeDriver, "only local"},
		{len(h.StorageOpt) > 0, "--storage-opt", "not supported"},
		{h.Runtime != "", "--runtime", "not supported"},
		{h.Isolation != "" && !h.Isolation.IsDefault(), "--isolation=" + string(h.Isolation), "only default"},
		{h.OomKillDisable != nil && *h.OomKillDisable, "--oom-kill-disable", "not supported: a full container would hang"},
		{h.CPURealtimePeriod != 0 || h.CPURealtimeRuntime != 0, "--cpu-rt-runtime", "not supported"},
	} {
		if t.is {
			return fail(ErrInvalid, "%s: %s", t.flag, t.why)
		}
	}
	return nil
}

func checkHost(h *api.HostConfig) error {
	if err := api.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return fail(ErrInvalid, "%s", err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return fail(ErrInvalid, "can't create 'AutoRemove' container with restart policy")
	}
	switch m := string(h.NetworkMode); {
	case connected(m) != "", network.IsDefault(m), m == string(network.Private), m == string(network.Host), m == string(network.None):
	default:
		return fail(ErrInvalid, "network %s not found: want host, none, private or container:NAME", m)
	}
	if (h.NetworkMode == "none" || h.NetworkMode == "host") && len(h.PortBindings) > 0 && h.NetworkMode == "none" {
		return fail(ErrInvalid, "conflicting options: port publishing and the network mode %q", h.NetworkMode)
	}
	switch u := string(h.UsernsMode); u {
	case "", "host", "private", "keep-id":
	default:
		return fail(ErrInvalid, "--userns=%s: want host, private or keep-id", u)
	}
	for _, e := range h.ExtraHosts {
		if _, _, err := parseExtraHost(e); err != nil {
			return err
		}
	}
	if h.ShmSize < 0 {
		return fail(ErrInvalid, "SHM size can not be less than 0")
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return fail(ErrInvalid, "Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	for _, name := range sortedKeys(h.Sysctls) {
		if !namespacedSysctl(name, h.NetworkMode == "host") {
			return fail(ErrInvalid, "sysctl %q is not of the container's own namespaces: it would change the machine", name)
		}
	}
	_, err := logOptions(h.LogConfig)
	return err
}

// namespacedSysctl tells whether the variable belongs to the IPC or network namespace.
func namespacedSysctl(name string, hostNet bool) bool {
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced":
		return true
	}
	return strings.HasPrefix(name, "fs.mqueue.") || strings.HasPrefix(name, "net.") && !hostNet
}

// parseExtraHost reads NAME:IP or NAME=IP; the IP may be host-gateway.
func parseExtraHost(s string) (name, ip string, err error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 {
		return "", "", fail(ErrInvalid, "bad format for add-host: %q", s)
	}
	name, ip = s[:i], strings.Trim(s[i+1:], "[]")
	if ip == "host-gateway" {
		return name, ip, nil
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", "", fail(ErrInvalid, "invalid IP address in add-host: %q", ip)
	}
	return name, ip, nil
}

func checkResources(r *api.Resources) error {
	bad := func(format string, args ...any) error { return fail(ErrInvalid, format, args...) }
	cpus := goruntime.NumCPU()
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return bad("Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return bad("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return bad("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemoryReservation != 0 && r.MemoryReservation < minMemory:
		return bad("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return bad("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return bad("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs != 0 && (r.NanoCPUs < minNanoCPUs || r.NanoCPUs > int64(cpus)*1e9):
		return bad("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case r.CPUShares < 0:
		return bad("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return bad("range of blkio weight is from 10 to 1000")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return bad("invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	}
	if err := checkCPUSet(r.CpusetCpus); err != nil {
		return err
	}
	for _, u := range r.Ulimits {
		if _, err := rlimit(u); err != nil {
			return err
		}
	}
	for _, d := range r.Devices {
		if !path.IsAbs(d.PathOnHost) || d.PathInContainer != "" && !path.IsAbs(d.PathInContainer) {
			return bad("bad format for path: %q: devices have absolute paths", d.PathOnHost)
		}
	}
	return nil
}

// checkCPUSet finds processors that the machine does not have. Which of them the user's cgroups may use is seen at the start.
func checkCPUSet(list string) error {
	if list == "" {
		return nil
	}
	wanted, err := sys.ParseCPUs(list)
	if err != nil {
		return fail(ErrInvalid, "Invalid value %s for cpuset cpus", list)
	}
	online, available, err := sys.CPUs("online")
	if err != nil {
		return nil // no /sys: the start tells
	}
	for _, cpu := range wanted {
		if !slices.Contains(online, cpu) {
			return fail(ErrInvalid, "Requested CPUs are not available - requested %s, available: %s", list, available)
		}
	}
	return nil
}

// checkSecurity checks capabilities and --security-opt.
func checkSecurity(h *api.HostConfig) error {
	if _, err := capabilities(h.CapAdd, h.CapDrop, nil); err != nil {
		return err
	}
	_, err := securityOptions(h)
	return err
}

// security is what --security-opt says.
type security struct {
	seccomp         string // a profile in JSON; empty is the default one, "unconfined" is none
	noNewPrivileges bool
	unconfinedPaths bool // systempaths=unconfined: nothing is masked or read-only
}

// securityOptions reads --security-opt. no-new-privileges is on unless it is turned off, and a privileged container has
// neither it nor a seccomp profile without asking for them.
func securityOptions(h *api.HostConfig) (security, error) {
	s := security{noNewPrivileges: !h.Privileged}
	if h.Privileged {
		s.seccomp = "unconfined"
	}
	for _, o := range h.SecurityOpt {
		key, value, has := strings.Cut(o, "=")
		if !has {
			key, value, _ = strings.Cut(o, ":") // Docker's old spelling
		}
		switch key {
		case "no-new-privileges":
			switch value {
			case "", "true", "1":
				s.noNewPrivileges = true
			case "false", "0":
				s.noNewPrivileges = false
			default:
				return s, fail(ErrInvalid, "invalid --security-opt %q: want true or false", o)
			}
		case "seccomp":
			s.seccomp = value
			if value == "builtin" {
				s.seccomp = ""
			}
		case "systempaths":
			if value != "unconfined" {
				return s, fail(ErrInvalid, "invalid --security-opt %q: want systempaths=unconfined", o)
			}
			s.unconfinedPaths = true
		case "apparmor", "label":
			if value != "unconfined" && value != "disable" {
				return s, fail(ErrInvalid, "--security-opt %s: %s is not supported; unconfined and disable are", o, key)
			}
		default:
			return s, fail(ErrInvalid, "invalid --security-opt: %q", o)
		}
	}
	return s, nil
}

func unconfinedPaths(h *api.HostConfig) bool {
	s, err := securityOptions(h)
	return err == nil && s.unconfinedPaths
}

// inlineSeccomp puts the profile in place of the file's name, as Docker's client does: the file may be gone at start.
func inlineSeccomp(opts []string) ([]string, error) {
	opts = slices.Clone(opts)
	for i, o := range opts {
		key, value, _ := strings.Cut(o, "=")
		if key != "seccomp" || value == "unconfined" || value == "builtin" || value == "" ||
			strings.HasPrefix(strings.TrimSpace(value), "{") {
			continue
		}
		b, err := os.ReadFile(value)
		if err != nil {
			return nil, fail(ErrInvalid, "opening seccomp profile (%s) failed: %v", value, err)
		}
		opts[i] = "seccomp=" + string(b)
	}
	return opts, nil
}

// known are the capabilities by name, "CAP_CHOWN".
func knownCapabilities() map[string]bool {
	m := map[string]bool{}
	for _, c := range capability.ListKnown() {
		m["CAP_"+strings.ToUpper(c.String())] = true
	}
	return m
}

// wantsAll tells whether --cap-add, or --cap-drop, has "ALL".
func wantsAll(list []string) bool {
	return slices.ContainsFunc(list, isAll)
}

func isAll(capability string) bool { return strings.EqualFold(capability, "ALL") }

// capabilities is what a container has: Docker's default with add and drop applied by its rules (oci/caps): "ALL" in
// either, drops before adds. "ALL" that are added are those held.
func capabilities(add, drop, held []string) ([]string, error) {
	known := knownCapabilities()
	normal := func(flag string, list []string) (names []string, err error) { // but "ALL"
		for _, c := range list {
			if isAll(c) {
				continue
			}
			c = strings.ToUpper(c)
			if !strings.HasPrefix(c, "CAP_") {
				c = "CAP_" + c
			}
			if !known[c] {
				return nil, fail(ErrInvalid, "invalid %s: unknown capability: %q", flag, c)
			}
			names = append(names, c)
		}
		return names, nil
	}
	added, err := normal("CapAdd", add)
	if err != nil {
		return nil, err
	}
	dropped, err := normal("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	switch {
	case wantsAll(add):
		for _, c := range held {
			have[c] = true
		}
		for _, c := range dropped {
			delete(have, c)
		}
	case wantsAll(drop):
	default:
		for _, c := range defaultCapabilities {
			have[c] = true
		}
		for _, c := range dropped {
			delete(have, c)
		}
	}
	if !wantsAll(add) {
		for _, c := range added {
			have[c] = true
		}
	}
	return sortedKeys(have), nil
}

// logConfig is what --log-driver and --log-opt say.
type logConfig struct {
	none     bool
	maxSize  int64 // bytes; 0 is no limit
	maxFiles int
}

func logOptions(l api.LogConfig) (logConfig, error) {
	o := logConfig{maxFiles: 1}
	switch l.Type {
	case "", "json-file":
	case "none":
		o.none = true
	default:
		return o, fail(ErrInvalid, "logger: no log driver named '%s' is registered: json-file and none are", l.Type)
	}
	for _, key := range sortedKeys(l.Config) {
		value := l.Config[key]
		var err error
		switch key {
		case "max-size":
			o.maxSize, err = units.FromHumanSize(value)
			if err == nil && o.maxSize <= 0 {
				err = errors.New("must be greater than 0")
			}
		case "max-file":
			_, err = fmt.Sscanf(value, "%d", &o.maxFiles)
			if err == nil && o.maxFiles < 1 {
				err = errors.New("max-file cannot be less than 1")
			}
		default:
			err = errors.New("unknown log opt: max-size and max-file are known")
		}
		if err != nil {
			return o, fail(ErrInvalid, "log opt %s=%s: %v", key, value, err)
		}
	}
	if o.maxFiles > 1 && o.maxSize == 0 {
		return o, fail(ErrInvalid, "max-file must not be set without max-size")
	}
	return o, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
