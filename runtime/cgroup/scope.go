package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/cgroups"
)

// containerCgroup is the child of a scope that has the container; the scope's processes are in supervisor beside it.
const containerCgroup = "container"

// errNoSystemd is returned where systemd does not run, or not for this user: nothing worth telling.
var errNoSystemd = errors.New("no systemd")

// scopeTimeout bounds the wait for systemd. It answers in milliseconds, or after the user's manager has started.
const scopeTimeout = 30 * time.Second

func unitName(id string) string { return "lamina-" + id + ".scope" }

func inUserNamespace() bool { return userns.RunningInUserNS() }

// scope asks systemd for a scope, in a slice if one is named, with the calling process in it, moves that to a child, and returns the place beside it.
// A monitor that restarts its container is in the scope already.
func (m *machine) scope(h *hierarchy, id, slice string) (place, error) {
	unit := unitName(id)
	dir, ok := insideUnit(h.own, unit)
	if !ok {
		own, err := startScope(h, unit, id, slice)
		if err != nil {
			return place{}, err
		}
		if dir, ok = insideUnit(own, unit); !ok {
			return place{}, fmt.Errorf("systemd left us in %s instead of %s", own, unit)
		}
	}
	if hasProcesses(dir) {
		if err := moveDown(dir); err != nil {
			return place{}, err
		}
	}
	return place{Version: VersionV2, Paths: map[string]string{unified: filepath.Join(dir, containerCgroup)}, Unit: unit, Scope: dir}, nil
}

// insideUnit cuts the path of a cgroup at the directory of the unit.
func insideUnit(path, unit string) (string, bool) {
	before, _, ok := strings.Cut(path+"/", "/"+unit+"/")
	return before + "/" + unit, ok
}

// startScope has systemd make the scope and move us into it. own is the cgroup that we are in afterwards.
func startScope(h *hierarchy, unit, id, slice string) (own string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), scopeTimeout)
	defer cancel()
	conn, user, err := dialSystemd(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()

	switch {
	case slice != "" && !strings.HasSuffix(slice, ".slice"):
		return "", errors.New(`cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	case slice != "":
	case user:
		slice = "user.slice"
	default:
		slice = "system.slice"
	}
	property := func(name string, v any) systemd.Property {
		return systemd.Property{Name: name, Value: dbus.MakeVariant(v)}
	}
	done := make(chan string, 1)
	_, err = conn.StartTransientUnitContext(ctx, unit, "replace", []systemd.Property{
		systemd.PropDescription("lamina container " + id),
		systemd.PropSlice(slice),
		systemd.PropPids(uint32(os.Getpid())),
		property("Delegate", true),
		property("CPUAccounting", true),
		property("MemoryAccounting", true),
		property("IOAccounting", true),
		property("TasksAccounting", true),
		property("TasksMax", uint64(1<<64-1)), // the container's own limit is ours to set
		property("CollectMode", "inactive-or-failed"),
		property("DefaultDependencies", false),
	}, done)
	if err != nil {
		return "", fmt.Errorf("systemd does not start %s: %w", unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return "", fmt.Errorf("systemd does not start %s: %s", unit, result)
		}
	case <-ctx.Done():
		return "", fmt.Errorf("systemd does not start %s: no answer in %v", unit, scopeTimeout)
	}
	now, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("cgroups: %w", err)
	}
	return below(h.mount, h.root, now[unified]), nil
}

// dialSystemd connects to the manager that may give the caller a scope: the system's for root, else the user's.
//
// The credential that the socket sees is the uid outside of our user namespace. The private socket of a manager is there
// also where no D-Bus daemon is installed; the bus is where it is not.
func dialSystemd(ctx context.Context) (conn *systemd.Conn, user bool, err error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, false, errNoSystemd // sd_booted(3)
	}
	uid := outerUID()
	private, bus := "/run/systemd/private", "/run/dbus/system_bus_socket"
	if uid != 0 {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			dir = "/run/user/" + strconv.Itoa(uid)
		}
		private, bus = filepath.Join(dir, "systemd/private"), filepath.Join(dir, "bus")
	} else if inUserNamespace() {
		return nil, false, errNoSystemd // root of a namespace that root made: not the machine's to the manager
	}
	var errs []error
	for _, socket := range []string{private, bus} {
		if _, err := os.Stat(socket); err != nil {
			continue
		}
		conn, err := systemd.NewConnection(func() (*dbus.Conn, error) { return dial(ctx, socket, uid, socket == bus) })
		if err == nil {
			return conn, uid != 0, nil
		}
		errs = append(errs, fmt.Errorf("systemd at %s: %w", socket, err))
	}
	if len(errs) == 0 {
		return nil, false, errNoSystemd
	}
	return nil, false, errors.Join(errs...)
}

func dial(ctx context.Context, socket string, uid int, hello bool) (*dbus.Conn, error) {
	conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(socket), dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))})
	if err == nil && hello {
		err = conn.Hello()
	}
	if err != nil {
		_ = conn.Close() // the error at hand is the one to tell
		return nil, err
	}
	return conn, nil
}

// scopeSlices are the directories in which systemd puts the scopes of startScope.
func scopeSlices(h *hierarchy) []string {
	uid := strconv.Itoa(outerUID())
	if uid == "0" {
		return []string{filepath.Join(h.mount, "system.slice")}
	}
	return []string{filepath.Join(h.mount, "user.slice/user-"+uid+".slice/user@"+uid+".service/user.slice")}
}
