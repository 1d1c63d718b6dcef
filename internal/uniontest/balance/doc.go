// Package balance tests that a mount leaves nothing behind: what the kernel has referred to is let go of when the kernel
// forgets it, and all else when the server ends.
package balance
