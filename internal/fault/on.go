//go:build faults

package fault

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Enabled tells whether points can be armed in this build.
const Enabled = true

// Hit says that the step is done. An error is one to be treated as the step's own.
func (p P) Hit() error { return Point(p.name) }

// Point hits the point called name.
func Point(name string) error {
	if !slices.Contains(List(), name) {
		panic("fault: point " + name + " is not declared")
	}
	a := hit(name)
	if a.wait {
		a = await(name, a.text)
	}
	if a.kill {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL) // cannot fail: it is ourselves
		select {}                                  // the signal may take another thread first
	}
	if a.errno != 0 {
		return a.errno
	}
	return nil
}

// await waits until something else is armed than text, and returns what that does at the point.
func await(name, text string) action {
	mark := os.Getenv(armingFile) + ".waiting"
	if err := os.WriteFile(mark, []byte(name), 0o600); err != nil {
		panic("fault: " + err.Error()) // the test would wait for ever
	}
	for source() == text {
		time.Sleep(time.Millisecond)
	}
	_ = os.Remove(mark) // one that is left only says what has been
	return hit(name)
}

// action is what an armed point does: on its nth hit, or on every one where nth is 0.
type action struct {
	nth   int
	kill  bool
	wait  bool
	text  string // of the arming, where it waits
	errno unix.Errno
}

// armingFile is the environment variable with the name of the file that arms points.
const armingFile = "LAMINA_FAULT_FILE"

// arming is the points armed by one text, with the hits since then.
type arming struct {
	text    string
	actions map[string]action
	hits    map[string]int
}

var (
	armedMu sync.Mutex
	armed   arming // guarded by armedMu
)

func hit(name string) action {
	armedMu.Lock()
	defer armedMu.Unlock()
	if text := source(); text != armed.text || armed.actions == nil {
		actions, err := parse(text)
		if err != nil {
			panic("fault: " + err.Error()) // a test that arms nothing would pass for nothing
		}
		armed = arming{text, actions, map[string]int{}}
	}
	armed.hits[name]++
	a, ok := armed.actions[name]
	if !ok || a.nth != 0 && a.nth != armed.hits[name] {
		return action{}
	}
	return a
}

func source() string {
	if path := os.Getenv(armingFile); path != "" {
		b, _ := os.ReadFile(path) // a file that is not there arms nothing
		return string(b)
	}
	return os.Getenv("LAMINA_FAULT")
}

func parse(text string) (map[string]action, error) {
	actions := map[string]action{}
	split := func(r rune) bool { return strings.ContainsRune(", \t\n", r) }
	for _, word := range strings.FieldsFunc(text, split) {
		name, what, ok := strings.Cut(word, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not POINT[#N]=kill, =wait or =ERRNO", word)
		}
		var a action
		name, count, counted := strings.Cut(name, "#")
		if counted {
			n, err := strconv.Atoi(count)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%q: no count of hits", word)
			}
			a.nth = n
		}
		if !slices.Contains(List(), name) {
			return nil, fmt.Errorf("%q: no such point", word)
		}
		switch what {
		case "kill":
			a.kill = true
		case "wait":
			if os.Getenv(armingFile) == "" {
				return nil, fmt.Errorf("%q: nothing could end it without %s", word, armingFile)
			}
			a.wait, a.text = true, text
		default:
			if a.errno = errnoNamed(what); a.errno == 0 {
				return nil, fmt.Errorf("%q: no such errno", word)
			}
		}
		actions[name] = a
	}
	return actions, nil
}

func errnoNamed(name string) unix.Errno {
	for e := unix.Errno(1); e < 200; e++ {
		if name != "" && unix.ErrnoName(e) == name { // numbers that are no errno have the name ""
			return e
		}
	}
	return 0
}
