package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/compression"
	"golang.org/x/sys/unix"
)

// archive is what images are loaded from: files by name. Names come from outside and are used to look up what is in
// the archive, nowhere else.
type archive interface {
	// open returns the file called name and its size in bytes. Errors: errNotInArchive.
	open(name string) (io.ReadCloser, int64, error)
	// list returns the names of all regular files, sorted.
	list() []string
	close()
}

var errNotInArchive = errors.New("not in the archive")

// Bounds of an archive's table of contents.
const (
	maxArchiveEntries = 1 << 16
	maxArchiveNames   = 8 << 20 // bytes of all names
	maxLinks          = 16      // links that lead to one file
	maxArchiveTail    = 1 << 20 // bytes behind the end of a tar that comes through a pipe: what fills its last record
)

// openArchive opens what path names, or, without a path, what stdin gives. scratch is a folder for what cannot be read
// where it is; maxSize bounds it.
func openArchive(ctx context.Context, path string, stdin io.Reader, scratch string, maxSize int64) (archive, error) {
	var f *os.File
	switch {
	case path == "":
		if in, ok := stdin.(*os.File); ok {
			f = in
			stdin = in
		}
	default:
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		if st, err := f.Stat(); err == nil && st.IsDir() {
			return &folderArchive{f}, nil
		}
		stdin = f
	}
	if f != nil && seekable(f) {
		// A file of our own, with a position of its own.
		own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err == nil {
			head := make([]byte, compression.HeadSize)
			n, _ := own.ReadAt(head, 0) // what is not there is no magic
			if compression.Detect(head[:n]) == compression.Plain {
				if path != "" {
					_ = f.Close() // read only
				}
				return openTar(ctx, own)
			}
			_ = own.Close() // read only
		}
	}
	spool, err := spoolTo(ctx, scratch, stdin, maxSize)
	if path != "" {
		_ = f.Close() // read only
	}
	if err != nil {
		return nil, err
	}
	return openTar(ctx, spool)
}

// seekable reports whether f is a file from its beginning: one that a pipe stands for, or that somebody has read from,
// is read as the stream that it is.
func seekable(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return err == nil && at == 0
}

// spoolTo keeps a tar, decompressed, in a file without a name in scratch. It reads to the end of the tar, two blocks of
// zeros, and not for ever what follows; and what is no tar as far as it takes to see that, which its reader does again.
func spoolTo(ctx context.Context, scratch string, in io.Reader, maxSize int64) (*os.File, error) {
	m := &meter{ctx: ctx, r: in, tell: func(int64) {}}
	z, err := compression.Open(ctx, m)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	fd, err := unix.Open(scratch, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	var f *os.File
	if err == nil {
		f = os.NewFile(uintptr(fd), "archive")
	} else if f, err = os.CreateTemp(scratch, "archive"); err != nil { // a filesystem without O_TMPFILE
		return nil, err
	}
	if err := copyTar(f, &limit{r: z, left: maxSize}); err != nil {
		_ = f.Close() // it goes with its folder
		return nil, truncated(err)
	}
	return f, nil
}

// copyTar copies a tar, or the beginning of something else. Errors: those of reading and writing, and none of the tar's.
func copyTar(to io.Writer, from io.Reader) error {
	in := &failing{r: from}
	out := bufio.NewWriterSize(onlyWriter{to}, chunkSize)
	tee := io.TeeReader(in, out)
	entries := 0
	r := tar.NewReader(tee)
	_, err := r.Next()
	for err == nil || errors.Is(err, tar.ErrInsecurePath) {
		entries++
		_, err = r.Next()
	}
	if err == io.EOF {
		n, _ := io.CopyN(io.Discard, tee, maxArchiveTail) // in and out keep their errors
		if n == maxArchiveTail && entries == 0 {
			return errors.New("this is no archive: it begins with nothing but zeros")
		}
	}
	if in.err != nil {
		return in.err
	}
	return out.Flush()
}

// failing keeps the error of a reader.
type failing struct {
	r   io.Reader
	err error // nil for the end
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// tarArchive is a tar whose files are read where they are.
type tarArchive struct {
	f     *os.File
	files map[string]tarFile
}

type tarFile struct {
	offset, size int64
	link         string // of a link: the name it leads to, cleaned
}

// openTar reads the table of contents. It takes f over.
func openTar(ctx context.Context, f *os.File) (archive, error) {
	a := &tarArchive{f, map[string]tarFile{}}
	if err := a.index(ctx); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *tarArchive) index(ctx context.Context) error {
	st, err := a.f.Stat()
	if err != nil {
		return err
	}
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if st.Size() == 0 {
		return errors.New("the archive is empty")
	}
	names := 0
	for r := tar.NewReader(a.f); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // such a name is looked up here only
			if len(a.files) == 0 && errors.Is(err, tar.ErrHeader) {
				return errors.New("this is no archive of images: neither a tar nor a directory")
			}
			return fmt.Errorf("read the archive: %w", truncated(unexpected(err)))
		}
		name := cleanName(h.Name)
		names += len(name) + len(h.Linkname)
		if len(a.files) >= maxArchiveEntries || names > maxArchiveNames {
			return fmt.Errorf("the archive has more than %d files, or %d bytes of names", maxArchiveEntries, maxArchiveNames)
		}
		// archive/tar reads headers by blocks, never more: the data begins where the file is now.
		at, err := a.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if h.PAXRecords["GNU.sparse.realsize"] != "" || h.PAXRecords["GNU.sparse.size"] != "" {
				return fmt.Errorf("the archive stores %q as a sparse file", h.Name)
			}
			if h.Size > st.Size()-at {
				return fmt.Errorf("the archive is cut short: %q ends after it", h.Name)
			}
			a.files[name] = tarFile{offset: at, size: h.Size}
		case tar.TypeLink:
			a.files[name] = tarFile{link: cleanName(h.Linkname)}
		case tar.TypeSymlink:
			// From the link's own directory; ".." ends at the archive's root.
			to := h.Linkname
			if !path.IsAbs(to) {
				to = path.Dir("/"+name) + "/" + to
			}
			a.files[name] = tarFile{link: cleanName(to)}
		case tar.TypeGNUSparse:
			return fmt.Errorf("the archive stores %q as a sparse file", h.Name)
		}
	}
}

// cleanName is a name from the archive's root, which ".." does not leave.
func cleanName(name string) string { return strings.Trim(path.Clean("/"+name), "/") }

func (a *tarArchive) open(name string) (io.ReadCloser, int64, error) {
	f, ok := a.files[cleanName(name)]
	for links := 0; ok && f.link != ""; links++ {
		if links == maxLinks {
			return nil, 0, fmt.Errorf("%q: too many links, or links in a circle", name)
		}
		f, ok = a.files[f.link]
	}
	if !ok {
		return nil, 0, fmt.Errorf("%q: %w", name, errNotInArchive)
	}
	return io.NopCloser(io.NewSectionReader(a.f, f.offset, f.size)), f.size, nil
}

func (a *tarArchive) list() []string {
	var names []string
	for name, f := range a.files {
		if f.link == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (a *tarArchive) close() { _ = a.f.Close() } // read only, or without a name

// folderArchive is a directory: an OCI layout, or an archive that was unpacked.
type folderArchive struct{ dir *os.File }

func (a *folderArchive) open(name string) (io.ReadCloser, int64, error) {
	fd, err := sys.OpenBeneath(int(a.dir.Fd()), cleanName(name), unix.O_RDONLY|unix.O_NONBLOCK)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, 0, fmt.Errorf("%q: %w", name, errNotInArchive)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: open %q: %w", a.dir.Name(), name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%q is no regular file", name)
	}
	if err != nil {
		_ = f.Close() // read only
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// list returns what legacy archives need, which have all in directories below the root.
func (a *folderArchive) list() []string {
	var names []string
	dirs, err := os.ReadDir(a.dir.Name())
	if err != nil {
		return nil
	}
	for _, d := range dirs {
		if name := d.Name() + "/json"; d.IsDir() && has(a, name) {
			names = append(names, name)
		}
	}
	return names
}

func (a *folderArchive) close() { _ = a.dir.Close() } // read only

var (
	_ archive = (*tarArchive)(nil)
	_ archive = (*folderArchive)(nil)
)

// has reports whether the archive has the file.
func has(a archive, name string) bool {
	r, _, err := a.open(name)
	if err != nil {
		return false
	}
	_ = r.Close() // read only
	return true
}

// small reads a file whose size is bounded: a manifest or a configuration.
func small(a archive, name string) ([]byte, error) {
	r, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxConfig {
		return nil, fmt.Errorf("%q has %d bytes, more than %d", name, size, maxConfig)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%q: %w", name, truncated(unexpected(err)))
	}
	return b, nil
}

// layerIn is a layer that is a file of the archive.
func layerIn(a archive, name string) (*layerSource, error) {
	r, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	_ = r.Close() // read only
	open := func(context.Context) (io.ReadCloser, error) {
		r, _, err := a.open(name)
		return r, err
	}
	return &layerSource{name: name, open: open, size: size}, nil
}

// unexpected is the error of a stream that ends where something must follow.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
