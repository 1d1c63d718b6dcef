// Package mountopt reads the strings that follow -o: what union to make and how to mount it.
//
// It takes what fuse-overlayfs and kernel overlayfs take, so that their callers may call us. It touches nothing: no
// path is looked at.
//
// # Spelling
//
// Options are separated by commas. A backslash takes the meaning from the character after it, at whatever level that
// character would have one: `\,` does not end an option, `\:` does not end a layer, `\\` is a backslash; before any
// other character it is dropped. There is one level of escaping, as in kernel overlayfs (fs/overlayfs/params.c,
// ovl_parse_param_split_lowerdirs). A value in double quotes may hold commas, as mount(8) writes security labels:
// context="a,b".
package mountopt

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/endpoint"
	"github.com/laminafs/lamina/unionfs"
	"github.com/laminafs/lamina/unionfs/transport"
	"github.com/laminafs/lamina/whiteout"
)

// MaxLayers is how many lower layers a union may have, as in kernel overlayfs (OVL_MAX_STACK).
const MaxLayers = 500

// Options are what the strings say.
type Options struct {
	Union unionfs.Config
	Mount transport.Options

	// Debug logs every request.
	Debug bool

	// Metrics is where the mount's figures are served, nil for nowhere.
	Metrics *endpoint.Address

	// Warnings are sentences about options that were left out of account.
	Warnings []string

	// List has every option as it was given, empty ones left out.
	List []string
}

// An Error says which option is wrong.
type Error struct {
	Option string
	Value  string // empty where it is the option itself that is wrong
	Reason string
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s", e.Option, e.Reason)
	}
	return fmt.Sprintf("%s=%s: %s", e.Option, clip(e.Value), e.Reason)
}

// clip keeps an error on one line that can be read, whatever was given.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "..."
	}
	if q := strconv.Quote(s); q != `"`+s+`"` && strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return q
	}
	return s
}

// Parse reads the arguments of all -o, in their order. Of an option given twice the last counts, but lowerdir adds.
//
// Errors: *Error.
func Parse(args ...string) (*Options, error) {
	o := &Options{}
	for _, arg := range args {
		for _, opt := range split(arg) {
			if opt == "" {
				continue
			}
			o.List = append(o.List, opt)
			if err := o.set(opt); err != nil {
				return nil, err
			}
		}
	}
	return o, o.check()
}

// check looks at the options together.
func (o *Options) check() error {
	u := &o.Union
	switch {
	case len(u.Lowers) == 0:
		return &Error{Option: "lowerdir", Reason: "missing: a union needs at least one lower layer"}
	case len(u.Lowers) > MaxLayers:
		return &Error{Option: "lowerdir", Reason: fmt.Sprintf("%d layers, at most %d", len(u.Lowers), MaxLayers)}
	case u.Upper != "" && u.Work == "":
		return &Error{Option: "workdir", Reason: "missing: upperdir=" + clip(u.Upper) + " needs one on its filesystem"}
	case u.Upper == "" && u.Work != "":
		o.warn("workdir=%s: ignored without upperdir", clip(u.Work))
		u.Work = ""
	}
	if u.Upper == "" {
		// The kernel then refuses what cannot be done before it asks: EROFS also to open(2) and access(2).
		o.Mount.Set |= unix.MS_RDONLY
	}
	if o.Mount.AllowOther && o.Mount.AllowRoot {
		return &Error{Option: "allow_root", Reason: "contradicts allow_other"}
	}
	return nil
}

func (o *Options) warn(format string, args ...any) {
	o.Warnings = append(o.Warnings, fmt.Sprintf(format, args...))
}

// split cuts an argument at its commas and leaves escapes and quotes in place.
func split(arg string) []string {
	var opts []string
	start := 0
	for i := 0; i < len(arg); i++ {
		switch arg[i] {
		case '\\':
			i++
		case '"':
			if i > start && arg[i-1] == '=' && strings.IndexByte(arg[start:i], '=') == i-1-start {
				i += quoted(arg[i:])
			}
		case ',':
			opts = append(opts, arg[start:i])
			start = i + 1
		}
	}
	return append(opts, arg[start:])
}

// quoted is the offset of the quote that closes the one s begins with: the last byte of the option. It is 0 where
// there is none, and the quote is a character of the value.
func quoted(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			if i+1 == len(s) || s[i+1] == ',' {
				return i
			}
		}
	}
	return 0
}

// unquote takes the quotes off a value in quotes.
func unquote(value string) string {
	if n := len(value); n > 1 && value[0] == '"' && quoted(value) == n-1 {
		return value[1 : n-1]
	}
	return value
}

// unescape takes the backslashes away. A last one stands for itself.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// paths splits a value at its colons. Empty ones are left out, as fuse-overlayfs does.
func paths(value string) []string {
	var list []string
	start := 0
	add := func(s string) {
		if s != "" {
			list = append(list, unescape(s))
		}
	}
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case ':':
			add(value[start:i])
			start = i + 1
		}
	}
	add(value[start:])
	return list
}

// An option sets what its value says. has tells "name=" from "name".
type option func(o *Options, value string, has bool) error

// reason is an error that set completes with the option's name and value.
type reason string

func (r reason) Error() string { return string(r) }

// set applies one option.
func (o *Options) set(opt string) error {
	name, raw, has := strings.Cut(opt, "=")
	raw = unquote(raw)
	fn, ok := options[name]
	if !ok {
		if !accepted(name) {
			o.warn("unknown option %s: ignored", clip(opt))
		}
		return nil
	}
	if strings.IndexByte(raw, 0) >= 0 {
		return &Error{name, raw, "holds a NUL"}
	}
	if err := fn(o, raw, has); err != nil {
		return &Error{name, raw, err.Error()}
	}
	return nil
}

// accepted tells whether an option is known and asks nothing of us: what mount(8) and fstab keep for themselves, and
// how libfuse and fuse-overlayfs are tuned.
func accepted(name string) bool {
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || slices.Contains(noEffect, name)
}

var noEffect = []string{
	// mount(8), fstab(5)
	"_netdev", "auto", "noauto", "user", "nouser", "users", "group", "owner", "nofail", "defaults", "comment", "helper",
	"uhelper", "loud", "silent", "subtype", "blkdev", "setuid", "drop_privileges",
	// libfuse
	"default_permissions", "kernel_cache", "auto_cache", "noauto_cache", "clone_fd", "max_idle_threads", "max_threads",
	"max_read", "max_background", "big_writes", "large_read", "nonempty", "hard_remove", "use_ino", "readdir_ino",
	"async_read", "sync_read", "splice_read", "splice_write", "splice_move", "no_splice_read", "no_splice_write",
	"no_splice_move",
	// fuse-overlayfs
	"fast_ino", "plugins",
}

// options are those that change something.
var options = map[string]option{
	"lowerdir": func(o *Options, v string, _ bool) error {
		list := paths(v)
		if len(list) == 0 {
			return reason("no layer in it")
		}
		o.Union.Lowers = append(o.Union.Lowers, list...)
		return nil
	},
	// One layer, in which a colon is a colon: overlayfs.rst, "Multiple lower layers".
	"lowerdir+": func(o *Options, v string, _ bool) error {
		dir := ""
		if err := path(&dir, v); err != nil {
			return err
		}
		o.Union.Lowers = append(o.Union.Lowers, dir)
		return nil
	},
	"upperdir": func(o *Options, v string, _ bool) error { return path(&o.Union.Upper, v) },
	"workdir":  func(o *Options, v string, _ bool) error { return path(&o.Union.Work, v) },

	"redirect_dir": func(o *Options, v string, _ bool) error {
		switch v {
		case "on":
			o.Union.RedirectDir = true
		case "off", "follow", "nofollow": // a redirect that is there is always followed
			o.Union.RedirectDir = false
		default:
			return reason("want on or off")
		}
		return nil
	},
	"whiteout": func(o *Options, v string, _ bool) (err error) {
		f, ok := map[string]whiteout.Format{"wh": whiteout.WH, "overlay": whiteout.Overlay}[v]
		if !ok {
			return reason("want wh or overlay")
		}
		o.Union.Whiteout = f
		return nil
	},
	"xino":  func(o *Options, v string, has bool) error { return invert(&o.Union.NoXino, v, has, "auto") },
	"index": func(o *Options, v string, has bool) error { return invert(&o.Union.NoIndex, v, has) },

	"uidmapping":     func(o *Options, v string, _ bool) error { return idMap(&o.Union.UIDMap, v) },
	"gidmapping":     func(o *Options, v string, _ bool) error { return idMap(&o.Union.GIDMap, v) },
	"squash_to_root": func(o *Options, v string, has bool) error { return boolean(&o.Union.SquashToRoot, v, has) },
	"squash_to_uid":  func(o *Options, v string, _ bool) error { return id(&o.Union.SquashToUID, v) },
	"squash_to_gid":  func(o *Options, v string, _ bool) error { return id(&o.Union.SquashToGID, v) },
	"xattr_permissions": func(o *Options, v string, _ bool) error {
		n := slices.Index([]string{"0", "1", "2"}, v)
		if n < 0 {
			return reason("want 0, 1 or 2")
		}
		o.Union.XattrPermissions = n
		return nil
	},
	"static_nlink": func(o *Options, v string, has bool) error { return boolean(&o.Union.StaticNlink, v, has) },

	"noacl":    noACL,
	"noxattr":  noXattr,
	"noxattrs": noXattr,

	"volatile": func(o *Options, v string, has bool) error { return boolean(&o.Union.Volatile, v, has) },
	"fsync":    func(o *Options, v string, has bool) error { return invert(&o.Union.Volatile, v, has) },
	// With a value fuse-overlayfs' word for fsync=, without one mount(8)'s.
	"sync": func(o *Options, v string, has bool) error {
		if has {
			return invert(&o.Union.Volatile, v, has)
		}
		return o.flag(v, has, unix.MS_SYNCHRONOUS, 0)
	},
	"timeout": func(o *Options, v string, _ bool) error { return seconds(&o.Union.Timeout, v) },
	"writeback": func(o *Options, v string, has bool) error {
		err := boolean(&o.Union.WritebackCache, v, has)
		o.Mount.Writeback = o.Union.WritebackCache
		return err
	},
	"passthrough": func(o *Options, v string, has bool) error {
		err := boolean(&o.Union.Passthrough, v, has)
		o.Mount.Passthrough = o.Union.Passthrough
		return err
	},
	"threaded": func(o *Options, v string, has bool) error {
		err := invert(&o.Union.SingleThreaded, v, has)
		o.Mount.SingleThreaded = o.Union.SingleThreaded
		return err
	},

	"context":     label("context"),
	"fscontext":   label("fscontext"),
	"defcontext":  label("defcontext"),
	"rootcontext": label("rootcontext"),

	"allow_other": func(o *Options, v string, has bool) error { return boolean(&o.Mount.AllowOther, v, has) },
	"allow_root":  func(o *Options, v string, has bool) error { return boolean(&o.Mount.AllowRoot, v, has) },
	"max_write": func(o *Options, v string, _ bool) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < 4096 || n > transport.DefaultMaxWrite {
			return reason(fmt.Sprintf("want bytes, 4096 to %d", transport.DefaultMaxWrite))
		}
		o.Mount.MaxWrite = n
		return nil
	},
	"transport": func(o *Options, v string, _ bool) error {
		if !slices.Contains(transport.Names, v) {
			return reason("want " + strings.Join(transport.Names, ", "))
		}
		o.Mount.Transport = v
		return nil
	},
	"fsname": func(o *Options, v string, _ bool) error { return path(&o.Mount.FSName, v) },
	"metrics": func(o *Options, v string, _ bool) error {
		a, err := endpoint.Parse(unescape(v))
		if err != nil {
			return err
		}
		if !a.Local() {
			o.warn("metrics=%s: whoever reaches this machine can read them", a)
		}
		o.Metrics = &a
		return nil
	},
	"debug": func(o *Options, v string, has bool) error { return boolean(&o.Debug, v, has) },

	// mount(8) asks its helpers for this too, and we would mount once more on top.
	"remount": func(*Options, string, bool) error { return reason("not by us: use mount -i -o remount") },

	"ro":            flag(unix.MS_RDONLY, 0),
	"rw":            flag(0, unix.MS_RDONLY),
	"suid":          flag(0, unix.MS_NOSUID),
	"nosuid":        flag(unix.MS_NOSUID, 0),
	"dev":           flag(0, unix.MS_NODEV),
	"nodev":         flag(unix.MS_NODEV, 0),
	"exec":          flag(0, unix.MS_NOEXEC),
	"noexec":        flag(unix.MS_NOEXEC, 0),
	"async":         flag(0, unix.MS_SYNCHRONOUS),
	"dirsync":       flag(unix.MS_DIRSYNC, 0),
	"symfollow":     flag(0, unix.MS_NOSYMFOLLOW),
	"nosymfollow":   flag(unix.MS_NOSYMFOLLOW, 0),
	"atime":         flag(0, unix.MS_NOATIME),
	"noatime":       flag(unix.MS_NOATIME, 0),
	"diratime":      flag(0, unix.MS_NODIRATIME),
	"nodiratime":    flag(unix.MS_NODIRATIME, 0),
	"relatime":      flag(unix.MS_RELATIME, 0),
	"norelatime":    flag(0, unix.MS_RELATIME),
	"strictatime":   flag(unix.MS_STRICTATIME, 0),
	"nostrictatime": flag(0, unix.MS_STRICTATIME),
	"lazytime":      flag(unix.MS_LAZYTIME, 0),
	"nolazytime":    flag(0, unix.MS_LAZYTIME),
}

// flag is an option that sets and clears flags of mount(2).
func flag(set, clear uintptr) option {
	return func(o *Options, v string, has bool) error { return o.flag(v, has, set, clear) }
}

func (o *Options) flag(v string, has bool, set, clear uintptr) error {
	if has {
		return reason("takes no value")
	}
	o.Mount.Set = o.Mount.Set&^clear | set
	o.Mount.Clear = o.Mount.Clear&^set | clear
	o.Union.NoAtime = o.Mount.Set&unix.MS_NOATIME != 0
	return nil
}

func noACL(o *Options, v string, has bool) error {
	err := boolean(&o.Union.NoACL, v, has)
	o.Mount.NoACL = o.Union.NoACL || o.Union.NoXattr
	return err
}

func noXattr(o *Options, v string, has bool) error {
	err := boolean(&o.Union.NoXattr, v, has)
	o.Mount.NoACL = o.Union.NoACL || o.Union.NoXattr
	return err
}

// label is an option for the kernel's security module; of one given twice the last counts.
func label(name string) option {
	return func(o *Options, v string, _ bool) error {
		switch {
		case v == "":
			return reason("empty")
		case v[0] == '"':
			return reason("the quote is not closed")
		}
		o.Mount.Contexts = slices.DeleteFunc(o.Mount.Contexts, func(c string) bool {
			return strings.HasPrefix(c, name+"=")
		})
		o.Mount.Contexts = append(o.Mount.Contexts, name+"="+unescape(v))
		return nil
	}
}

// path reads a value in which only escapes mean something.
func path(dst *string, v string) error {
	if v == "" {
		return reason("empty")
	}
	*dst = unescape(v)
	return nil
}

// boolean reads "name", and "name=1" as fuse-overlayfs has it or "name=on" as the kernel does. Further words that
// mean yes are given.
func boolean(dst *bool, v string, has bool, yes ...string) error {
	switch {
	case !has, v == "1", v == "on", slices.Contains(yes, v):
		*dst = true
	case v == "0", v == "off":
		*dst = false
	default:
		return reason("want 0 or 1, off or on")
	}
	return nil
}

// invert is boolean for a field that says the opposite.
func invert(dst *bool, v string, has bool, yes ...string) error {
	on := !*dst
	err := boolean(&on, v, has, yes...)
	*dst = !on
	return err
}

// id reads a user or group id.
func id(dst **uint32, v string) error {
	n, err := parseID(v)
	if err != nil {
		return err
	}
	*dst = &n
	return nil
}

// parseID reads an id. The highest number is not one: it is the -1 of chown(2).
func parseID(v string) (uint32, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, reason("want an id, 0 to 4294967294")
	}
	return uint32(n), nil
}

// idMap reads container:host:size, any number of times. Additional colons mean nothing: podman writes one in front.
func idMap(dst *unionfs.IDMap, v string) error {
	var nums []uint32
	for f := range strings.SplitSeq(v, ":") {
		if f == "" {
			continue
		}
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return reason(fmt.Sprintf("want container:host:size triples of numbers, not %s", clip(f)))
		}
		nums = append(nums, uint32(n))
	}
	if len(nums) == 0 || len(nums)%3 != 0 {
		return reason("want container:host:size, any number of times")
	}
	var m unionfs.IDMap
	for t := range slices.Chunk(nums, 3) {
		r := unionfs.IDRange{Container: t[0], Host: t[1], Size: t[2]}
		if r.Size == 0 || r.Size-1 > math.MaxUint32-max(r.Container, r.Host) {
			return reason(fmt.Sprintf("range %d:%d:%d is empty or leaves the ids there are", t[0], t[1], t[2]))
		}
		m = append(m, r)
	}
	*dst = m
	return nil
}

// seconds reads a time in seconds, with a fraction if need be. For the union 0 is "for ever"; here it is "not at all",
// which is negative there: the kernel makes a jiffy of a nanosecond.
func seconds(dst *time.Duration, v string) error {
	const ever = 1e9 // seconds: fuse-overlayfs' own default, and what it means by it
	s, err := strconv.ParseFloat(v, 64)
	switch {
	case err != nil || math.IsNaN(s) || s < 0:
		return reason("want seconds")
	case s >= ever:
		*dst = 0
	case s == 0:
		*dst = -1
	default:
		*dst = max(time.Duration(s*float64(time.Second)), time.Nanosecond)
	}
	return nil
}
