package bench

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// loadTasks are those of a workload that loads an image of about mb megabytes into an empty store.
func loadTasks(mb int) []launchTask {
	var image *realImage // made when the first prepares
	task := func(system string, load func(e *launchEnv) error, layers func(e *launchEnv) ([]string, error)) launchTask {
		t := launchTask{system: system, run: load, reset: (*launchEnv).clear}
		t.check = func(e *launchEnv) error {
			dirs, err := layers(e)
			if err != nil {
				return err
			}
			return e.checkTrees(dirs, image.trees)
		}
		t.prepare = func(e *launchEnv) (err error) {
			if image == nil {
				if image, err = e.f.realImage(mb); err != nil {
					return err
				}
			}
			if err := load(e); err != nil {
				return err
			}
			return t.check(e)
		}
		return t
	}
	return []launchTask{
		task(Lamina, func(e *launchEnv) error {
			_, err := e.lamina("load", "-q", "-i", image.archive)
			return err
		}, func(e *launchEnv) ([]string, error) { return shownLayers(e.lamina, image.tag) }),
		task(Podman, func(e *launchEnv) error {
			_, err := e.podman("load", "-q", "-i", image.archive)
			return err
		}, func(e *launchEnv) ([]string, error) { return shownLayers(e.podman, image.tag) }),
		task(Tar, func(e *launchEnv) error {
			for i, layer := range image.layers {
				dir := e.path(fmt.Sprint(i))
				if err := makeOwned(dir, e.caller); err != nil {
					return err
				}
				if _, err := e.call("tar", "-C", dir, "--numeric-owner", "-xpf", layer); err != nil {
					return err
				}
			}
			return nil
		}, func(e *launchEnv) (dirs []string, _ error) {
			for i := range image.layers {
				dirs = append(dirs, e.path(fmt.Sprint(i)))
			}
			return dirs, nil
		}),
	}
}

// clear takes away what was loaded.
func (e *launchEnv) clear() error {
	if err := e.remove(); err != nil {
		return err
	}
	return makeOwned(e.dir, e.caller)
}

// shownLayers are the directories of an image's layers, lowest first, as inspect tells them.
func shownLayers(call func(args ...string) (string, error), tag string) ([]string, error) {
	text, err := call("image", "inspect", tag)
	if err != nil {
		return nil, err
	}
	var images []struct {
		GraphDriver struct {
			Data struct{ UpperDir, LowerDir string }
		}
	}
	if err := json.Unmarshal([]byte(text), &images); err != nil {
		return nil, fmt.Errorf("image inspect: %w", err)
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("image inspect shows %d images", len(images))
	}
	d := images[0].GraphDriver.Data
	dirs := append([]string{d.UpperDir}, strings.Split(d.LowerDir, ":")...)
	slices.Reverse(dirs)
	return dirs, nil
}
