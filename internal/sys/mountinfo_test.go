package sys

import (
	"reflect"
	"testing"
)

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		"/plain":         "/plain",
		`/a\040b`:        "/a b",
		`\011\012\134`:   "\t\n\\",
		`/end\`:          `/end\`,
		`/short\04`:      `/short\04`,
		`/no\089octal`:   `/no\089octal`,
		`/high\777`:      `/high\777`,
		`/\134040`:       `/\040`,
		`/byte\377after`: "/byte\xffafter",
	} {
		if got := UnescapeOctal(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseMounts(t *testing.T) {
	const text = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n" +
		"77 22 0:45 / /mnt/a\\040b ro,nosuid shared:1 master:2 - fuse.laminafs laminafs rw,user_id=0\n"
	want := []MountPoint{{254, 0, "/", "ext4"}, {0, 45, "/mnt/a b", "fuse.laminafs"}}
	got, err := parseMounts(text)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"22 1 254:0 / / rw\n", "22 1 x / / rw - ext4 a b\n", "\n"} {
		if got, err := parseMounts(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

// The machine's own list is readable, and has a root.
func TestMounts(t *testing.T) {
	list, err := Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if m.Path == "/" {
			return
		}
	}
	t.Errorf("no root in %v", list)
}
