package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	api "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"

	"github.com/laminafs/lamina/internal/figures"
)

func TestMoment(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	tests := []struct {
		text string
		want time.Time
		bad  bool
	}{
		{text: ""},
		{text: "42m", want: now.Add(-42 * time.Minute)},
		{text: "1h30m", want: now.Add(-90 * time.Minute)},
		{text: "2013-01-02T13:23:37Z", want: time.Date(2013, 1, 2, 13, 23, 37, 0, time.UTC)},
		{text: "2013-01-02T13:23:37.5+02:00", want: time.Date(2013, 1, 2, 11, 23, 37, 500_000_000, time.UTC)},
		{text: "2013-01-02T13:23:37", want: time.Date(2013, 1, 2, 13, 23, 37, 0, time.Local)},
		{text: "2013-01-02", want: time.Date(2013, 1, 2, 0, 0, 0, 0, time.Local)},
		{text: "1136073600", want: time.Unix(1136073600, 0)},
		{text: "1136073600.000000001", want: time.Unix(1136073600, 1)},
		{text: "1136073600.5", want: time.Unix(1136073600, 500_000_000)},
		{text: "yesterday", bad: true},
		{text: "1.x", bad: true},
	}
	for _, tt := range tests {
		got, err := moment(tt.text, now)
		if (err != nil) != tt.bad || !tt.bad && !got.Equal(tt.want) {
			t.Errorf("%q: %v, %v; want %v", tt.text, got, err, tt.want)
		}
	}
}

func TestSplitCopy(t *testing.T) {
	tests := []struct{ arg, name, path string }{
		{"c:/etc", "c", "/etc"}, {"c:etc/x:y", "c", "etc/x:y"}, {"c:", "c", ""}, {"./a:b", "", "./a:b"}, {"/a:b", "", "/a:b"},
		{"file", "", "file"}, {"-", "", "-"}, {"../x", "", "../x"},
	}
	for _, tt := range tests {
		if name, path := splitCopy(tt.arg); name != tt.name || path != tt.path {
			t.Errorf("%q: %q, %q; want %q, %q", tt.arg, name, path, tt.name, tt.path)
		}
	}
}

func TestPortLines(t *testing.T) {
	at := func(ip, port string) network.PortBinding {
		b := network.PortBinding{HostPort: port}
		if ip != "" {
			b.HostIP = netip.MustParseAddr(ip)
		}
		return b
	}
	ports := network.PortMap{
		network.MustParsePort("80/tcp"):  {at("", "8080"), at("::", "8080")},
		network.MustParsePort("53/udp"):  {at("127.0.0.1", "5353")},
		network.MustParsePort("53/tcp"):  {at("127.0.0.1", "5354")},
		network.MustParsePort("443/tcp"): nil,
	}
	tests := []struct {
		want  string // the port that is asked for
		lines []string
		err   string
	}{
		{"", []string{"53/tcp -> 127.0.0.1:5354", "53/udp -> 127.0.0.1:5353", "80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"}, ""},
		{"80", []string{"0.0.0.0:8080", "[::]:8080"}, ""},
		{"53/udp", []string{"127.0.0.1:5353"}, ""},
		{"443", nil, "no public port '443/tcp' published for c"},
		{"81", nil, "no public port '81/tcp' published for c"},
		{"x", nil, "invalid"},
	}
	for _, tt := range tests {
		lines, err := portLines(ports, "c", strings.Fields(tt.want))
		if !slices.Equal(lines, tt.lines) || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %q, %v; want %q, %q", tt.want, lines, err, tt.lines, tt.err)
		}
	}
}

func TestBar(t *testing.T) {
	tests := []struct {
		current, total int64
		width          int
		want           string
	}{
		{0, 0, 80, ""},
		{1500, 0, 80, " 1.5kB"},
		{500, 1000, 23, "[=====>    ] 500B/1kB"},
		{0, 1000, 19, "[>       ] 0B/1kB"},
		{1000, 1000, 22, "[==========] 1kB/1kB"},
		{2000, 1000, 22, "[==========] 2kB/1kB"}, // more than was announced
		{1, 2, 8, " 1B/2B"},                      // no room for a bar
	}
	for _, tt := range tests {
		got := bar(tt.current, tt.total, tt.width)
		if got != tt.want {
			t.Errorf("%d of %d in %d: %q, want %q", tt.current, tt.total, tt.width, got, tt.want)
		}
		if len(got) > tt.width {
			t.Errorf("%q does not fit %d", got, tt.width)
		}
	}
}

func TestProgressLines(t *testing.T) {
	var out strings.Builder
	p := &progress{out: &out, rows: map[string]*row{}}
	p.Update("aa", "Downloading", 0, 10)
	p.Update("bb", "Already exists", 0, 0)
	p.Update("aa", "Downloading", 5, 10)
	p.Update("aa", "Pull complete", 10, 10)
	p.Update("", "Digest: sha256:x", 0, 0)
	p.Close()
	want := "aa: Downloading\nbb: Already exists\naa: Pull complete\nDigest: sha256:x\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	(*progress)(nil).Close() // --quiet
}

func TestStatsLine(t *testing.T) {
	var s api.StatsResponse
	s.PreCPUStats.CPUUsage.TotalUsage, s.CPUStats.CPUUsage.TotalUsage = 1e9, 2e9
	s.PreCPUStats.SystemUsage, s.CPUStats.SystemUsage = 10e9, 14e9
	s.CPUStats.OnlineCPUs = 2
	s.MemoryStats = api.MemoryStats{Usage: 3 << 20, Limit: 8 << 20, Stats: map[string]uint64{"inactive_file": 1 << 20}}
	s.Networks = map[string]api.NetworkStats{"tap0": {RxBytes: 1000, TxBytes: 2}, "lo": {RxBytes: 500}}
	s.BlkioStats.IoServiceBytesRecursive = []api.BlkioStatEntry{{Op: "Read", Value: 7}, {Op: "write", Value: 8}, {Op: "", Value: 9}}
	s.PidsStats.Current = 4
	e := statsEntry{id: strings.Repeat("a", 64), name: "n"}
	dead := e
	e.fill(&s)
	checkStats(t, statsFormat("", false), []statsEntry{e, dead},
		"CONTAINER ID NAME CPU % MEM USAGE / LIMIT MEM % NET I/O BLOCK I/O PIDS",
		"aaaaaaaaaaaa n 50.00% 2MiB / 8MiB 25.00% 1.5kB / 2B 7B / 8B 4",
		"aaaaaaaaaaaa n -- -- / -- -- -- -- --")
	e.fs = &figures.Mount{
		Requests: figures.Requests{ReadBytes: 1500, WrittenBytes: 2, Opcodes: []figures.Opcode{
			{Name: "READ", Count: 4, Errors: map[string]uint64{"EIO": 1, "ENOSYS": 1},
				Latency: &figures.Histogram{Seconds: 6e-6, Buckets: [len(figures.Bounds) + 1]uint64{2, 1}}},
			{Name: "GETXATTR", Count: 3, Errors: map[string]uint64{"ENODATA": 2}},
		}},
		Union: figures.Union{CopyUps: 5, Whiteouts: 6, Nodes: 7}, Process: figures.Process{ResidentBytes: 8 << 20},
	}
	checkStats(t, statsFormat("", true), []statsEntry{e, dead},
		"CONTAINER ID NAME FS REQUESTS FS ERRORS READ / WRITTEN COPY-UPS WHITEOUTS NODES FS MEM",
		"aaaaaaaaaaaa n 7 1 1.5kB / 2B 5 6 7 8MiB",
		"aaaaaaaaaaaa n -- -- -- -- -- -- --")
	checkStats(t, "{{.FSLatency}}", []statsEntry{e, dead}, "2µs", "--")
}

func checkStats(t *testing.T, format formatter.Format, entries []statsEntry, want ...string) {
	t.Helper()
	var out strings.Builder
	if err := statsWrite(formatter.Context{Output: &out, Format: format, Trunc: true}, entries); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}

func TestHistoryLine(t *testing.T) {
	steps := []imagetypes.HistoryResponseItem{
		{ID: "sha256:" + strings.Repeat("b", 64), CreatedBy: "RUN a\tb " + strings.Repeat("x", 50), Size: 1500, Comment: "c", Created: 1},
		{ID: "<missing>"},
	}
	for format, want := range map[historyFlags]string{
		{human: true, format: "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}"}: "bbbbbbbbbbbb|RUN a b " + strings.Repeat("x", 36) + "…|1.5kB|c\n<missing>||0B|\n",
		{human: false, format: "{{.CreatedAt}}|{{.Size}}"}:                     time.Unix(1, 0).Format(time.RFC3339) + "|1500\n" + time.Unix(0, 0).Format(time.RFC3339) + "|0\n",
		{human: true, quiet: true}:                                             "bbbbbbbbbbbb\n<missing>\n",
	} {
		var out strings.Builder
		ctx := formatter.Context{Output: &out, Format: historyFormat(&format), Trunc: !format.noTrunc}
		if err := historyWrite(ctx, format.human, steps); err != nil || out.String() != want {
			t.Errorf("%+v: %v, %q; want %q", format, err, out.String(), want)
		}
	}
}

func TestCommandsAreDescribed(t *testing.T) {
	root := rootCommand(newApp())
	for _, name := range []string{"run", "ps", "container ls", "image ls", "images", "volume create", "system df", "exec"} {
		cmd, _, err := root.Find(strings.Fields(name))
		if err != nil || cmd.Short == "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := cmd.UsageString(); !strings.Contains(text, "Usage:  lamina ") || !strings.Contains(text, cmd.Short) {
			t.Errorf("%s: %q", name, text)
		}
	}
	var groups, top int
	for _, c := range root.Commands() {
		if c.HasAvailableSubCommands() {
			groups++
		} else {
			top++
		}
	}
	if groups < 5 || top < 35 {
		t.Errorf("%d groups and %d commands", groups, top)
	}
}
