package override_test

import (
	"errors"
	"testing"

	"github.com/laminafs/lamina/internal/override"
	"golang.org/x/sys/unix"
)

var values = []struct {
	value string
	want  override.Stat
	back  string // as we write it; "" where the value is refused
}{
	{"0:0:0755:dir", override.Stat{Mode: unix.S_IFDIR | 0o755}, "0:0:0755:dir"},
	{"1:2:04755:file", override.Stat{UID: 1, GID: 2, Mode: unix.S_IFREG | 0o4755}, "1:2:04755:file"},
	{"1:2:0777:symlink", override.Stat{UID: 1, GID: 2, Mode: unix.S_IFLNK | 0o777}, "1:2:0777:symlink"},
	{"1:2:0600:pipe", override.Stat{UID: 1, GID: 2, Mode: unix.S_IFIFO | 0o600}, "1:2:0600:pipe"},
	{"1:2:0600:socket", override.Stat{UID: 1, GID: 2, Mode: unix.S_IFSOCK | 0o600}, "1:2:0600:socket"},
	{"0:6:0660:block-259-1000000", override.Stat{GID: 6, Mode: unix.S_IFBLK | 0o660, Rdev: unix.Mkdev(259, 1000000)},
		"0:6:0660:block-259-1000000"},
	{"0:0:0666:char-1-3", override.Stat{Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3)}, "0:0:0666:char-1-3"},
	{"4294967294:4294967295:0", override.Stat{UID: 4294967294, GID: 4294967295}, "4294967294:4294967295:00"},
	{"0:0:755", override.Stat{Mode: 0o755}, "0:0:0755"},
	{"0:0:755:", override.Stat{Mode: 0o755}, "0:0:0755"},
	{"0:0:755\x00", override.Stat{Mode: 0o755}, "0:0:0755"},                    // written with its terminator
	{"0:0:100644", override.Stat{Mode: unix.S_IFREG | 0o644}, "0:0:0644:file"}, // fuse-overlayfs: the whole st_mode
	{"0:0:100644:dir", override.Stat{Mode: unix.S_IFDIR | 0o644}, "0:0:0644:dir"},
	{"", override.Stat{}, ""},
	{"0:0", override.Stat{}, ""},
	{"0:0:8", override.Stat{}, ""},
	{"0:0:-1", override.Stat{}, ""},
	{"-1:0:0", override.Stat{}, ""},
	{"4294967296:0:0", override.Stat{}, ""},
	{"0:x:0", override.Stat{}, ""},
	{"0:0:20000000755", override.Stat{}, ""}, // a mode as Go's fs.FileMode has it
	{"0:0:0:door", override.Stat{}, ""},
	{"0:0:0:char", override.Stat{}, ""},
	{"0:0:0:char-1", override.Stat{}, ""},
	{"0:0:0:char-1-2-3", override.Stat{}, ""},
	{"0:0:0:char--1-2", override.Stat{}, ""},
	{"0:0:0:dir:more", override.Stat{}, ""},
}

func TestParse(t *testing.T) {
	for _, tt := range values {
		s, err := override.Parse(tt.value)
		if tt.back == "" {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%q: %+v, %v; want EINVAL", tt.value, s, err)
			}
			continue
		}
		if s != tt.want || err != nil || s.String() != tt.back {
			t.Errorf("%q: %+v (%s), %v; want %+v (%s)", tt.value, s, s, err, tt.want, tt.back)
		}
	}
}

// FuzzParseOverride: the value of an untrusted layer is refused, or stands for an owner and mode that can be written
// back.
func FuzzParseOverride(f *testing.F) {
	for _, tt := range values {
		f.Add(tt.value)
	}
	f.Fuzz(func(t *testing.T, v string) {
		s, err := override.Parse(v)
		if err != nil {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%q: %v", v, err)
			}
			return
		}
		switch s.Mode & unix.S_IFMT {
		case 0, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
			if s.Rdev != 0 {
				t.Errorf("%q: %+v is no device and has a device number", v, s)
			}
		case unix.S_IFCHR, unix.S_IFBLK:
		default:
			t.Errorf("%q: mode %o has no known type", v, s.Mode)
		}
		if s.Mode&^(unix.S_IFMT|0o7777) != 0 {
			t.Errorf("%q: mode %o", v, s.Mode)
		}
		if again, err := override.Parse(s.String()); again != s || err != nil {
			t.Errorf("%q is %+v, and written back %+v, %v", v, s, again, err)
		}
	})
}
