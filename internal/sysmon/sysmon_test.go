package sysmon

import (
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"
)

// TestStopsOfTheWorldEnd stops the world over and over beside a thread that enters a blocking system call each time.
// Without Watch one stop in some 100,000 lasts a minute with Go 1.26.
func TestStopsOfTheWorldEnd(t *testing.T) {
	stops := 20_000
	if os.Getenv("LAMINA_LONG") != "" {
		stops = 5_000_000
	}
	Watch(t.Context().Done(), nil)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	ask, answer := pipe(t), pipe(t)
	go func() {
		buf := make([]byte, 1)
		for {
			if n, err := syscall.Read(ask[0], buf); n != 1 || err != nil {
				return
			}
			if _, err := syscall.Write(answer[1], buf); err != nil {
				return
			}
			for until := time.Now().Add(time.Duration(time.Now().UnixNano() % 2000)); time.Now().Before(until); {
			}
		}
	}()
	defer syscall.Close(ask[1])
	var worst time.Duration
	var stats runtime.MemStats
	buf := make([]byte, 1)
	for range stops {
		if _, err := syscall.Write(ask[1], buf); err != nil {
			t.Fatal(err)
		}
		if _, err := syscall.Read(answer[0], buf); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		runtime.ReadMemStats(&stats)
		worst = max(worst, time.Since(before))
	}
	t.Logf("%d stops, the longest %v", stops, worst)
	if worst > 30*time.Second {
		t.Errorf("a stop of the world lasted %v", worst)
	}
}

func pipe(t *testing.T) [2]int {
	t.Helper()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestIdleProcessRests: a mount that nobody uses must not keep a machine awake.
func TestIdleProcessRests(t *testing.T) {
	if d := next(7, 7); d != idlePause {
		t.Errorf("an idle process looks again after %v, want %v", d, idlePause)
	}
	if d := next(7, 8); d != busyPause {
		t.Errorf("a busy process looks again after %v, want %v", d, busyPause)
	}
}
