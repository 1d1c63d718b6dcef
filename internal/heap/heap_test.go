package heap

import (
	goruntime "runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// percent is the GOGC at hand.
func percent() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func TestBegin(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	Begin(16<<20, 30)
	if got := percent(); got < 390 || got > 410 {
		t.Errorf("before the first collection GOGC is %d, want about 400", got)
	}
	for percent() != 30 { // the cleanup comes some time after a collection
		goruntime.GC()
	}
}

func TestEnvironmentOverrules(t *testing.T) {
	t.Setenv("GOGC", "70")
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	Begin(16<<20, 30)
	if got := percent(); got != 70 {
		t.Errorf("GOGC is %d, want 70", got)
	}
}
