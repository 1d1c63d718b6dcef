// Package allocs measures how much memory a function allocates.
package allocs

import goruntime "runtime"

// PerRun is how many bytes a call of f allocates, in whatever goroutine: the average of n calls after a first one, which may
// fill caches and pools.
func PerRun(n int, f func()) uint64 {
	f()
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	for range n {
		f()
	}
	goruntime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / uint64(n)
}
