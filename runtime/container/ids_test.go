package container

import (
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCheckOwn(t *testing.T) {
	ours := []specs.LinuxIDMapping{
		{ContainerID: 10, HostID: 300000, Size: 90}, {ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 9},
		{ContainerID: 200, HostID: 5, Size: 1},
	}
	for _, tt := range []struct {
		host, size uint32
		want       string // a part of the error
	}{
		{0, 100, ""},
		{5, 20, ""},
		{200, 1, ""},
		{0, 101, "--uidmap 0:0:101: user ID 100 is not yours to map: those here are 0-99,200"},
		{99999, 10, "user ID 99999"},
		{199, 2, "user ID 199"},
		{1<<32 - 11, 10, "user ID 4294967285"},
	} {
		err := checkOwn("uidmap", "user", []specs.LinuxIDMapping{{ContainerID: 0, HostID: tt.host, Size: tt.size}}, ours)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%d from %d on: %v, want %q", tt.size, tt.host, err, tt.want)
		}
	}
	uids, gids, err := ownIDs()
	if err != nil || len(uids) == 0 || len(gids) == 0 {
		t.Errorf("ours: %v, %v, %v", uids, gids, err)
	}
}
