package container

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/laminafs/lamina/runtime/image"
)

func TestFilters(t *testing.T) {
	b := newBox(t)
	one := b.must("create", "-", newRun(words("true"), name("one"), config(func(c *api.Config) { c.Labels = map[string]string{"k": "v"} })))
	b.run(script("exit 3"), name("two"), config(volumeAt("/vol")))
	three := b.start(words("sleep", "1000"), name("three"))
	for filters, want := range map[string]string{
		`{}`:                                  "three two one",
		`{"name":["^t"]}`:                     "three two",
		`{"id":["` + one[:10] + `"]}`:         "one",
		`{"status":["running"]}`:              "three",
		`{"status":["created","exited"]}`:     "two one",
		`{"exited":["3"]}`:                    "two",
		`{"label":["k=v"]}`:                   "one",
		`{"label":["k=v","from=image"]}`:      "one",
		`{"label":["k=x"]}`:                   "",
		`{"ancestor":["test"]}`:               "three two one",
		`{"ancestor":["nope"]}`:               "",
		`{"before":["two"]}`:                  "one",
		`{"since":["one"]}`:                   "three two",
		`{"volume":["/vol"]}`:                 "two",
		`{"network":["none"],"name":["two"]}`: "two",
		`{"health":["none"]}`:                 "three two one",
	} {
		list := decode[[]api.Summary](t, b.must("ps", filters))
		var names []string
		for _, c := range list {
			names = append(names, strings.TrimPrefix(c.Names[0], "/"))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", filters, got, want)
		}
	}
	for _, bad := range []string{`{"nope":["x"]}`, `{"status":["x"]}`, `{"exited":["x"]}`, `{"before":["none-such"]}`} {
		if _, errs, code := b.try("ps", bad); code == 0 || errs == "" {
			t.Errorf("%s: exit %d", bad, code)
		}
	}
	report := decode[api.PruneReport](t, b.must("prune"))
	if len(report.ContainersDeleted) != 2 || slices.Contains(report.ContainersDeleted, three) {
		t.Errorf("%+v", report)
	}
}

// TestManyAtOnce: names, layers and volumes are given away once, whoever comes.
func TestManyAtOnce(t *testing.T) {
	b := newBox(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			out, errs, code := b.run(words("echo", strconv.Itoa(i)), autoRemove, host(func(h *api.HostConfig) { h.Binds = words("shared:/data") }))
			if code != 0 || out != strconv.Itoa(i)+"\n" {
				t.Errorf("%q %q, exit %d", out, errs, code)
			}
		})
	}
	wg.Wait()
	if left := b.ps(); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// TestOtherRunOfTheMachine: what was running when it went down has ended.
func TestOtherRunOfTheMachine(t *testing.T) {
	b := newBox(t)
	id := b.must("create", "-", newRun(words("true"), name("boot")))
	dir := filepath.Join(b.root, "containers", id)
	st := &state{
		Status: api.StateRunning, Boot: "another", Monitor: identify(os.Getpid()), Init: identify(os.Getpid()),
		Laminafs: identify(os.Getpid()), StartedAt: time.Now(), // PIDs that are somebody else's by now
	}
	text, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	write := b.outside("sh", "-c", "cat > "+filepath.Join(dir, stateFile))
	write.Stdin = strings.NewReader(string(text))
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if s := b.inspect(id).State; s.Status != "exited" || s.ExitCode != killedCode || s.Pid != 0 {
		t.Errorf("%+v", s)
	}
	b.must("start", id)
	if got := b.must("wait", id, "not-running"); got != "0" {
		t.Errorf("exit %s", got)
	}
}

// TestVolatile: a container with --rm goes with the run of the machine, whatever a crash has left of it, and does not wait for
// the disk until then.
func TestVolatile(t *testing.T) {
	b := newBox(t)
	volume := host(func(h *api.HostConfig) { h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/data"}} })
	kept := b.must("create", "-", newRun(words("true"), name("kept"), volume))
	for _, left := range []struct {
		what, script string
		volumes      bool // they go too
	}{
		{"all", "true", true},
		{"a record without content", ": >config.json; : >state.json; echo '{' >monitor.lock", false},
		{"no record", "rm config.json", false},
		{"a record of who was making it", "mv config.json creating.json", true},
		{"nothing", "rm config.json lock", false},
		{"links without content", "m=$(cat ../../layerdb/mounts/${PWD##*/}/mount-id) && : >../../layers/$m/link && : >../../layers/$m-init/link", true},
		{"layers without content in their record", "for f in ../../layerdb/mounts/${PWD##*/}/*; do : >$f; done", true},
	} {
		before, err1 := b.entries("volumes")
		layers, err2 := b.entries("layers")
		links, err3 := b.entries("layers/l")
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		id := b.must("create", "-", newRun(words("true"), name("volatile"), autoRemove, volume))
		dir := filepath.Join(b.root, "containers", id)
		if boot, err := os.Readlink(filepath.Join(dir, bootFile)); err != nil || boot != bootID() {
			t.Fatalf("it goes with %q, %v; want %q", boot, err, bootID())
		}
		if got := b.ps(); len(got) != 2 {
			t.Errorf("%s: before the machine goes down: %v", left.what, got)
		}
		if out, err := b.outside("sh", "-c", "cd "+dir+" && ln -sfn another boot && "+left.script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, errs, code := b.try("ps")
		if code != 0 || errs != "" || strings.Contains(out, id) || !strings.Contains(out, kept) {
			t.Errorf("%s: exit %d, %q %q", left.what, code, out, errs)
		}
		if exists1(dir) || exists1(filepath.Join(b.root, "layerdb", "mounts", id)) {
			t.Errorf("%s: it is still there", left.what)
		}
		if after, err := b.entries("layers"); err != nil || !slices.Equal(after, layers) {
			t.Errorf("%s: layers %v, then %v, %v", left.what, layers, after, err)
		}
		if after, err := b.entries("layers/l"); err != nil || !slices.Equal(after, links) {
			t.Errorf("%s: short links %v, then %v, %v", left.what, links, after, err)
		}
		if after, err := b.entries("volumes"); err != nil || left.volumes != (len(after) == len(before)) {
			t.Errorf("%s: volumes %v, then %v, %v", left.what, before, after, err)
		}
	}
	if exists1(filepath.Join(b.root, "containers", kept, bootFile)) {
		t.Error("a container without --rm goes with the machine")
	}
}

// TestVolatileLives: one that runs stays, whatever the run of the machine is called where it is looked at.
func TestVolatileLives(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"), autoRemove)
	dir := filepath.Join(b.root, "containers", id)
	if out, err := b.outside("ln", "-sfn", "another", filepath.Join(dir, bootFile)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if s := b.inspect(id).State; !s.Running {
		t.Errorf("%+v", s)
	}
	b.must("rm", id, "-f")
	if exists1(dir) {
		t.Error("it is still there")
	}

	was := bootID
	defer func() { bootID = was }()
	bootID = func() string { return "" }
	made := t.TempDir()
	if err := os.Symlink("this", filepath.Join(made, bootFile)); err != nil {
		t.Fatal(err)
	}
	if stale(made) {
		t.Error("stale, and nobody knows in which run of the machine we are")
	}
}

// TestVolatileAtOnce: the first commands after the machine has begun are many, and none fails for what another removes.
func TestVolatileAtOnce(t *testing.T) {
	b := newBox(t)
	script := "cd " + filepath.Join(b.root, "containers") + ` && for i in $(seq 200); do
		d=$(printf %064d $i) && mkdir $d && ln -s another $d/boot && echo 1 >$d/monitor.lock && : >$d/lock &&
		echo '{"Status":"running"}' >$d/state.json && echo '{}' >$d/config.json; done`
	if out, err := b.outside("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if out, errs, code := b.try("ps"); code != 0 || errs != "" {
				t.Errorf("exit %d, %q %q", code, out, errs)
			}
		})
	}
	wg.Wait()
	if left, err := b.entries("containers"); err != nil || len(left) != 0 {
		t.Errorf("%d are left, %v", len(left), err)
	}
}

// TestVolatileUnion: what syncs in a container that goes with the machine does not wait for the disk.
func TestVolatileUnion(t *testing.T) {
	c := &Container{s: &Store{root: t.TempDir()}, r: &record{ID: "c", HostConfig: &api.HostConfig{}}}
	if err := os.MkdirAll(c.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	options := func() []string { return strings.Split(unionOptions(&image.Mount{}, c), ",") }
	if slices.Contains(options(), "volatile=1") {
		t.Error("one that stays does not sync")
	}
	if err := setVolatile(c.dir()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(options(), "volatile=1") {
		t.Error("one that goes syncs")
	}
}

// TestRemoveLookedAt: the directory of a container goes although other commands look at it, and make its lock anew.
func TestRemoveLookedAt(t *testing.T) {
	for i := range 300 {
		dir := filepath.Join(t.TempDir(), strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		looking, gone := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(gone)
			for first := true; ; first = false {
				lock, err := lockPath(filepath.Join(dir, lockFile), false)
				if missing(err) {
					return
				}
				if err == nil {
					_ = lock.Close()
				}
				if first {
					close(looking)
				}
			}
		}()
		<-looking
		if err := removeDir(dir); err != nil {
			t.Fatal(err)
		}
		<-gone
	}
}

func TestWait(t *testing.T) {
	b := newBox(t)
	id := b.start(script("while [ ! -e /go ]; do sleep 0.05; done; exit 5"), autoRemove)
	cmd := b.command(t.Context(), "wait", id, "removed")
	says, err1 := cmd.StderrPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(says, make([]byte, len("waiting\n"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is waited for", func() bool { return connections(t, id) > 1 })
	if _, errs, code := b.exec(id, "touch", "/go"); code != 0 && code != killedCode { // the container ends, and it with that
		t.Fatalf("exit %d: %s", code, errs)
	}
	got, err := io.ReadAll(out)
	if err := errors.Join(err, cmd.Wait()); err != nil || string(got) != "5\n" {
		t.Errorf("removed: exit %s, %v", got, err)
	}
	if exists1(filepath.Join(b.root, "containers", id)) {
		t.Error("it is still there")
	}
	id = b.start(script("sleep 2; exit 6"), host(func(h *api.HostConfig) { h.RestartPolicy.Name = "always" }))
	if got := b.must("wait", id, "next-exit"); got != "6" {
		t.Errorf("next-exit: exit %s", got)
	}
	if _, _, code := b.try("wait", id, "nope"); code == 0 {
		t.Error("a condition that is none")
	}
}

// TestManyLayers: 127 of them fit the option of the mount, wherever the store is.
func TestManyLayers(t *testing.T) {
	b := newBox(t)
	b.must("layers", "-", "126")
	out, errs, code := b.run(script("ls /layers | wc -l; cat /layers/1 /layers/126"), autoRemove, config(func(c *api.Config) { c.Image = "layers" }))
	if code != 0 || out != "126\n1\n126\n" {
		t.Errorf("%q %q, exit %d", out, errs, code)
	}
}

func TestStateText(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		st   state
		want string
	}{
		{state{Status: api.StateCreated}, "Created"},
		{state{Status: api.StateRunning, StartedAt: now.Add(-2 * time.Minute)}, "Up 2 minutes"},
		{state{Status: api.StatePaused, StartedAt: now.Add(-2 * time.Hour)}, "Up 2 hours (Paused)"},
		{state{Status: api.StateExited, ExitCode: 3, FinishedAt: now.Add(-3 * time.Second)}, "Exited (3) 3 seconds ago"},
		{state{Status: api.StateRestarting, ExitCode: 1, FinishedAt: now.Add(-time.Second)}, "Restarting (1) 1 second ago"},
	} {
		if got := tt.st.text(now); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestPortList(t *testing.T) {
	p80, p90 := network.MustParsePort("80/tcp"), network.MustParsePort("90/udp")
	st := &state{Status: api.StateRunning, Ports: network.PortMap{p80: {{HostPort: "8080"}}}}
	got := portList(network.PortSet{p80: {}, p90: {}}, st)
	if len(got) != 2 || got[0].PublicPort != 8080 || got[0].IP.String() != "0.0.0.0" || got[1].PrivatePort != 90 || got[1].PublicPort != 0 {
		t.Errorf("%+v", got)
	}
	st.Status = api.StateExited
	if got := portList(network.PortSet{p80: {}}, st); len(got) != 0 {
		t.Errorf("of one that does not run: %+v", got)
	}
}

// TestMessages: descriptors and long messages arrive whole.
func TestMessages(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	peer, err := connOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	r, w, err := pipe(true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := request{Op: opExec, Path: rawName(strings.Repeat("x", 1<<20))}
	sent := make(chan error, 1)
	go func() {
		err := ours.send(long, w)
		_ = w.Close()
		sent <- err
	}()
	var got request
	files, err := peer.receive(&got)
	if err != nil || len(files) != 1 || got.Path != long.Path {
		t.Fatalf("%d files, %d bytes, %v", len(files), len(got.Path), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if _, err := files[0].WriteString("through"); err != nil {
		t.Fatal(err)
	}
	closeAll(files)
	buf := make([]byte, 20)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "through" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	_ = ours.Close()
	if _, err := peer.receive(&got); gone(err) != errNoMonitor {
		t.Errorf("the end: %v", err)
	}
}
