package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// made is a report of a workload "walk" with those wall times in milliseconds, by system.
func made(walls map[string][]int) *Report {
	r := &Report{
		Schema: Schema, Reps: 6, Scale: 1,
		Machine: Machine{
			Date: "2026-01-02T03:04:05Z", Kernel: "6.18.0", CPUs: 2, CPUModel: "Made <Up>", Filesystem: "tmpfs",
			LoadBefore: "0.10 0.20 0.30 1/99 1", LoadAfter: "0.40 0.50 0.60 1/99 1",
			Versions: map[string]string{"laminafs": "laminafs 1.2.3"},
		},
		Workloads: []Workload{{
			Name: "walk", Group: "metadata", About: "a walk & more", Base: "overlay",
			Goals: []Goal{{System: "laminafs", Of: Wall, Factor: 1.5, Than: "overlay"}, {System: "laminafs", Of: Peak, Factor: 1 << 20}},
		}},
	}
	for _, sys := range []string{"overlay", "laminafs", "laminafs:transport=loop"} {
		if _, ok := walls[sys]; !ok {
			continue
		}
		r.Systems = append(r.Systems, System{sys})
		for i, ms := range walls[sys] {
			wall := time.Duration(ms) * time.Millisecond
			s := Sample{Workload: "walk", System: sys, Rep: i, Wall: wall, Client: wall / 2, Others: 0}
			if strings.HasPrefix(sys, "laminafs") {
				s.Server, s.Requests, s.Memory = wall/4, map[string]int64{"LOOKUP": int64(ms), "READ": 1}, &Memory{Peak: 2 << 20}
			}
			r.Samples = append(r.Samples, s)
		}
	}
	return r
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	r := made(map[string][]int{"overlay": {1, 2, 3}, "laminafs": {4, 5, 6}})
	r.Skipped = []Skip{{System: "fuse-overlayfs", Why: "it is not there"}}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	back, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := back.Write(&again); err != nil || again.String() != text {
		t.Errorf("error %v; written:\n%s\nwritten again:\n%s", err, text, again.String())
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	change := func(how func(m map[string]any)) string {
		var b bytes.Buffer
		if err := made(map[string][]int{"overlay": {1}}).Write(&b); err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		how(m)
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	sample := func(m map[string]any) map[string]any { return m["samples"].([]any)[0].(map[string]any) }
	tests := []struct{ name, text, want string }{
		{"nothing", "", "not a report"},
		{"no JSON", "walk 1.0", "not a report"},
		{"cut off", `{"schema": 1, "samples": [`, "not a report"},
		{"something else", `{"a": 1}`, "it has no schema"},
		{"another type", `{"schema": 1, "reps": "many"}`, "reps"},
		{"another version", change(func(m map[string]any) { m["schema"] = 99 }), "schema 99: this version reads 1"},
		{"two of them", change(func(map[string]any) {}) + "{}", "something follows"},
		{"unknown workload", change(func(m map[string]any) { sample(m)["workload"] = "dance" }), `no workload "dance"`},
		{"unknown system", change(func(m map[string]any) { sample(m)["system"] = "aufs" }), `no system "aufs"`},
		{"no time", change(func(m map[string]any) { sample(m)["wall_ns"] = 0 }), "walk on overlay has impossible times"},
		{"two workloads", change(func(m map[string]any) { m["workloads"] = append(m["workloads"].([]any), m["workloads"].([]any)...) }),
			`the workload "walk" is there twice`},
		{"two systems", change(func(m map[string]any) { m["systems"] = append(m["systems"].([]any), m["systems"].([]any)...) }),
			`the system "overlay" is there twice`},
		{"two samples", change(func(m map[string]any) { m["samples"] = append(m["samples"].([]any), m["samples"].([]any)...) }),
			"two samples of repetition 1 of walk on overlay"},
		{"no repetition", change(func(m map[string]any) { sample(m)["rep"] = -1 }), "walk on overlay has an impossible repetition"},
		{"no memory", change(func(m map[string]any) { sample(m)["memory"] = map[string]any{"peak": -1} }), "walk on overlay has impossible memory"},
		{"no requests", change(func(m map[string]any) { sample(m)["requests"] = map[string]any{"READ": -1} }), "impossible number of READ"},
		{"time before", change(func(m map[string]any) { sample(m)["client_ns"] = -1 }), "impossible times"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(strings.NewReader(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestFigure(t *testing.T) {
	r := made(map[string][]int{"overlay": {9, 10, 11, 10, 8, 12, 10, 30}, "laminafs": {10, 30, 20}})
	f, ok := r.figure("walk", "overlay", Wall)
	if !ok || f.Center != 0.010 || f.Range || f.Lo < 0.008 || f.Lo > f.Center || f.Hi < f.Center {
		t.Errorf("of eight samples: %+v, want the median 0.010 in an interval around it", f)
	}
	if f, _ = r.figure("walk", "laminafs", Wall); f.Center != 0.020 || !f.Range || f.Lo != 0.010 || f.Hi != 0.030 {
		t.Errorf("of three samples: %+v, want the median 0.020 in the range of all", f)
	}
	if f, _ = r.figure("walk", "laminafs", CPU); f.Center != 0.015 {
		t.Errorf("CPU time %v, want client's and server's, 0.015", f.Center)
	}
	if f, _ = r.figure("walk", "laminafs", Count); f.Center != 21 {
		t.Errorf("%v requests, want 21", f.Center)
	}
	if _, ok = r.figure("walk", "overlay", Count); ok {
		t.Error("overlay has a number of requests")
	}
}

func TestVerdicts(t *testing.T) {
	r := made(map[string][]int{"overlay": {10}, "laminafs": {20}, "laminafs:transport=loop": {12}})
	got := map[string]bool{}
	for _, v := range r.Verdicts() {
		got[v.System+" "+string(v.Goal.Of)] = v.Met
	}
	want := map[string]bool{
		"laminafs wall": false, "laminafs:transport=loop wall": true, "laminafs peak": false, "laminafs:transport=loop peak": false,
	}
	for name, met := range want {
		if g, ok := got[name]; !ok || g != met {
			t.Errorf("%s: met %v, given %v; want %v", name, g, ok, met)
		}
	}
}

// wrong makes the last sample of laminafs one with a wrong result.
func wrong(r *Report) *Report {
	s := &r.Samples[len(r.Samples)-1]
	*s = Sample{Workload: s.Workload, System: s.System, Rep: s.Rep, Incorrect: "a file\nhas <b>other</b> bytes"}
	return r
}

func TestMarkdownAndLedger(t *testing.T) {
	r := wrong(made(map[string][]int{"overlay": {10, 10, 10}, "laminafs": {20}}))
	r.Skipped = []Skip{{Workload: "untar", System: "podman", Why: "no such\nprogram"}}
	var md, ledger bytes.Buffer
	if err := r.Markdown(&md); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Linux 6.18.0, 2 CPUs (Made <Up>), layers on tmpfs", "(quiet)", "laminafs 1.2.3", "10.00ms ±0% (1.00)", " wrong |",
		"walk on laminafs: a file has <b>other</b> bytes", "untar on podman: no such program", "load average 0.10 0.20 0.30 before",
	} {
		if !strings.Contains(md.String(), want) {
			t.Errorf("the tables do not have %q:\n%s", want, md.String())
		}
	}
	if err := made(map[string][]int{"overlay": {10}, "laminafs": {20}}).Ledger(&ledger, "walks are\nslower"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## 2026-01-02: walks are slower\n", "laminafs 1.2.3", "6.18.0", "2, Made <Up>", "tmpfs", "20.00ms (2.00)",
		"0 of 2 goals met. Missed:", "- walk on laminafs: wall at most 1.50 × overlay, is 2.00",
	} {
		if !strings.Contains(ledger.String(), want) {
			t.Errorf("the entry does not have %q:\n%s", want, ledger.String())
		}
	}
}

// A bar in a text is no column more.
func TestBarInATable(t *testing.T) {
	r := made(map[string][]int{"overlay": {10}})
	r.Machine.Versions["laminafs"] = "laminafs 1 | 2"
	var b bytes.Buffer
	if err := r.Ledger(&b, "a | b"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`a \| b |`, `laminafs 1 \| 2 |`, "## 2026-01-02: a | b\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// What a server holds is shown of the repetition in the middle, not of the first.
func TestMemoryIsTheMedian(t *testing.T) {
	r := made(map[string][]int{"laminafs": {1, 1, 1}})
	for i, mib := range []int64{90, 30, 50} {
		r.Samples[i].Memory = &Memory{Before: 10 << 20, After: mib << 20, Peak: mib << 20, Objects: 1 << 20, FDs: 7, FDLimit: 8}
	}
	var b bytes.Buffer
	if err := r.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`walk +\| laminafs \| +1048576 \| +10\.00MiB \| +50\.00MiB \| +50\.00MiB \| +40 \| +7 of 8 \|`)
	if !row.MatchString(b.String()) {
		t.Errorf("no %v in\n%s", row, b.String())
	}
}

// A report of a run that was interrupted says so wherever it is looked at.
func TestInterruptionIsSaid(t *testing.T) {
	r := made(map[string][]int{"overlay": {10, 10}, "laminafs": {20, 20}})
	r.Interrupted = 3
	var js bytes.Buffer
	if err := r.Write(&js); err != nil || !strings.Contains(js.String(), `"interrupted": 3`) {
		t.Errorf("error %v:\n%s", err, js.String())
	}
	for name, write := range map[string]func(io.Writer) error{
		"tables": r.Markdown, "page": r.HTML, "chart": r.Chart, "ledger": func(w io.Writer) error { return r.Ledger(w, "") },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil || !strings.Contains(b.String(), "interrupted in repetition 3 of 6") {
			t.Errorf("%s: error %v, nothing of it in\n%s", name, err, b.String())
		}
		whole := *r
		whole.Interrupted = 0
		b.Reset()
		if err := whole.Markdown(&b); err != nil || strings.Contains(b.String(), "interrupted") {
			t.Errorf("of a whole run: error %v:\n%s", err, b.String())
		}
	}
}

// A file that cannot be written whole leaves the one before it.
func TestFilesAreWholeOrAsBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.json")
	if err := os.WriteFile(path, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	if err := writeFile(path, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half") // a file takes it
		return full
	}); !errors.Is(err, full) {
		t.Errorf("error %v, want %v", err, full)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "before" {
		t.Errorf("it is %q, error %v", text, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, error %v", left, err)
	}
}

// What is missing for one reason is told of at once.
func TestSkippedForTheSameReason(t *testing.T) {
	r := made(map[string][]int{"overlay": {1}})
	r.Skipped = []Skip{
		{System: "runc", Why: "not there"},
		{Workload: "a", System: "x", Why: "no\ntree"}, {Workload: "a", System: "y", Why: "no tree"},
		{Workload: "b", System: "x", Why: "no tree"}, {Workload: "b", System: "y", Why: "no tree"},
		{Workload: "c", System: "x", Why: "no tree"}, {Workload: "d", Why: "interrupted"},
	}
	want := []string{"everything on runc: not there", "a, b on x, y: no tree", "c on x: no tree", "d on every system: interrupted"}
	var md, html bytes.Buffer
	if err := errors.Join(r.Markdown(&md), r.HTML(&html)); err != nil {
		t.Fatal(err)
	}
	if list := "\n## Not measured\n\n- " + strings.Join(want, "\n- ") + "\n"; !strings.HasSuffix(md.String(), list) {
		t.Errorf("the tables do not end in %q:\n%s", list, md.String())
	}
	if list := "<ul><li>" + strings.Join(want, "</li><li>") + "</li></ul>"; !strings.Contains(html.String(), list) {
		t.Errorf("the page does not have %q:\n%s", list, html.String())
	}
}

func TestBusyIsSaid(t *testing.T) {
	whole := made(map[string][]int{"overlay": {10}})
	whole.Machine.Others = 0.25
	samples := made(map[string][]int{"overlay": {1000}})
	samples.Samples[0].Others = 500 * time.Millisecond // of 2 CPUs in a second
	for name, r := range map[string]*Report{"the whole run": whole, "samples": samples} {
		var b bytes.Buffer
		if err := r.Markdown(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "Others used 25.0 % (**busy**") {
			t.Errorf("%s: nothing about others:\n%s", name, b.String())
		}
	}
}

// fetched is what makes a browser ask for something.
var fetched = regexp.MustCompile(`(?i)[a-z]+://|src=|href=|<link|<script|@import|url\(|<iframe|<object|<img`)

func TestPageFetchesNothing(t *testing.T) {
	r := wrong(made(map[string][]int{
		"overlay": {10, 11, 9, 10, 10, 12}, "laminafs": {20, 21, 22, 20, 21, 23}, "laminafs:transport=loop": {14},
	}))
	r.Machine.Versions["evil"] = `<script src="x">`
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(b.String(), "&lt;script src=&#34;x&#34;&gt;", "")
	if found := fetched.FindString(text); found != "" {
		i := strings.Index(text, found)
		t.Errorf("%q in it: ...%s", found, text[max(0, i-80):min(len(text), i+80)])
	}
	for _, want := range []string{"<svg", "a walk &amp; more", "wrong", "Made &lt;Up&gt;", "other&lt;/b&gt; bytes"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in it", want)
		}
	}
	if n := strings.Count(text, "<svg"); n != 2 {
		t.Errorf("%d charts, want 2", n)
	}
}

// The page has what the tables have: also requests by opcode, and what an object costs.
func TestPageHasRequestsAndMemory(t *testing.T) {
	r := made(map[string][]int{"overlay": {10}, "laminafs": {20}})
	var plain bytes.Buffer
	if err := r.HTML(&plain); err != nil {
		t.Fatal(err)
	}
	for i := range r.Samples {
		if m := r.Samples[i].Memory; m != nil {
			*m = Memory{Before: 10 << 20, After: 50 << 20, Peak: 50 << 20, Objects: 1 << 20, FDs: 7, FDLimit: 8}
		}
	}
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<li>walk on laminafs: 21: LOOKUP 20, READ 1</li>", ">Memory of a server that", "<td>1048576</td>", "<td>7 of 8</td>"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in it", want)
		}
	}
	if strings.Contains(plain.String(), ">Memory of a server that") {
		t.Error("it has a table of memory where no workload is about that")
	}
}

func TestChartIsSVG(t *testing.T) {
	busy := made(map[string][]int{"overlay": {10}, "laminafs": {20}})
	busy.Machine.Others = 0.5
	for name, r := range map[string]*Report{
		"busy":     busy,
		"measured": made(map[string][]int{"overlay": {10, 11}, "laminafs": {20, 1}}),
		"no base":  made(map[string][]int{"laminafs": {20}}),
		"nothing":  made(nil),
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := r.Chart(&b); err != nil {
				t.Fatal(err)
			}
			text := b.String()
			d := xml.NewDecoder(&b)
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%v:\n%s", err, text)
				}
			}
			if name == "busy" != strings.Contains(text, ">CPU time of client") && name != "no base" && name != "nothing" {
				t.Errorf("it shows the wrong time:\n%s", text)
			}
			if name == "measured" && (!strings.Contains(text, ">walk<") || !strings.Contains(text, ">laminafs<")) {
				t.Errorf("it does not name what it shows:\n%s", text)
			}
		})
	}
}
