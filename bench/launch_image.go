package bench

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
)

// smallImage is one of busybox alone.
type smallImage struct{ rootfs, archive, tag string }

// busyboxImage makes it, and the directory that has the same.
func (f *Fixtures) busyboxImage() (*smallImage, error) {
	dir, err := f.make("busybox", func(dir string) error {
		busybox, err := exec.LookPath("busybox")
		if err != nil {
			return err
		}
		root := filepath.Join(dir, "rootfs")
		for _, name := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
			if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
				return err
			}
		}
		if err := run("cp", "-L", busybox, root+"/bin/busybox"); err != nil {
			return err
		}
		for _, applet := range []string{"true", "sh", "echo"} {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
				return err
			}
		}
		if err := run("tar", "-C", root, "--owner=0", "--group=0", "-cf", dir+"/layer.tar", "."); err != nil {
			return err
		}
		return writeArchive(dir+"/image.tar", "localhost/bench:small", []string{dir + "/layer.tar"})
	})
	return &smallImage{dir + "/rootfs", dir + "/image.tar", "localhost/bench:small"}, err
}

// realImage is one of several layers, each of files of another part of this machine.
type realImage struct {
	archive, tag string
	layers       []string // tars, lowest first
	trees        []tree   // what is in them
}

// realImage makes an image of about mb megabytes: a quarter each of programs, libraries, documentation and Go.
func (f *Fixtures) realImage(mb int) (*realImage, error) {
	golang, err := goroot()
	if err != nil {
		return nil, err
	}
	sources := []string{"/usr/bin", "/usr/lib", "/usr/share", golang}
	image := &realImage{tag: fmt.Sprintf("localhost/bench:%d", mb)}
	limit := int64(f.Scale * float64(mb) * 1e6 / float64(len(sources)))
	dir, err := f.make(fmt.Sprintf("image%d", mb), func(dir string) error {
		for i, source := range sources {
			if err := packSome(source, limit, layerTar(dir, i)); err != nil {
				return err
			}
		}
		return writeArchive(dir+"/image.tar", image.tag, layerTars(dir, len(sources)))
	})
	if err != nil {
		return nil, err
	}
	image.archive, image.layers = dir+"/image.tar", layerTars(dir, len(sources))
	for _, layer := range image.layers {
		t, err := f.unpackedTree(layer)
		if err != nil {
			return nil, err
		}
		image.trees = append(image.trees, t)
	}
	return image, nil
}

func layerTar(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("layer%d.tar", i)) }

func layerTars(dir string, n int) (list []string) {
	for i := range n {
		list = append(list, layerTar(dir, i))
	}
	return list
}

var errEnough = errors.New("enough")

// packSome writes a tar of files below source, limit bytes or as many as there are.
func packSome(source string, limit int64, to string) error {
	var names []string
	for dir := source; dir != "/"; dir = filepath.Dir(dir) {
		names = append([]string{dir[1:]}, names...)
	}
	var total int64
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == source {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type().IsRegular() && info.Size() > limit/8:
			return nil // none fills a layer alone
		case d.Type().IsRegular():
			total += info.Size()
		case d.Type() != fs.ModeSymlink && !d.IsDir():
			return nil
		}
		names = append(names, path[1:])
		if total >= limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	list := to + ".list"
	if err := os.WriteFile(list, []byte(strings.Join(names, "\x00")+"\x00"), 0o644); err != nil {
		return err
	}
	// Times to the nanosecond, which only this format has.
	return run("tar", "-C", "/", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--no-recursion", "--null",
		"-T", list, "-cf", to)
}

// writeArchive writes a docker-archive, as docker save does.
func writeArchive(path, tag string, layers []string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	var names, diffIDs []string
	var history []map[string]string
	for _, layer := range layers {
		sum, size, err := sumFile(layer)
		if err != nil {
			return err
		}
		name := sum + "/layer.tar"
		names, diffIDs = append(names, name), append(diffIDs, "sha256:"+sum)
		history = append(history, map[string]string{"created": "2001-02-03T04:05:06Z", "created_by": "COPY"})
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
			return err
		}
		if err := copyFile(w, layer); err != nil {
			return err
		}
	}
	config, err := json.Marshal(map[string]any{
		"architecture": goruntime.GOARCH, "os": "linux", "created": "2001-02-03T04:05:06Z", "history": history,
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"true"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{"Config": configName, "RepoTags": []string{tag}, "Layers": names}})
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		text []byte
	}{{configName, config}, {"manifest.json", manifest}} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.text))}); err != nil {
			return err
		}
		if _, err := w.Write(file.text); err != nil {
			return err
		}
	}
	return w.Close()
}

// sumFile is sha256, in hexadecimal digits, and size of a file.
func sumFile(path string) (string, int64, error) {
	h := sha256.New()
	if err := copyFile(h, path); err != nil {
		return "", 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), info.Size(), nil
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
