// Package figures is what a mount counts, and how it tells: over a socket, to whoever may connect.
//
//	client                 server (a mount)
//	'c' or 't'      -->                    'c': what is counted; 't': and time requests from now on
//	                <--    Mount as JSON, a line
//
// A server answers from counters alone. It takes no lock that is held over a system call, so an answer waits for no
// request of the filesystem. It answers in a thread of its own that blocks in accept(2): no part of Go's network poller
// is in the way of the requests.
//
// Requests are not timed before somebody wants to know: the clock is read twice for each.
package figures

import "time"

// Bounds are the upper bounds of the buckets of a Histogram but the last, which has none.
var Bounds = [...]time.Duration{
	2500 * time.Nanosecond, 5 * time.Microsecond, 10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 250 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond,
	100 * time.Millisecond, time.Second, 10 * time.Second,
}

// Mount is what one mount has counted since it was made. What only grows is named in the plural.
type Mount struct {
	PID        int     // of the server
	Started    float64 // seconds since 1970
	Mountpoint string
	Version    string // of laminafs
	GoVersion  string
	Modes      Modes
	Requests   Requests
	Union      Union
	Process    Process
}

// Modes is how the mount works.
type Modes struct {
	Transport   string  // how requests come and answers go
	ZeroMessage bool    // the kernel opens files without asking
	Whiteout    string  // format of what is written: wh or overlay
	IDMapping   string  // none, mapped or squashed
	Writable    bool    // there is an upper
	Layers      int     // lower ones
	TimedSince  float64 // seconds since 1970; 0: requests are not timed
}

// Requests is what came from the kernel.
type Requests struct {
	Opcodes      []Opcode // those that came
	ReadBytes    uint64
	WrittenBytes uint64
	InFlight     int64             // begun and not answered; only of those begun while they are timed
	Waiting      int64             // in the kernel, not answered; -1 where it does not tell
	Interrupted  uint64            // requests that have given up because a signal came: EINTR
	Notices      map[string]uint64 // that the kernel has taken, by kind
}

// Opcode is what one kind of request came to.
type Opcode struct {
	Name    string // as in linux/fuse.h, without FUSE_
	Count   uint64
	Errors  map[string]uint64 `json:",omitempty"` // by name of errno; what has none is "other"
	Latency *Histogram        `json:",omitempty"` // nil where none was timed
}

// Histogram counts durations.
type Histogram struct {
	Buckets [len(Bounds) + 1]uint64 // not cumulative
	Seconds float64                 // all together
}

// Union is what the merged tree has come to.
type Union struct {
	Nodes       int // nodeids the kernel knows, the root included
	Descriptors int // open on directories and files of layers, beside one for each layer

	IndexedNames int64 // in the indexes that are in memory

	IndexHits, IndexMisses uint64 // uses of a directory's index that was there, or had to be made

	CopyUps        uint64
	CopyUpFailures uint64
	CopyUpBytes    uint64 // written; holes and what the filesystem shares are not
	CopyUpSeconds  float64
	Whiteouts      uint64 // made
}

// Process is what the server takes of the machine.
type Process struct {
	CPUSeconds    float64
	ResidentBytes uint64
	Threads       int
	Goroutines    int
	HeapBytes     uint64
	GCCycles      uint32
	GCSeconds     float64 // of pauses
}
