package mountopt

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/unionfs"
	"github.com/laminafs/lamina/unionfs/transport"
	"github.com/laminafs/lamina/whiteout"
)

// parse reads args behind a lowerdir, without which nothing is valid.
func parse(t *testing.T, args ...string) *Options {
	t.Helper()
	o, err := Parse(append([]string{"lowerdir=/l"}, args...)...)
	if err != nil {
		t.Fatalf("Parse %q: %v", args, err)
	}
	return o
}

func TestLowerdir(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"one", []string{`lowerdir=/a`}, []string{"/a"}},
		{"topmost first", []string{`lowerdir=/a:/b:/c`}, []string{"/a", "/b", "/c"}},
		{"given twice adds", []string{`lowerdir=/a,lowerdir=/b:/c`}, []string{"/a", "/b", "/c"}},
		{"in several -o", []string{`lowerdir=/a`, `lowerdir=/b`}, []string{"/a", "/b"}},
		{"plus adds", []string{`lowerdir+=/a,lowerdir+=/b`}, []string{"/a", "/b"}},
		{"plus behind a list", []string{`lowerdir=/a:/b,lowerdir+=/c`}, []string{"/a", "/b", "/c"}},
		{"plus keeps colons", []string{`lowerdir+=/a:b`}, []string{"/a:b"}},
		{"escaped colon", []string{`lowerdir=/a\:b:/c`}, []string{"/a:b", "/c"}},
		{"escaped comma", []string{`lowerdir=/a\,b:/c`}, []string{"/a,b", "/c"}},
		{"escaped backslash", []string{`lowerdir=/a\\:/b\\\\`}, []string{`/a\`, `/b\\`}},
		{"backslash and colon in a name", []string{`lowerdir=/a\\\:b`}, []string{`/a\:b`}},
		{"backslash before another", []string{`lowerdir=/a\b`}, []string{`/ab`}},
		{"backslash at the end", []string{`lowerdir=/a\`}, []string{`/a\`}},
		{"empty layers", []string{`lowerdir=:/a::/b:`}, []string{"/a", "/b"}},
		{"quoted", []string{`lowerdir="/a,b:/c"`}, []string{"/a,b", "/c"}},
		{"quote in a name", []string{`lowerdir=/a"b,c"`, `lowerdir=/d`}, []string{`/a"b`, `/d`}},
		{"quote that opens only", []string{`lowerdir="a,ro`}, []string{`"a`}},
		{"equals in a name", []string{`lowerdir=/a=b`}, []string{"/a=b"}},
		{"relative, any bytes", []string{"lowerdir=a b\n\xff:ü"}, []string{"a b\n\xff", "ü"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := Parse(tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(o.Union.Lowers, tt.want) {
				t.Errorf("layers %q, want %q", o.Union.Lowers, tt.want)
			}
		})
	}
}

func TestLayerLimit(t *testing.T) {
	layers := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ":/layer%d", i)
		}
		return "lowerdir=" + b.String()[1:]
	}
	if o, err := Parse(layers(MaxLayers)); err != nil || len(o.Union.Lowers) != MaxLayers {
		t.Errorf("%d layers: %v", MaxLayers, err)
	}
	if _, err := Parse(layers(MaxLayers + 1)); err == nil || err.Error() != "lowerdir: 501 layers, at most 500" {
		t.Errorf("%d layers: %v", MaxLayers+1, err)
	}
	if _, err := Parse(layers(MaxLayers), "lowerdir+=/one/more"); err == nil {
		t.Error("one layer more by lowerdir+ passes")
	}
}

func TestLongArgument(t *testing.T) {
	dir := "/" + strings.Repeat("d", 250)
	arg := "lowerdir=" + strings.Repeat(dir+":", 400) // 100 KB
	o, err := Parse(arg)
	if err != nil || len(o.Union.Lowers) != 400 || o.Union.Lowers[399] != dir {
		t.Fatalf("%d bytes: %v", len(arg), err)
	}
}

func ptr(n uint32) *uint32 { return &n }

func TestUnionOptions(t *testing.T) {
	tests := []struct {
		arg  string
		want unionfs.Config // Lowers are filled in
	}{
		{"", unionfs.Config{}},
		{",,", unionfs.Config{}},
		{"upperdir=/u,workdir=/w", unionfs.Config{Upper: "/u", Work: "/w"}},
		{`upperdir=/u\:\,\\,workdir=/w:x`, unionfs.Config{Upper: `/u:,\`, Work: "/w:x"}},
		{"redirect_dir=on", unionfs.Config{RedirectDir: true}},
		{"redirect_dir=on,redirect_dir=off", unionfs.Config{}},
		{"redirect_dir=follow", unionfs.Config{}},
		{"whiteout=overlay", unionfs.Config{Whiteout: whiteout.Overlay}},
		{"whiteout=overlay,whiteout=wh", unionfs.Config{Whiteout: whiteout.WH}},
		{"xino=off,index=off", unionfs.Config{NoXino: true, NoIndex: true}},
		{"xino,index", unionfs.Config{}},
		{"xino=auto,index=on", unionfs.Config{}},
		{"uidmapping=0:1000:1:1:110000:65536", unionfs.Config{UIDMap: unionfs.IDMap{{Host: 1000, Size: 1},
			{Container: 1, Host: 110000, Size: 65536}}}},
		{"gidmapping=:0:1000:1:1:110000:65536", unionfs.Config{GIDMap: unionfs.IDMap{{Host: 1000, Size: 1},
			{Container: 1, Host: 110000, Size: 65536}}}},
		{"uidmapping=0:0:4294967295", unionfs.Config{UIDMap: unionfs.IDMap{{Size: 4294967295}}}},
		{"squash_to_root", unionfs.Config{SquashToRoot: true}},
		{"squash_to_uid=0,squash_to_gid=4294967294", unionfs.Config{SquashToUID: ptr(0), SquashToGID: ptr(4294967294)}},
		{"xattr_permissions=2", unionfs.Config{XattrPermissions: 2}},
		{"xattr_permissions=2,xattr_permissions=0", unionfs.Config{}},
		{"static_nlink", unionfs.Config{StaticNlink: true}},
		{"noacl", unionfs.Config{NoACL: true}},
		{"noxattr", unionfs.Config{NoXattr: true}},
		{"noxattrs", unionfs.Config{NoXattr: true}},
		{"noxattrs=1,noxattrs=0", unionfs.Config{}},
		{"volatile", unionfs.Config{Volatile: true}},
		{"fsync=0", unionfs.Config{Volatile: true}},
		{"sync=0", unionfs.Config{Volatile: true}},
		{"volatile,fsync=1", unionfs.Config{}},
		{"timeout=0", unionfs.Config{Timeout: -1}},
		{"timeout=1.5", unionfs.Config{Timeout: 1500 * time.Millisecond}},
		{"timeout=1000000000", unionfs.Config{}},
		{"timeout=inf", unionfs.Config{}},
		{"writeback", unionfs.Config{WritebackCache: true}},
		{"threaded=0", unionfs.Config{SingleThreaded: true}},
		{"writeback=0", unionfs.Config{}},
		{"passthrough", unionfs.Config{Passthrough: true}},
		{"noatime", unionfs.Config{NoAtime: true}},
		{"noatime,atime", unionfs.Config{}},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			o := parse(t, tt.arg)
			tt.want.Lowers = []string{"/l"}
			if !reflect.DeepEqual(o.Union, tt.want) {
				t.Errorf("got  %+v\nwant %+v", o.Union, tt.want)
			}
			if len(o.Warnings) > 0 {
				t.Errorf("warnings: %q", o.Warnings)
			}
		})
	}
}

// Without an upper the mount itself is read-only, so that open(2) for writing is refused by the kernel.
func TestNoUpperIsReadOnly(t *testing.T) {
	if o := parse(t, "rw"); o.Mount.Set&unix.MS_RDONLY == 0 {
		t.Errorf("mounted with %+v", o.Mount)
	}
	if o := parse(t, "upperdir=/u,workdir=/w"); o.Mount.Set&unix.MS_RDONLY != 0 {
		t.Errorf("with an upper mounted with %+v", o.Mount)
	}
}

func TestMountOptions(t *testing.T) {
	tests := []struct {
		arg  string
		want transport.Options
	}{
		{"ro", transport.Options{Set: unix.MS_RDONLY}},
		{"ro,rw", transport.Options{Clear: unix.MS_RDONLY}},
		{"nosuid,nodev,noexec", transport.Options{Set: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}},
		{"suid,dev,exec", transport.Options{Clear: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}},
		{"nosuid,suid", transport.Options{Clear: unix.MS_NOSUID}},
		{"noatime,nodiratime,lazytime", transport.Options{Set: unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_LAZYTIME}},
		{"sync", transport.Options{Set: unix.MS_SYNCHRONOUS}},
		{"allow_other", transport.Options{AllowOther: true}},
		{"allow_root", transport.Options{AllowRoot: true}},
		{"max_write=65536", transport.Options{MaxWrite: 65536}},
		{`fsname=a\,b`, transport.Options{FSName: "a,b"}},
		{`context="system_u:object_r:container_file_t:s0:c1,c2"`,
			transport.Options{Contexts: []string{"context=system_u:object_r:container_file_t:s0:c1,c2"}}},
		{"context=a,rootcontext=b,context=c", transport.Options{Contexts: []string{"rootcontext=b", "context=c"}}},
		{"transport=loop,transport=gofuse", transport.Options{Transport: transport.Gofuse}},
		{"threaded=0", transport.Options{SingleThreaded: true}},
		{"threaded=1", transport.Options{}},
		{"noacl", transport.Options{NoACL: true}},
		{"noxattr", transport.Options{NoACL: true}},
		{"writeback=1", transport.Options{Writeback: true}},
		{"passthrough=1", transport.Options{Passthrough: true}},
		{"default_permissions,_netdev,user,auto,nofail,x-systemd.automount,X-mount.mkdir=0755,comment=hi,subtype=laminafs",
			transport.Options{}},
		{"clone_fd,max_idle_threads=3,fast_ino=1,splice_read", transport.Options{}},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			o := parse(t, "upperdir=/u,workdir=/w,"+tt.arg)
			if !reflect.DeepEqual(o.Mount, tt.want) {
				t.Errorf("got  %+v\nwant %+v", o.Mount, tt.want)
			}
			if len(o.Warnings) > 0 {
				t.Errorf("warnings: %q", o.Warnings)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	if o := parse(t); o.Metrics != nil {
		t.Errorf("without being asked: %v", o.Metrics)
	}
	for arg, want := range map[string]string{
		`metrics=unix:/a\,b\:c`: "unix:/a,b:c", "metrics=[::1]:9": "[::1]:9", "metrics=127.0.0.1:1,metrics=127.0.0.1:2": "127.0.0.1:2",
	} {
		if o := parse(t, arg); o.Metrics == nil || o.Metrics.String() != want || len(o.Warnings) > 0 {
			t.Errorf("%s: %v, warnings %q", arg, o.Metrics, o.Warnings)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct{ arg, want string }{
		{"lowerdir=", "lowerdir: no layer in it"},
		{"lowerdir=::", "lowerdir=::: no layer in it"},
		{"lowerdir+=", "lowerdir+: empty"},
		{"upperdir=", "upperdir: empty"},
		{"upperdir=/u", "workdir: missing: upperdir=/u needs one on its filesystem"},
		{"redirect_dir=maybe", "redirect_dir=maybe: want on or off"},
		{"redirect_dir", "redirect_dir: want on or off"},
		{"whiteout=aufs", "whiteout=aufs: want wh or overlay"},
		{"xino=2", "xino=2: want 0 or 1, off or on"},
		{"index=auto", "index=auto: want 0 or 1, off or on"},
		{"uidmapping=0:1", "uidmapping=0:1: want container:host:size, any number of times"},
		{"uidmapping=", "uidmapping: want container:host:size, any number of times"},
		{"gidmapping=0:x:1", "gidmapping=0:x:1: want container:host:size triples of numbers, not x"},
		{"gidmapping=0:1:0", "gidmapping=0:1:0: range 0:1:0 is empty or leaves the ids there are"},
		{"uidmapping=1:4294967295:2", "uidmapping=1:4294967295:2: range 1:4294967295:2 is empty or leaves the ids there are"},
		{"squash_to_uid=-1", "squash_to_uid=-1: want an id, 0 to 4294967294"},
		{"squash_to_gid=4294967295", "squash_to_gid=4294967295: want an id, 0 to 4294967294"},
		{"xattr_permissions=3", "xattr_permissions=3: want 0, 1 or 2"},
		{"timeout=soon", "timeout=soon: want seconds"},
		{"timeout=-1", "timeout=-1: want seconds"},
		{"timeout=nan", "timeout=nan: want seconds"},
		{"transport=pigeon", "transport=pigeon: want auto, loop, uring, gofuse"},
		{"metrics=9000", "metrics=9000: want unix:PATH or 127.0.0.1:PORT"},
		{"metrics=:9000", "metrics=:9000: no address: want 127.0.0.1:PORT, or 0.0.0.0:PORT for the whole network"},
		{"metrics", "metrics: want unix:PATH or 127.0.0.1:PORT"},
		{"max_write=1", "max_write=1: want bytes, 4096 to 1048576"},
		{"max_write=2097152", "max_write=2097152: want bytes, 4096 to 1048576"},
		{"fsync=maybe", "fsync=maybe: want 0 or 1, off or on"},
		{"volatile=yes", "volatile=yes: want 0 or 1, off or on"},
		{"ro=1", "ro=1: takes no value"},
		{"remount,ro", "remount: not by us: use mount -i -o remount"},
		{"fsname=", "fsname: empty"},
		{"context=", "context: empty"},
		{`context="a,b`, `context="a: the quote is not closed`},
		{`rootcontext="`, `rootcontext=": the quote is not closed`},
		{"upperdir=/u\x00/x", `upperdir="/u\x00/x": holds a NUL`},
		{"allow_root,allow_other", "allow_root: contradicts allow_other"},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			_, err := Parse("lowerdir=/l", tt.arg)
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
	if _, err := Parse(); err == nil || !strings.HasPrefix(err.Error(), "lowerdir: missing") {
		t.Errorf("without any option: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct{ arg, want string }{
		{"bogus", "unknown option bogus: ignored"},
		{"bogus=1", "unknown option bogus=1: ignored"},
		{"metacopy=on", "unknown option metacopy=on: ignored"},
		{"Lowerdir=/x", "unknown option Lowerdir=/x: ignored"},
		{"metrics=0.0.0.0:9", "metrics=0.0.0.0:9: whoever reaches this machine can read them"},
		{"workdir=/w", "workdir=/w: ignored without upperdir"},
		{"a\nb", `unknown option "a\nb": ignored`},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			o := parse(t, tt.arg)
			if !slices.Equal(o.Warnings, []string{tt.want}) {
				t.Errorf("warnings %q, want %q", o.Warnings, tt.want)
			}
			if o.Union.Work != "" {
				t.Errorf("workdir %q is used", o.Union.Work)
			}
		})
	}
}

// FuzzParse: no string crashes the parser, an error is one line and names its option, and what is valid means the same
// when its options are given one by one.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`lowerdir=/a:/b,upperdir=/u,workdir=/w`,
		`lowerdir=/a\:b\,c\\:d,lowerdir+=/e:f,,`,
		`lowerdir=l,context="a,b",fsname="x`,
		`lowerdir=l,uidmapping=:0:1:2:3:4:5,gidmapping=0:0:4294967295`,
		`lowerdir=l,timeout=1e300,squash_to_uid=7,xattr_permissions=2`,
		`lowerdir=l,ro,nosuid,noatime,x-foo="a,b",bogus`,
		`lowerdir=\`, `=,=`, `"`, `lowerdir="`, `lowerdir="",`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		o, err := Parse(arg)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Option == "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("Parse %q: error %q", arg, err)
			}
			return
		}
		if n := len(o.Union.Lowers); n == 0 || n > MaxLayers || slices.Contains(o.Union.Lowers, "") {
			t.Fatalf("Parse %q: layers %q", arg, o.Union.Lowers)
		}
		if (o.Union.Upper == "") != (o.Union.Work == "") {
			t.Fatalf("Parse %q: upper %q, work %q", arg, o.Union.Upper, o.Union.Work)
		}
		for _, w := range o.Warnings {
			if strings.Contains(w, "\n") {
				t.Fatalf("Parse %q: warning %q", arg, w)
			}
		}
		again, err := Parse(o.List...)
		if err != nil || !reflect.DeepEqual(o, again) {
			t.Fatalf("Parse %q:\n%+v\none by one: %v\n%+v", arg, o, err, again)
		}
	})
}
