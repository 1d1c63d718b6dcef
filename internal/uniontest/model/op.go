package model

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Op is one step of a run. Which fields count depends on Kind; the rest is zero.
//
// A path is relative to the directory that is open as handle At (or At2 for To); 0 is the root of the tree. An
// operation without a path is about handle H itself. Handles and mappings are numbered by the run, not by the
// kernel, so that a step can be left out when a run is shrunk: the steps that needed it then get EBADF, from the
// model as well.
type Op struct {
	Kind      string
	H, H2     int // handles
	Map       int // mapping
	At, At2   int // handles of directories
	Path, To  string
	Flags     string // by commas, the names in the tables below
	Mode      uint32 // permission bits; for mknod the full st_mode
	Off, Off2 int64  // bytes; for utimens seconds and nanoseconds
	Len       int64  // bytes
	Seed      uint32 // of the pattern to write
	UID, GID  int    // -1: leave as it is
	Name      string // of an extended attribute
	Value     string
}

// The kinds of Op:
//
//	open close read write pread pwrite seek truncate fallocate copy fsync seekdata seekhole   files
//	mmap mread mwrite munmap                                                                   mappings
//	mkdir mknod symlink link linkfd unlink rmdir rename                                        names
//	readdir getdents rewind                                                                    listings
//	stat readlink chmod chown utimens setxattr getxattr listxattr removexattr                  attributes
//	check remount                                                                              the whole tree
const (
	opCheck   = "check"
	opRemount = "remount"
)

var openFlags = map[string]int{
	"rdonly": unix.O_RDONLY, "wronly": unix.O_WRONLY, "rdwr": unix.O_RDWR,
	"creat": unix.O_CREAT, "excl": unix.O_EXCL, "trunc": unix.O_TRUNC, "append": unix.O_APPEND,
	"directory": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW, "tmpfile": unix.O_TMPFILE, "direct": unix.O_DIRECT,
	"noatime": unix.O_NOATIME,
}

var renameFlags = map[string]int{
	"noreplace": unix.RENAME_NOREPLACE, "exchange": unix.RENAME_EXCHANGE, "whiteout": unix.RENAME_WHITEOUT,
}

var fallocateFlags = map[string]int{
	"keep": unix.FALLOC_FL_KEEP_SIZE, "punch": unix.FALLOC_FL_PUNCH_HOLE, "zero": unix.FALLOC_FL_ZERO_RANGE,
	"collapse": unix.FALLOC_FL_COLLAPSE_RANGE, "insert": unix.FALLOC_FL_INSERT_RANGE,
}

var xattrFlags = map[string]int{"create": unix.XATTR_CREATE, "replace": unix.XATTR_REPLACE}

func (o *Op) has(flag string) bool {
	for f := range strings.SplitSeq(o.Flags, ",") {
		if f == flag {
			return true
		}
	}
	return false
}

// flags adds up those of o.Flags that are in the table; others are hints to the executor, such as "nofollow".
func (o *Op) flags(table map[string]int) int {
	n := 0
	for f := range strings.SplitSeq(o.Flags, ",") {
		n |= table[f]
	}
	return n
}

func (o Op) String() string { return encode(o) }

// encode writes a flat struct whose first field is a string as "FIRST field=value ...", zero fields left out.
func encode(v any) string {
	r := reflect.ValueOf(v)
	var b strings.Builder
	b.WriteString(r.Field(0).String())
	for i := 1; i < r.NumField(); i++ {
		f, name := r.Field(i), strings.ToLower(r.Type().Field(i).Name)
		switch {
		case f.IsZero():
		case f.Kind() == reflect.String:
			fmt.Fprintf(&b, " %s=%s", name, strconv.QuoteToASCII(f.String()))
		case name == "mode":
			fmt.Fprintf(&b, " %s=%#o", name, f.Uint())
		default:
			fmt.Fprintf(&b, " %s=%v", name, f.Interface())
		}
	}
	return b.String()
}

// decode is the reverse of encode; v points to the struct.
func decode(line string, v any) error {
	r := reflect.ValueOf(v).Elem()
	first, rest, _ := strings.Cut(line, " ")
	r.Field(0).SetString(first)
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		name, after, ok := strings.Cut(rest, "=")
		f := r.FieldByNameFunc(func(s string) bool { return strings.ToLower(s) == name })
		if !ok || !f.IsValid() {
			return fmt.Errorf("%q: no field %q", line, name)
		}
		var word string
		if f.Kind() == reflect.String {
			quoted, err := strconv.QuotedPrefix(after)
			if err != nil {
				return fmt.Errorf("%q: %s: %w", line, name, err)
			}
			rest = after[len(quoted):]
			s, _ := strconv.Unquote(quoted) // a quoted prefix is valid
			f.SetString(s)
			continue
		}
		word, rest, _ = strings.Cut(after, " ")
		switch f.Kind() {
		case reflect.Int, reflect.Int64:
			n, err := strconv.ParseInt(word, 0, 64)
			if err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			f.SetInt(n)
		case reflect.Uint32:
			n, err := strconv.ParseUint(word, 0, 32)
			if err != nil {
				return fmt.Errorf("%q: %w", line, err)
			}
			f.SetUint(n)
		default:
			return fmt.Errorf("%q: field %q cannot be read", line, name)
		}
	}
	return nil
}

// Record is a run as a text file:
//
//	# why it is kept
//	options whiteout=wh,redirect_dir=on
//	lower dir layer=1 path="a" mode=0755
//	unlink path="a/b"
//
// Options are those of the mount it failed on; replaying tries others as well.
type Record struct {
	Comment string
	Options string
	Layers  []Entry
	Ops     []Op
}

// Write writes the text form.
func (r *Record) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for line := range strings.SplitSeq(strings.TrimSpace(r.Comment), "\n") {
		fmt.Fprintf(b, "# %s\n", line)
	}
	fmt.Fprintf(b, "options %s\n", r.Options)
	for _, e := range r.Layers {
		fmt.Fprintf(b, "lower %s\n", encode(e))
	}
	for _, o := range r.Ops {
		fmt.Fprintln(b, o)
	}
	return b.Flush()
}

// ReadRecord is the reverse of Write.
func ReadRecord(rd io.Reader) (*Record, error) {
	r := &Record{}
	for s := bufio.NewScanner(rd); ; {
		if !s.Scan() {
			return r, s.Err()
		}
		line := strings.TrimSpace(s.Text())
		if word, rest, _ := strings.Cut(line, " "); line == "" {
		} else if word == "#" {
			r.Comment += rest + "\n"
		} else if word == "options" {
			r.Options = rest
		} else if word == "lower" {
			var e Entry
			if err := decode(rest, &e); err != nil {
				return nil, err
			}
			r.Layers = append(r.Layers, e)
		} else {
			var o Op
			if err := decode(line, &o); err != nil {
				return nil, err
			}
			r.Ops = append(r.Ops, o)
		}
	}
}
