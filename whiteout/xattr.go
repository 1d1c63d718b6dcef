package whiteout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Extended attributes that union filesystems keep on the objects of a layer. Kernel overlayfs uses the trusted
// namespace, or with the mount option userxattr the user namespace.
const (
	userOverlay    = "user.overlay."
	trustedOverlay = "trusted.overlay."
	fuseOverlayfs  = "user.fuseoverlayfs."
	privFuseOvl    = "security.fuseoverlayfs."
	containersStat = "user.containers.override_stat"
)

// nested follows an overlay prefix in the attribute of an overlay that is itself stored in this one
// (overlayfs.rst, "Nesting overlayfs mounts").
const nested = "overlay."

// Owned reports whether the attribute, as stored in a layer, belongs to the union filesystem that wrote the layer,
// and so is never shown in the merged tree.
func Owned(attr string) bool {
	for _, p := range []string{userOverlay, trustedOverlay} {
		if rest, ok := strings.CutPrefix(attr, p); ok {
			return !strings.HasPrefix(rest, nested)
		}
	}
	for _, p := range []string{fuseOverlayfs, privFuseOvl} {
		if strings.HasPrefix(attr, p) {
			return true
		}
	}
	return attr == containersStat
}

// Stored returns the name under which an attribute of the merged tree is kept in a layer. It differs for the
// attributes of an overlay mounted on top of this one: they get a further "overlay." and so never mean anything
// to this one. Errors: EPERM for names that are ours alone.
func Stored(attr string) (string, error) {
	for _, p := range []string{userOverlay, trustedOverlay} {
		if rest, ok := strings.CutPrefix(attr, p); ok {
			return p + nested + rest, nil
		}
	}
	if Owned(attr) {
		return "", unix.EPERM
	}
	return attr, nil
}

// Shown is the reverse of Stored: the name in the merged tree of an attribute found in a layer, false where it is
// not to be seen.
func Shown(stored string) (string, bool) {
	if Owned(stored) {
		return "", false
	}
	for _, p := range []string{userOverlay, trustedOverlay} {
		if rest, ok := strings.CutPrefix(stored, p+nested); ok {
			return p + rest, true
		}
	}
	return stored, true
}

// Marks is what the extended attributes of a directory in a layer say about it.
type Marks struct {
	Opaque bool // nothing of lower layers shows through

	// Whiteouts says that empty regular files in the directory may be whiteouts, told by their own attribute
	// (overlay.opaque = "x"; overlayfs.rst, "whiteouts and opaque directories").
	Whiteouts bool

	// Redirect is the directory's place in the layers below: from the root of the layer where it begins with "/",
	// else another name in the same parent. Empty where it was not moved.
	Redirect string
}

// ReadMarks reads the marks among the attribute names of the directory. names is what XattrNames returned for it,
// so that a directory with none costs one system call. Where both namespaces have something to say, the trusted one does.
//
// Errors: those of getxattr(2), and ErrBadRedirect.
func ReadMarks(dir sys.At, names []string) (Marks, error) {
	var m Marks
	kernels := slices.ContainsFunc(names, isKernels)
	for _, attr := range names {
		if kernels && strings.HasPrefix(attr, userOverlay) {
			continue
		}
		switch attr {
		case trustedOverlay + "opaque", userOverlay + "opaque", fuseOverlayfs + "opaque":
			v, err := sys.XattrValue(dir, attr)
			if err != nil {
				return m, fmt.Errorf("read %s: %w", attr, err)
			}
			switch string(v) {
			case "y":
				m.Opaque = true
			case "x":
				m.Whiteouts = true
			}
		case trustedOverlay + "redirect", userOverlay + "redirect":
			v, err := sys.XattrValue(dir, attr)
			if err != nil {
				return m, fmt.Errorf("read %s: %w", attr, err)
			}
			if m.Redirect, err = ParseRedirect(string(v)); err != nil {
				return m, err
			}
		}
	}
	return m, nil
}

// isKernels reports whether an attribute is one that kernel overlayfs keeps for itself when it is mounted without userxattr, of
// which it has some on all that it copies up. Attributes of the user namespace are then data to it: it copies those up with
// the rest, and what they say of the directory that they come from is not true of the copy.
func isKernels(attr string) bool {
	rest, ok := strings.CutPrefix(attr, trustedOverlay)
	return ok && !strings.HasPrefix(rest, nested) && rest != originName
}

// ErrBadRedirect is returned when a redirect names no place in a layer.
var ErrBadRedirect = fmt.Errorf("names no place in a layer: %w", unix.EIO)

// ParseRedirect checks the value of a redirect attribute, which comes from an untrusted layer: an absolute path or
// one name, no empty component, none longer than a name can be, no "." or "..". Errors: ErrBadRedirect.
func ParseRedirect(v string) (string, error) {
	bad := fmt.Errorf("redirect %q %w", v, ErrBadRedirect)
	if v == "" || len(v) > unix.PathMax {
		return "", bad
	}
	rel, abs := strings.CutPrefix(v, "/")
	parts := strings.Split(rel, "/")
	if !abs && len(parts) > 1 {
		return "", bad
	}
	for _, p := range parts {
		if !sys.ValidName(p) || len(p) > nameMax {
			return "", bad
		}
	}
	return v, nil
}

// IsWhiteoutFile reports whether an empty regular file is a whiteout by its attribute.
func IsWhiteoutFile(file sys.At) bool {
	for _, p := range []string{userOverlay, trustedOverlay} {
		if _, err := sys.Getxattr(file, p+"whiteout", nil); err == nil {
			return true
		}
	}
	return false
}

// ReadMetacopy tells where the data of a regular file is, among whose attributes are names, when that holds none of its
// own: kernel overlayfs with metacopy=on leaves the data in a layer below. redirect is as that of a directory, empty
// where the data has the name that the file has.
//
// Only the trusted attribute counts, which the kernel writes and an ordinary user cannot: a file that says so of itself
// shows with its own mode what is elsewhere in the layers below. Who unpacks a layer could write the user attribute; the
// kernel does not know it (overlayfs.rst, "Metadata only copy up").
//
// Errors: those of getxattr(2), and ErrBadRedirect.
func ReadMetacopy(file sys.At, names []string) (redirect string, meta bool, err error) {
	if !slices.Contains(names, trustedOverlay+"metacopy") {
		return "", false, nil
	}
	const attr = trustedOverlay + "redirect"
	if !slices.Contains(names, attr) {
		return "", true, nil
	}
	v, err := sys.XattrValue(file, attr)
	if err != nil {
		return "", true, fmt.Errorf("read %s: %w", attr, err)
	}
	redirect, err = ParseRedirect(string(v))
	return redirect, true, err
}

// IsMetacopy reports whether a regular file among whose attributes are names says, in whatever way, that it holds no
// data of its own.
func IsMetacopy(names []string) bool {
	return slices.ContainsFunc(names, MeansMetacopy)
}

// MeansMetacopy reports whether the attribute says so.
func MeansMetacopy(attr string) bool {
	return attr == userOverlay+"metacopy" || attr == trustedOverlay+"metacopy"
}

// setBoth sets the overlay attribute in both namespaces, so that kernel overlayfs reads it with userxattr and
// without. One of the two is enough: the trusted one takes CAP_SYS_ADMIN in the initial user namespace.
func setBoth(a sys.At, name, value string) error {
	errUser := sys.Setxattr(a, userOverlay+name, []byte(value), 0)
	errTrusted := sys.Setxattr(a, trustedOverlay+name, []byte(value), 0)
	if errUser == nil || errTrusted == nil {
		return nil
	}
	return errUser
}

func removeBoth(a sys.At, name string) error {
	for _, p := range []string{userOverlay, trustedOverlay} {
		err := sys.Removexattr(a, p+name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// SetRedirect records where the directory is in the layers below.
func SetRedirect(dir sys.At, path string) error { return setBoth(dir, "redirect", path) }

// ClearRedirect removes the record.
func ClearRedirect(dir sys.At) error { return removeBoth(dir, "redirect") }

// SetOpaque makes the directory open as fd opaque in the format given. It is idempotent.
func SetOpaque(fd int, f Format) error {
	if f == Overlay {
		return setBoth(sys.Fd(fd), "opaque", "y")
	}
	return makeFile(sys.At{Dirfd: fd, Name: OpaqueName})
}

// ClearOpaque takes back what SetOpaque did, in every format.
func ClearOpaque(fd int) error {
	for _, name := range []string{OpaqueName, legacyOpaqueName} {
		if err := sys.Unlink(sys.At{Dirfd: fd, Name: name}); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	err := sys.Removexattr(sys.Fd(fd), fuseOverlayfs+"opaque")
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return removeBoth(sys.Fd(fd), "opaque")
}

// markMode is the mode of the files that are marks. Who copies or removes a layer as an ordinary user, fuse-overlayfs
// among them, has to be able to open them.
const markMode = 0o644

// makeFile makes the empty regular file that every WH mark is. One that is there already will do.
func makeFile(a sys.At) error {
	err := sys.Mknod(a, unix.S_IFREG|markMode, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// MakeFile makes the WH whiteout of name in the directory open as fd. It is idempotent.
// Errors: those of Name.
func MakeFile(fd int, name string) error {
	wh, err := Name(name)
	if err != nil {
		return err
	}
	return makeFile(sys.At{Dirfd: fd, Name: wh})
}

// RemoveFile removes the WH whiteout of name from the directory open as fd, if there is one.
func RemoveFile(fd int, name string) error {
	wh, err := Name(name)
	if err != nil {
		return nil // such a name has none
	}
	if err := sys.Unlink(sys.At{Dirfd: fd, Name: wh}); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// MakeDevice makes an Overlay whiteout called a: character device 0:0, which since Linux 5.8 takes no privilege.
func MakeDevice(a sys.At) error { return sys.Mknod(a, unix.S_IFCHR, 0) }

// Origin says which lower object an upper one was copied up from, so that it keeps its inode number over a remount.
//
// It is stored with the inode number of the upper object that bears it, and holds for that one only: a copy of the
// upper directory made by cp or rsync takes the attribute along, but not the identity.
type Origin struct {
	Device int    // number of the lower's device in the mount: 0 for the first one met, from the top
	Ino    uint64 // st_ino in the lower layer
	Bearer uint64 // st_ino of the upper object
}

func (o Origin) String() string { return fmt.Sprintf("%d:%d:%d", o.Device, o.Ino, o.Bearer) }

// ParseOrigin reads what String wrote.
func ParseOrigin(s string) (Origin, error) {
	var o Origin
	parts := strings.Split(s, ":")
	bad := fmt.Errorf("origin %q is not DEVICE:INO:INO: %w", s, unix.EINVAL)
	if len(parts) != 3 {
		return o, bad
	}
	dev, err := strconv.ParseUint(parts[0], 10, 16)
	if err != nil {
		return o, bad
	}
	o.Device = int(dev)
	if o.Ino, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return o, bad
	}
	if o.Bearer, err = strconv.ParseUint(parts[2], 10, 64); err != nil {
		return o, bad
	}
	return o, nil
}

// originName follows an overlay prefix: so kernel overlayfs and fuse-overlayfs, which have their own record, hide ours.
const originName = "lamina.origin"

// SetOrigin records o on the object. Symbolic links and special files take no user attribute: without the right to
// a trusted one the error is EPERM, and the caller keeps the record elsewhere.
func SetOrigin(a sys.At, o Origin) error {
	err := sys.Setxattr(a, trustedOverlay+originName, []byte(o.String()), 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
		err = sys.Setxattr(a, userOverlay+originName, []byte(o.String()), 0)
	}
	return err
}

// ReadOrigin reads the record of the object with inode number ino from among its attribute names. A record that
// is damaged, or another object's, is none.
func ReadOrigin(a sys.At, ino uint64, names []string) (Origin, bool) {
	for _, attr := range names {
		if attr != userOverlay+originName && attr != trustedOverlay+originName {
			continue
		}
		v, err := sys.XattrValue(a, attr)
		if err != nil {
			continue
		}
		if o, err := ParseOrigin(string(v)); err == nil && o.Bearer == ino {
			return o, true
		}
	}
	return Origin{}, false
}
