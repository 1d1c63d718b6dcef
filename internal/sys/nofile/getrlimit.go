//go:build amd64 || arm64

package nofile

// getrlimit is getrlimit(2); errno is negative.
//
//go:noescape
func getrlimit(resource int, r *[2]uint64) (errno int)
