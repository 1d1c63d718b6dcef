// Package programs runs real programs on a union: git, sqlite3, the go command, apt-get, tar, rsync, cp, make and
// python. What they work on starts in a lower layer, so that they copy up, white out and rename as they go, and what
// they leave is compared with what the same commands leave in the plain directory.
//
// Other filesystems than ours show whether a test is right: go test ./internal/uniontest/programs -on overlay,plain
package programs
