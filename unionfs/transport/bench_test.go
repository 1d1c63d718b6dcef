package transport

import (
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/leak"
)

// numberfs is a directory with a file for every number, each a gigabyte of zeros, and none of other names. What the
// kernel has been told, it is told again for every question.
type numberfs struct{ fuse.RawFileSystem }

const gigabyte = 1 << 30

func (numberfs) attr(id uint64, a *fuse.Attr) {
	*a = fuse.Attr{Ino: id, Nlink: 1, Mode: fuse.S_IFREG | 0o666, Size: gigabyte}
	if id == fuse.FUSE_ROOT_ID {
		a.Mode = fuse.S_IFDIR | 0o777
	}
}

func (f numberfs) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return fuse.ENOENT
	}
	out.NodeId, out.EntryValid, out.AttrValid = n+2, ever, ever
	f.attr(n+2, &out.Attr)
	return fuse.OK
}

func (f numberfs) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = ever
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (f numberfs) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (numberfs) Read(_ <-chan struct{}, _ *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	return fuse.ReadResultData(buf), fuse.OK
}

func (numberfs) Write(_ <-chan struct{}, _ *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return uint32(len(data)), fuse.OK
}

// clientEnv makes the test binary the client of a benchmark: "OP COUNT DIR".
const clientEnv = "LAMINA_TRANSPORT_CLIENT"

func TestMain(m *testing.M) {
	if job := os.Getenv(clientEnv); job != "" {
		client(job)
		return
	}
	os.Exit(leak.Run(m.Run))
}

// client does what a benchmark measures, and prints the processor time it took, in nanoseconds.
func client(job string) {
	var op, dir string
	var n int
	if _, err := fmt.Sscan(job, &op, &n, &dir); err != nil {
		panic(err)
	}
	do, err := operate(op, dir)
	if err != nil {
		panic(err)
	}
	before := cpuTime(unix.RUSAGE_SELF)
	for i := range n {
		if err := do(i); err != nil {
			panic(fmt.Sprintf("%s %d: %v", op, i, err))
		}
	}
	fmt.Println(int64(cpuTime(unix.RUSAGE_SELF) - before))
}

func operate(op, dir string) (func(i int) error, error) {
	fd, err := unix.Open(dir+"/1", unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<20)
	switch op {
	case "getattr":
		var st unix.Statx_t
		return func(int) error {
			return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
		}, nil
	case "lookup":
		dirfd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		var st unix.Stat_t
		return func(i int) error { return unix.Fstatat(dirfd, strconv.Itoa(i+100), &st, 0) }, err
	case "read4k":
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
			return nil, err
		}
		return func(i int) error {
			_, err := unix.Pread(fd, buf[:4096], int64(i)*3*4096%gigabyte)
			return err
		}, nil
	case "read1m":
		return func(i int) error {
			_, err := unix.Pread(fd, buf, int64(i)<<20%gigabyte)
			return err
		}, nil
	case "write4k":
		return func(i int) error { _, err := unix.Pwrite(fd, buf[:4096], int64(i)*4096%gigabyte); return err }, nil
	case "write1m":
		return func(i int) error { _, err := unix.Pwrite(fd, buf, int64(i)<<20%gigabyte); return err }, nil
	}
	return nil, fmt.Errorf("no operation %q", op)
}

func cpuTime(who int) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(who, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkRequest measures one request: the time that a client waits for it, and the processor time of server and
// client.
func BenchmarkRequest(b *testing.B) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		b.Skipf("needs /dev/fuse: %v", err)
	}
	for _, op := range []string{"getattr", "lookup", "read4k", "write4k", "read1m", "write1m"} {
		for _, name := range []string{Gofuse, Loop, Uring} {
			b.Run(op+"/"+name, func(b *testing.B) { benchmarkRequest(b, op, name) })
		}
	}
}

func benchmarkRequest(b *testing.B, op, name string) {
	if name == Uring {
		enableUring(b)
	}
	m, err := New(b.TempDir(), Options{Transport: name})
	if err != nil {
		b.Fatal(err)
	}
	fs := numberfs{fuse.NewDefaultRawFileSystem()}
	s, err := m.Serve(fs, log.New(io.Discard, "", 0), false, func() {})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(true); err != nil {
			b.Error(err)
		}
		<-s.Done()
	}()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", clientEnv, op, b.N, m.Target))
	before := cpuTime(unix.RUSAGE_SELF)
	b.ResetTimer()
	out, err := cmd.Output()
	b.StopTimer()
	server := cpuTime(unix.RUSAGE_SELF) - before
	if err != nil {
		b.Fatalf("client: %v", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(server.Nanoseconds())/float64(b.N), "server-ns/op")
	b.ReportMetric(float64(ns)/float64(b.N), "client-ns/op")
}
